//! What people type, as PostgreSQL is asked for it.
//!
//! It is text. Two things mean more: a phrase in quotes, and a dash right before a word or a phrase, which leaves out
//! what holds it. A quote stands before a word or behind one (`24" screen` has none), a dash before a letter (`-40`
//! is a number).

use crate::fold::{fold, key, spelt_out};
use crate::quoted;
use crate::stem::{root, says_little, stem};
use crate::tokens::{Token, joined, segments, tokens};

/// The least letters of a word that may be the beginning of another, and of one that may be in the middle of one.
const PREFIX: usize = 3;
const INFIX: usize = 4;
/// The least digits of a number that may be the beginning of a longer one.
const PREFIX_DIGITS: usize = 4;

/// What is looked for, as `tsquery`s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Products of just this name or SKU.
    pub exact: String,
    /// All words, whole but for their endings. `None` when nothing but what is left out was named.
    pub whole: Option<String>,
    /// All words, or others that begin with them or hold them.
    pub any: Option<String>,
    /// What is left out.
    pub without: Option<String>,
    /// The words that have to be there.
    pub words: Vec<Word>,
    /// It has quotes or leaves something out, and is meant to the letter.
    pub is_literal: bool,
}

/// A word of a query, or several that were written as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// As it was typed, folded.
    pub text: String,
    /// The `tsquery` of the word alone.
    pub any: String,
    /// It is of letters alone, which may have been mistyped.
    pub is_plain: bool,
}

impl Query {
    pub fn parse(text: &str) -> Self {
        let mut query = Self { exact: quoted(&format!("={}", key(text))), ..Self::default() };
        let (mut required, mut helpful, mut without) = (Vec::new(), Vec::new(), Vec::new());
        for part in parts(text) {
            query.is_literal |= part.is_quoted || part.is_left_out;
            let terms = if part.is_quoted { phrase(&part.text) } else { term(&part.text) };
            let Some(term) = terms else { continue };
            match (part.is_left_out, term.says_little) {
                (true, _) => without.push(term.whole),
                (false, true) => helpful.push(term),
                (false, false) => required.push(term),
            }
        }
        let terms = if required.is_empty() { helpful } else { required };
        query.whole = all(terms.iter().map(|term| &term.whole), " & ");
        query.any = all(terms.iter().map(|term| &term.any), " & ");
        query.without = all(without.iter(), " | ");
        query.words = terms
            .into_iter()
            .map(|term| Word { text: term.text, any: term.any, is_plain: term.is_plain })
            .collect();
        query
    }

    /// All that is found, if `without` is left out.
    pub fn found(&self) -> Option<String> {
        self.any.as_ref().map(|any| format!("{any} | {}", self.exact))
    }
}

/// Only several are in parentheses.
fn all<'a>(mut terms: impl Iterator<Item = &'a String>, operator: &str) -> Option<String> {
    let first = terms.next()?;
    let rest: Vec<String> = terms.map(|term| format!("{operator}({term})")).collect();
    Some(if rest.is_empty() { first.clone() } else { format!("({first}){}", rest.concat()) })
}

struct Part {
    text: String,
    is_quoted: bool,
    is_left_out: bool,
}

/// The words, and the phrases in quotes.
fn parts(text: &str) -> Vec<Part> {
    let chars: Vec<char> = text.chars().map(|c| if matches!(c, '“' | '”' | '„') { '"' } else { c }).collect();
    let mut parts = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        if chars[at].is_whitespace() {
            at += 1;
            continue;
        }
        let rest = &chars[at..];
        let after_dash = usize::from(rest[0] == '-');
        let is_left_out = after_dash == 1 && rest.get(1).is_some_and(|c| *c == '"' || c.is_alphabetic());
        let begin = if is_left_out { 1 } else { 0 };
        if rest.get(begin) == Some(&'"')
            && let Some(end) = closing(rest, begin + 1)
        {
            parts.push(Part { text: rest[begin + 1..end].iter().collect(), is_quoted: true, is_left_out });
            at += end + 1;
            continue;
        }
        let end = rest.iter().position(|c| c.is_whitespace()).unwrap_or(rest.len());
        parts.push(Part { text: rest[begin..end].iter().collect(), is_quoted: false, is_left_out });
        at += end;
    }
    parts
}

/// Where the quote that opened before `from` closes: behind a word, with nothing of one after it.
fn closing(chars: &[char], from: usize) -> Option<usize> {
    let is_end = |index: usize| chars.get(index + 1).is_none_or(|c| !c.is_alphanumeric());
    (from..chars.len()).find(|index| chars[*index] == '"' && is_end(*index))
}

struct Term {
    text: String,
    whole: String,
    any: String,
    says_little: bool,
    is_plain: bool,
}

