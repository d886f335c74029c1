//! What a misspelt search may have meant.
//!
//! Words are compared as stems (`moorings` is `moor`) with those of names and
//! attributes. Trigrams find the candidates, the number of edits decides: one
//! in words of up to five letters, two in longer ones, as Elasticsearch's
//! `fuzziness: AUTO` has it.

use service::db::Connection;

/// Words of a search that are looked up at most.
const MOST_WORDS: usize = 12;

/// `q`, tidied, as a tsquery; empty when it holds nothing to look for.
pub async fn parse(connection: &mut Connection, q: &str) -> sqlx::Result<String> {
    sqlx::query_scalar!(r#"SELECT websearch_to_tsquery('english', $1)::text AS "query!""#, q)
        .fetch_one(connection)
        .await
}

/// The tsquery that looks for all of `words`, which are stems.
pub fn query(words: &[String]) -> String {
    let quoted = words.iter().map(|word| format!("'{}'", word.replace('\\', "\\\\").replace('\'', "''")));
    quoted.collect::<Vec<_>>().join(" & ")
}

/// Whether these can be words that [`correct`] gave.
pub fn is_sane(words: &[String]) -> bool {
    let word = |word: &String| (1..=200).contains(&word.chars().count()) && !word.contains(char::is_control);
    (1..=MOST_WORDS).contains(&words.len()) && words.iter().all(word)
}

/// The stems to look for instead of `q`; `None` when the shop has a product
/// with its words (`query`), or nothing like them. A search that excludes words
/// or quotes a phrase means it to the letter.
pub async fn correct(connection: &mut Connection, q: &str, query: &str) -> sqlx::Result<Option<Vec<String>>> {
    let exact = q.contains('"') || q.split_whitespace().any(|word| word.starts_with('-'));
    if exact || query.is_empty() || is_known(connection, query).await? {
        return Ok(None);
    }
    let words = sqlx::query!(
        r#"SELECT word AS "word!", stem AS "stem!"
           FROM unnest(tsvector_to_array(to_tsvector('simple', $1))) AS word
           CROSS JOIN LATERAL (SELECT (tsvector_to_array(to_tsvector('english', word)))[1] AS stem) stemmed
           WHERE stem IS NOT NULL"#,
        q
    );
    let words = words.fetch_all(&mut *connection).await?;
    if words.is_empty() || words.len() > MOST_WORDS {
        return Ok(None);
    }
    // As spelt too: a slip may look like an ending that stemming takes off ("bras").
    let asked: Vec<String> = words.iter().flat_map(|word| [word.stem.clone(), word.word.clone()]).collect();
    // Low, for a transposition in a short word leaves few trigrams as they were.
    // https://www.postgresql.org/docs/current/pgtrgm.html
    sqlx::query!("SELECT set_config('pg_trgm.similarity_threshold', '0.2', true)")
        .fetch_one(&mut *connection)
        .await?;
    let candidates = sqlx::query!(
        r#"SELECT asked.word AS "asked!", known.word, extensions.similarity(known.word, asked.word) AS "alike!"
           FROM UNNEST($1::text[]) AS asked (word)
           CROSS JOIN LATERAL (
               SELECT DISTINCT k.word, extensions.similarity(k.word, asked.word) AS alike
               FROM products.words k WHERE k.word OPERATOR(extensions.%) asked.word
               ORDER BY alike DESC, k.word LIMIT 50) known"#,
        &asked
    );
    let candidates = candidates.fetch_all(connection).await?;
    let near = |asked: &str| {
        let near = candidates.iter().filter(|row| row.asked == asked).filter_map(|row| {
            let edits = edits(asked, &row.word);
            // Few mistake the first letter.
            let likely = row.alike >= 0.3 || row.word.chars().next() == asked.chars().next();
            (edits <= tolerated(asked) && likely).then_some((edits, row.word.clone()))
        });
        // Of equal ones the first is the most alike.
        near.min_by_key(|(edits, _)| *edits)
    };
    let best = words.iter().map(|word| {
        let near = near(&word.stem).into_iter().chain(near(&word.word)).min_by_key(|(edits, _)| *edits);
        near.map_or_else(|| word.stem.clone(), |(_, word)| word)
    });
    let best: Vec<String> = best.collect();
    let changed = best.iter().zip(&words).any(|(best, word)| *best != word.stem);
    Ok(changed.then_some(best))
}

async fn is_known(connection: &mut Connection, query: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM products.products
                          WHERE archived_at IS NULL AND search @@ $1::text::tsquery) AS "exists!""#,
        query
    )
    .fetch_one(connection)
    .await
}

fn tolerated(word: &str) -> usize {
    match word.chars().count() {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    }
}

/// Insertions, deletions, replacements and swaps of neighbours from `a` to `b`
/// (optimal string alignment).
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, count) in [
            ("jaket", "jacket", 1),
            ("lapm", "lamp", 1),
            ("lamp", "lamp", 0),
            ("", "ab", 2),
            ("größe", "grösse", 2),
        ] {
            assert_eq!((edits(a, b), edits(b, a)), (count, count), "{a} {b}");
        }
    }

    #[test]
    fn a_query_holds_any_word_as_it_is() {
        let words = ["o'brien", r"a\b", "&!|:*"].map(str::to_owned);
        assert_eq!(query(&words), r"'o''brien' & 'a\\b' & '&!|:*'");
    }
}
