//! Where words begin and end.

use unicode_normalization::char::is_combining_mark;

/// A part of a text that is looked for by itself, folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// Letters of a script that puts spaces between words.
    Word(String),
    Number(String),
    /// Characters of scripts that don't.
    Run(Vec<char>),
}

impl Token {
    /// How many places of a vector it takes.
    pub fn places(&self) -> usize {
        match self {
            Self::Word(_) | Self::Number(_) => 1,
            Self::Run(chars) => chars.len(),
        }
    }

    /// What is too short or too common to be looked for without its neighbours: in `X-200` both.
    pub fn is_weak(&self) -> bool {
        match self {
            Self::Word(word) => word.chars().count() <= 2,
            Self::Number(_) => true,
            Self::Run(_) => false,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    Number,
    Run,
    Other,
}

fn kind(c: char) -> Kind {
    match c {
        '0'..='9' => Kind::Number,
        'a'..='z' => Kind::Word,
        c if c.is_ascii() => Kind::Other,
        c if is_run(c) => Kind::Run,
        c if c.is_numeric() => Kind::Number,
        c if c.is_alphabetic() || is_combining_mark(c) => Kind::Word,
        _ => Kind::Other,
    }
}

/// Thai, Lao, Burmese, Khmer, Japanese, Chinese; Korean too, whose words take endings and are joined.
fn is_run(c: char) -> bool {
    matches!(c,
        '\u{e01}'..='\u{e3a}' | '\u{e40}'..='\u{e4e}' | '\u{e81}'..='\u{ecd}' | '\u{edc}'..='\u{edf}'
        | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17d3}'
        | '\u{3005}'..='\u{3007}' | '\u{3041}'..='\u{3096}' | '\u{309d}'..='\u{309f}'
        | '\u{30a1}'..='\u{30fa}' | '\u{30fc}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{ac00}'..='\u{d7a3}' | '\u{20000}'..='\u{3ffff}')
}

/// The tokens of a folded text without blanks. `X-200b` is `x`, `200` and `b`.
pub fn tokens(folded: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = folded.chars().peekable();
    while let Some(first) = rest.next() {
        let begun = kind(first);
        if begun == Kind::Other || (is_combining_mark(first) && begun == Kind::Word) {
            continue;
        }
        let mut text = String::from(first);
        while let Some(next) = rest.next_if(|next| kind(*next) == begun) {
            text.push(next);
        }
        tokens.push(match begun {
            Kind::Run => Token::Run(text.chars().collect()),
            Kind::Number => Token::Number(cut(text)),
            _ => Token::Word(cut(text)),
        });
    }
    tokens
}

/// No word is longer; what is, is junk that would not fit an index.
fn cut(text: String) -> String {
    match text.char_indices().nth(crate::LONGEST) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}

/// Tokens that were written together, without runs between them: what [`joined`] makes one word of.
pub fn segments(tokens: &[Token]) -> impl Iterator<Item = &[Token]> {
    tokens.chunk_by(|one, other| !matches!(one, Token::Run(_)) && !matches!(other, Token::Run(_)))
}

/// `tshirt` for the segment of `T-shirt`; `None` for a single token, or when it gets too long.
pub fn joined(segment: &[Token]) -> Option<String> {
    if segment.len() < 2 {
        return None;
    }
    let texts = segment.iter().map(|token| match token {
        Token::Word(text) | Token::Number(text) => text.as_str(),
        Token::Run(_) => "",
    });
    let joined: String = texts.collect();
    (joined.chars().count() <= crate::LONGEST).then_some(joined)
}

/// A run's neighbours in twos, and its last character: with them each part of it can be looked for.
pub fn pairs(run: &[char]) -> impl Iterator<Item = String> {
    let last = run.last().map(char::to_string);
    run.windows(2).map(|pair| pair.iter().collect()).chain(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_where_the_kind_of_character_changes() {
        let word = |text: &str| Token::Word(text.to_owned());
        let number = |text: &str| Token::Number(text.to_owned());
        let run = |text: &str| Token::Run(text.chars().collect());
        for (text, parts) in [
            ("x-200", vec![word("x"), number("200")]),
            ("10-12", vec![number("10"), number("12")]),
            ("red/blue", vec![word("red"), word("blue")]),
            ("kp12-seal114-blk", vec![word("kp"), number("12"), word("seal"), number("114"), word("blk")]),
            ("無線mouse2個", vec![run("無線"), word("mouse"), number("2"), run("個")]),
            ("กาแฟ", vec![run("กาแฟ")]),
            ("ส้ม", vec![run("ส้ม")]),
            ("हिन्दी", vec![word("हिन्दी")]),
            ("☕--", vec![]),
            ("\u{301}a", vec![word("a")]),
        ] {
            assert_eq!(tokens(text), parts, "{text}");
        }
    }

    #[test]
    fn what_was_written_together_is_one_word_too() {
        let of = |text: &str| {
            let tokens = tokens(text);
            segments(&tokens).filter_map(joined).collect::<Vec<_>>()
        };
        assert_eq!(of("t-shirt"), ["tshirt"]);
        assert_eq!(of("耳机gtx-1080个"), ["gtx1080"]);
        assert_eq!(of("shirt"), Vec::<String>::new());
        assert_eq!(of(&"ab-".repeat(40)), Vec::<String>::new());
    }

    #[test]
    fn a_run_is_pairs_and_its_last_character() {
        assert_eq!(pairs(&['咖', '啡', '机']).collect::<Vec<_>>(), ["咖啡", "啡机", "机"]);
        assert_eq!(pairs(&['茶']).collect::<Vec<_>>(), ["茶"]);
    }
}