/// What was written without blanks.
fn term(written: &str) -> Option<Term> {
    let folded = fold(written);
    let tokens = tokens(&folded);
    let mut whole: Vec<String> = Vec::new();
    let mut any: Vec<String> = Vec::new();
    for segment in segments(&tokens) {
        let (one, other) = group(segment);
        whole.push(one);
        any.push(other);
    }
    let (mut whole, mut any) = (all(whole.iter(), " & ")?, all(any.iter(), " & ")?);
    // As German writes umlauts without dots, which the index holds too.
    if let Some(long) = spelt_out(written) {
        let words = self::tokens(&long).into_iter().filter_map(|token| match token {
            Token::Word(word) => Some(word),
            Token::Number(_) | Token::Run(_) => None,
        });
        let words: Vec<String> = words.collect();
        if words.len() == 1 && tokens.len() == 1 {
            whole = format!("{whole} | {}", whole_word(&words[0]));
            any = format!("{any} | {}", any_word(&words[0]));
        }
    }
    let single = match tokens.as_slice() {
        [Token::Word(word)] => Some(word),
        _ => None,
    };
    let text = single.cloned().unwrap_or_else(|| folded.clone());
    Some(Term {
        says_little: single.is_some_and(|word| says_little(word)),
        is_plain: single.is_some_and(|word| word.chars().count() >= PREFIX),
        text,
        whole,
        any,
    })
}

/// The tokens of a segment: whole, and as beginnings.
fn group(segment: &[Token]) -> (String, String) {
    let together = joined(segment);
    let (mut whole, mut any) = if together.is_some() && segment.iter().any(Token::is_weak) {
        let last = segment.len() - 1;
        let beginning = segment
            .iter()
            .enumerate()
            .map(|(index, token)| if index == last { prefix(token) } else { whole_token(token) });
        let beginning: Vec<String> = beginning.map(|token| format!("({token})")).collect();
        let whole: Vec<String> = segment.iter().map(|token| format!("({})", whole_token(token))).collect();
        (whole.join(" <-> "), beginning.join(" <-> "))
    } else {
        let whole: Vec<String> = segment.iter().map(whole_token).collect();
        let any: Vec<String> = segment.iter().map(any_token).collect();
        (all(whole.iter(), " & ").unwrap_or_default(), all(any.iter(), " & ").unwrap_or_default())
    };
    if let Some(together) = together {
        whole = format!("({whole}) | {}", quoted(&together));
        any = format!("({any}) | {}{}", quoted(&together), beginning(&together, PREFIX));
    }
    (whole, any)
}

fn whole_token(token: &Token) -> String {
    match token {
        Token::Word(word) => whole_word(word),
        Token::Number(number) => quoted(number),
        Token::Run(run) => whole_run(run),
    }
}

fn any_token(token: &Token) -> String {
    match token {
        Token::Word(word) => any_word(word),
        Token::Number(number) => format!("{}{}", quoted(number), beginning(number, PREFIX_DIGITS)),
        Token::Run(run) => any_run(run),
    }
}

/// The last of several: `200` of `X-20`.
fn prefix(token: &Token) -> String {
    match token {
        Token::Word(word) | Token::Number(word) => format!("{}:*", quoted(word)),
        Token::Run(run) => whole_run(run),
    }
}

fn beginning(word: &str, least: usize) -> &'static str {
    if word.chars().count() >= least { ":*" } else { "" }
}

/// The word, or others with its stem.
fn whole_word(word: &str) -> String {
    match stem(word) {
        Some(stem) => format!("{} | {} | {}", quoted(word), quoted(&stem), quoted(&format!("~{stem}"))),
        None => format!("{} | {}", quoted(word), quoted(&format!("~{word}"))),
    }
}

fn any_word(word: &str) -> String {
    let mut query = format!("{}{}", quoted(word), beginning(word, PREFIX));
    let mut or = |lexeme: &str, end: &str| query.push_str(&format!(" | {}{end}", quoted(lexeme)));
    let stem = stem(word);
    if let Some(stem) = &stem {
        or(stem, "");
    }
    or(&format!("~{}", stem.as_deref().unwrap_or(word)), "");
    if word.chars().count() >= INFIX {
        or(&format!("*{word}"), ":*");
    }
    if let Some(root) = root(word) {
        or(&format!("^{root}"), "");
    }
    query
}

/// The characters of the run in their order.
fn whole_run(run: &[char]) -> String {
    match run {
        [one] => format!("{}:*", quoted(&one.to_string())),
        run => {
            let pairs: Vec<String> =
                run.windows(2).map(|pair| quoted(&pair.iter().collect::<String>())).collect();
            pairs.join(" <-> ")
        }
    }
}

/// Also as words of two characters that stand apart: most Chinese words are so long. Where the script changes a word
/// ends.
fn any_run(run: &[char]) -> String {
    let is_han = |c: &char| matches!(c, '\u{3400}'..='\u{9fff}' | '\u{20000}'..='\u{3ffff}');
    let mut words = Vec::new();
    for part in run.chunk_by(|one, other| is_han(one) == is_han(other)) {
        if is_han(&part[0]) && part.len() > 2 {
            words.extend(part.chunks(2).map(whole_run));
        } else {
            words.push(whole_run(part));
        }
    }
    if words.len() == 1 {
        return words.remove(0);
    }
    all(words.iter(), " & ").unwrap_or_default()
}

