//! What a misspelt search may have meant.
//!
//! Words that no product holds are compared with those of names and attributes. Trigrams find the candidates, the
//! number of edits decides: one in words of up to five letters, two in longer ones, as Elasticsearch's
//! `fuzziness: AUTO` has it. But a letter in place of another makes a word of its own too often in the short ones
//! (`brack` is not `black`), so there one is left out, one too many, or two are swapped.

use service::db::Connection;
use words::Query;

use super::store::spelling as store;

/// Most words of a search that are looked up.
const MOST_WORDS: usize = 12;

/// Whether these can be words that [`correct`] gave.
pub fn is_sane(words: &[String]) -> bool {
    let word = |word: &String| (1..=200).contains(&word.chars().count()) && !word.contains(char::is_control);
    (1..=MOST_WORDS).contains(&words.len()) && words.iter().all(word)
}

/// The words to search for instead; `None` when the shop has a product with the given words, or nothing like
/// them. Quotes and exclusions are taken literally.
pub async fn correct(connection: &mut Connection, query: &Query) -> sqlx::Result<Option<Vec<String>>> {
    let found = query.found().unwrap_or_default();
    if query.is_literal || !(1..=MOST_WORDS).contains(&query.words.len()) {
        return Ok(None);
    }
    let alone: Vec<String> = query.words.iter().map(|word| word.any.clone()).collect();
    let alone = std::iter::once(found).chain(alone).collect::<Vec<_>>();
    let is_known = store::are_known(connection, &alone).await?;
    let Some((false, is_known)) = is_known.split_first().map(|(all, each)| (*all, each)) else {
        return Ok(None);
    };
    let unknown = query.words.iter().zip(is_known).filter(|(_, is_known)| !**is_known);
    let unknown: Vec<&words::Word> = unknown.map(|(word, _)| word).collect();
    if unknown.is_empty() || unknown.iter().any(|word| !word.is_plain) {
        return Ok(None);
    }
    let asked: Vec<String> = unknown.iter().map(|word| word.text.clone()).collect();
    let candidates = store::alike(connection, &asked).await?;
    let near = |asked: &str| {
        let near = candidates.iter().filter(|row| row.asked == asked).filter_map(|row| {
            let edits = edits(asked, &row.word);
            // Few people mistake the first letter.
            let likely = row.alike >= 0.3 || row.word.chars().next() == asked.chars().next();
            let letters = asked.chars().count();
            let replaced =
                letters <= 5 && letters == row.word.chars().count() && !is_swapped(asked, &row.word);
            (edits <= tolerated(asked) && likely && !replaced).then_some((edits, row.word.clone()))
        });
        // Of equally good ones the first is the most similar.
        near.min_by_key(|(edits, _)| *edits)
    };
    let mut best = Vec::with_capacity(query.words.len());
    for (word, is_known) in query.words.iter().zip(is_known) {
        match (is_known, near(&word.text)) {
            (true, _) => best.push(word.text.clone()),
            (false, Some((_, near))) => best.push(near),
            (false, None) => return Ok(None),
        }
    }
    Ok(Some(best))
}

fn tolerated(word: &str) -> usize {
    match word.chars().count() {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    }
}

/// Whether `b`, which is as long, is `a` with two neighbours swapped: they have the same letters.
fn is_swapped(a: &str, b: &str) -> bool {
    let sorted = |word: &str| {
        let mut letters: Vec<char> = word.chars().collect();
        letters.sort_unstable();
        letters
    };
    sorted(a) == sorted(b)
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
    fn a_swap_is_distinguished_from_another_letter() {
        assert!(is_swapped("lapm", "lamp"));
        assert!(!is_swapped("brack", "black"));
    }
}
