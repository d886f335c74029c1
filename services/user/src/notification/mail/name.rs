//! Names in mails. Whoever opens an account chooses its name, and may enter a stranger's address: a mail from
//! us must not carry their links.

/// The name without anything that mail programs make a link of: no slash, colon or `@`, and no dot inside a word.
pub(in crate::notification) fn cleaned(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '/' | '\\' | ':' | '@' => text.push(' '),
            '.' | '。' | '．' | '｡' => {
                text.push(character);
                text.push(' ');
            }
            // An invisible character could split what looks like one word.
            character if character.is_control() || is_unseen(character) => {}
            character => text.push(character),
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Marks of width and direction.
fn is_unseen(character: char) -> bool {
    matches!(character, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::cleaned;

    #[test]
    fn names_of_people_stay_and_links_do_not() {
        for name in ["Ada Lovelace", "O'Brien", "Jean-Luc Müller", "小明", "Ada King, Countess"] {
            assert_eq!(cleaned(name), name);
        }
        for (name, said) in [
            ("J.R.R. Tolkien", "J. R. R. Tolkien"),
            ("Win at https://evil.example/x?y", "Win at https evil. example x?y"),
            ("www.evil.example", "www. evil. example"),
            ("write to a@b.example", "write to a b. example"),
            ("evil\u{200b}.example", "evil. example"),
            ("evil。example", "evil。 example"),
            ("<b> (https://evil.example)", "<b> (https evil. example)"),
            ("  a \n b ", "a b"),
            ("://", ""),
        ] {
            assert_eq!(cleaned(name), said, "{name:?}");
        }
    }
}