/// What stands in quotes: all of it, in its order, whole but for endings.
fn phrase(text: &str) -> Option<Term> {
    let mut query = String::new();
    let (mut place, mut last) = (0, None);
    let words: Vec<Token> = fold(text).split_whitespace().flat_map(tokens).collect();
    let little = |token: &Token| matches!(token, Token::Word(word) if says_little(word));
    let only_little = words.iter().all(little);
    for token in &words {
        // Descriptions don't hold them.
        if only_little || !little(token) {
            let lexemes: Vec<String> = match token {
                Token::Run(run) if run.len() > 1 => {
                    run.windows(2).map(|pair| quoted(&pair.iter().collect::<String>())).collect()
                }
                token => vec![format!("({})", whole_token(token))],
            };
            for (index, lexeme) in lexemes.iter().enumerate() {
                let at = place + index;
                if let Some(last) = last {
                    query.push_str(&format!(" <{}> ", at - last));
                }
                query.push_str(lexeme);
                last = Some(at);
            }
        }
        place += token.places();
    }
    (!query.is_empty()).then(|| Term {
        text: fold(text),
        whole: query.clone(),
        any: query,
        says_little: false,
        is_plain: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Query {
        Query::parse(text)
    }

    fn words(text: &str) -> Vec<String> {
        of(text).words.into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn words_are_looked_for_whole_and_as_beginnings() {
        let query = of("Jackets");
        assert_eq!(query.exact, "'=jackets'");
        assert_eq!(query.whole.unwrap(), "'jackets' | 'jacket' | '~jacket'");
        assert_eq!(query.any.unwrap(), "'jackets':* | 'jacket' | '~jacket' | '*jackets':* | '^jacket'");
        assert_eq!(query.without, None);
    }

    #[test]
    fn what_is_typed_is_text() {
        for (text, parts) in [
            ("Kestrel Tee - Red", vec!["kestrel", "tee", "red"]),
            ("coffee -- dark-", vec!["coffee", "dark"]),
            ("storm or harbour", vec!["storm", "harbour"]),
            ("(storm|harbour) & !", vec!["(storm|harbour)"]),
            ("24\" screen 27\"", vec!["24\"", "screen", "27\""]),
            ("cooler -40 +20", vec!["cooler", "-40", "+20"]),
            ("the lamp", vec!["lamp"]),
            ("the who", vec!["the", "who"]),
            ("it", vec!["it"]),
            ("--coffee", vec!["coffee"]),
        ] {
            let query = of(text);
            assert_eq!(
                (words(text), query.without, query.is_literal),
                (parts.iter().map(|part| (*part).to_owned()).collect(), None, false),
                "{text}"
            );
        }
        for nothing in ["-".repeat(200), "(-".repeat(100), "\"-".repeat(100), "☕".to_owned(), String::new()]
        {
            let query = of(&nothing);
            assert_eq!((query.any, query.without), (None, None), "{nothing}");
        }
    }

    #[test]
    fn quotes_and_a_leading_dash_mean_what_they_say() {
        let query = of(r#"lamp -oil -"burns oil" "made in Hull""#);
        assert!(query.is_literal);
        assert_eq!(
            query.without.unwrap(),
            "('oil' | '~oil') | (('burns' | 'burn' | '~burn') <1> ('oil' | '~oil'))"
        );
        assert!(query.any.unwrap().ends_with("(('made' | '~made') <2> ('hull' | '~hull'))"));
        assert_eq!(of("-wool").any, None);
        assert_eq!(words("“oil lamp”"), ["oil lamp"]);
        assert_eq!(words("t-shirt"), ["t-shirt"]);
    }

    #[test]
    fn what_is_short_is_looked_for_beside_its_neighbours() {
        assert_eq!(of("X-20").any.unwrap(), "(('x' | '~x') <-> ('20':*)) | 'x20':*");
        assert!(of("red/blue").whole.unwrap().contains(" & "));
        assert!(of("KP1-SEAL114").any.unwrap().contains("'kp1seal114':*"));
    }

    #[test]
    fn scripts_without_spaces_are_looked_for_in_pairs() {
        assert_eq!(of("耳机").any.unwrap(), "'耳机'");
        assert_eq!(of("咖啡研磨机").whole.unwrap(), "'咖啡' <-> '啡研' <-> '研磨' <-> '磨机'");
        assert_eq!(of("咖啡研磨机").any.unwrap(), "('咖啡') & ('研磨') & ('机':*)");
        assert_eq!(of("茶").any.unwrap(), "'茶':*");
        assert!(of("コーヒー豆").any.unwrap().contains("'豆':*"));
    }

    #[test]
    fn umlauts_are_looked_for_in_both_spellings() {
        let any = of("Käse").any.unwrap();
        assert!(any.contains("'kase':*") && any.contains("'kaese':*"), "{any}");
    }
}
