//! What people type into a search box, cleaned for PostgreSQL.

/// `q` with only those operators of `websearch_to_tsquery` that a person can have meant: closed quotes, `or`, and one
/// dash right before a word or a phrase. All else that PostgreSQL would take for an operator becomes a space.
///
/// PostgreSQL takes any dash outside of a word for "not", and gives up with an error on 32 of them in a row.
pub fn tidy(q: &str) -> String {
    let pieces: Vec<&str> = q.split('"').collect();
    let mut terms = Vec::new();
    let mut excluded = false;
    for (index, piece) in pieces.iter().enumerate() {
        // Every other piece is quoted; the last one has no closing quote.
        if index % 2 == 1 && index + 1 < pieces.len() {
            terms.extend(is_searchable(piece).then(|| phrase(piece, excluded)));
            excluded = false;
        } else {
            let words = piece.split(is_separator);
            excluded = words.clone().next_back() == Some("-");
            terms.extend(words.filter_map(word));
        }
    }
    terms.join(" ")
}

/// These end a word for PostgreSQL, and a dash may follow them.
fn is_separator(c: char) -> bool {
    c.is_whitespace() || matches!(c, '!' | '&' | '|' | '(' | ')')
}

fn is_searchable(text: &str) -> bool {
    text.contains(|c: char| c.is_alphanumeric() || !c.is_ascii())
}

/// Quoted: nothing in it is an operator.
fn phrase(text: &str, excluded: bool) -> String {
    let dash = if excluded { "-" } else { "" };
    format!("{dash}\"{text}\"")
}

fn word(text: &str) -> Option<String> {
    let bare = text.trim_start_matches('-');
    if !is_searchable(bare) {
        return None;
    }
    if text.len() == bare.len() + 1 {
        return Some(phrase(bare, true));
    }
    // A dash joins letters and digits, as in `t-shirt`. Beside anything else it could begin a word, since PostgreSQL
    // has its own idea of what a space is.
    let joins = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let mut before = None;
    let mut rest = bare.chars().peekable();
    let mut word = String::with_capacity(bare.len());
    while let Some(c) = rest.next() {
        let stray = c == '-' && !(joins(before) && joins(rest.peek().copied()));
        word.push(if stray { ' ' } else { c });
        before = Some(c);
    }
    Some(word.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_that_were_meant_stay() {
        for kept in
            ["waxed jacket", "t-shirt or jacket", r#""waxed jacket" lamp"#, r#"lamp -"oil lamp""#, "5.5-6mm"]
        {
            assert_eq!(tidy(kept), kept);
        }
        assert_eq!(tidy("lamp -oil"), r#"lamp -"oil""#);
    }

    #[test]
    fn strays_mean_nothing() {
        for (q, meant) in [
            ("coffee - dark", "coffee dark"),
            ("coffee -- dark-", "coffee dark"),
            ("--coffee", "coffee"),
            (r#"harbour "lamp"#, "harbour lamp"),
            (r#"- "" lamp """#, "lamp"),
            ("(salt&-pepper)|!", r#"salt -"pepper""#),
            ("a_-b", "a_ b"),
        ] {
            assert_eq!(tidy(q), meant, "{q}");
        }
        for nothing in ["-".repeat(200), "(-".repeat(100), "\"-".repeat(100), "- ".repeat(100)] {
            assert_eq!(tidy(&nothing), "", "{nothing}");
        }
    }
}
