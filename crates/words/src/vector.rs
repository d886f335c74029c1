//! The lexemes of a product.

use std::collections::BTreeMap;

use crate::fold::{fold, key, spelt_out};
use crate::stem::{root, says_little, stem};
use crate::tokens::{Token, joined, pairs, segments, tokens};

/// What a product is found by.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a> {
    pub name: &'a str,
    pub sku: &'a str,
    /// Names and values.
    pub attributes: &'a [(&'a str, &'a str)],
    pub description: &'a str,
}

/// The last place that PostgreSQL counts, and the most places of a lexeme.
const LAST_PLACE: usize = 16_383;
const MOST_PLACES: usize = 250;

/// Places between two texts, so that no phrase goes across.
const GAP: usize = 8;

/// The least letters of a word whose ends are looked for, of what comes before an end, and of an end.
const LONG: usize = 7;
const BEGINNING: usize = 3;
const END: usize = 4;

/// The product's `tsvector`, as text.
pub fn vector(texts: &Texts<'_>) -> String {
    let mut lexemes = Lexemes::default();
    lexemes.name(texts.name);
    lexemes.sku(texts.sku);
    for (name, value) in texts.attributes {
        lexemes.add(attribute(name, value), lexemes.next, 'B');
        lexemes.facts(value, 'B');
        lexemes.next += GAP;
    }
    lexemes.description(texts.description);
    lexemes.into_text()
}

/// The lexeme of an attribute with just this value, as [`key`] compares them.
pub(crate) fn attribute(name: &str, value: &str) -> String {
    format!("@{}={}", key(name), key(value))
}

#[derive(Default)]
struct Lexemes {
    places: BTreeMap<String, Vec<(usize, char)>>,
    next: usize,
}

impl Lexemes {
    fn add(&mut self, lexeme: String, place: usize, weight: char) {
        let places = self.places.entry(lexeme).or_default();
        let place = (place + 1).min(LAST_PLACE);
        if places.len() < MOST_PLACES && !places.contains(&(place, weight)) {
            places.push((place, weight));
        }
    }

    fn name(&mut self, name: &str) {
        self.add(format!("={}", key(name)), self.next, 'A');
        self.facts(name, 'A');
        for word in fold(name).split_whitespace().flat_map(tokens) {
            if let Token::Word(word) = word {
                self.parts(&word);
            }
        }
        self.next += GAP;
    }

    /// What a word of the name may be looked for by besides itself.
    fn parts(&mut self, word: &str) {
        if let Some(root) = root(word) {
            self.add(format!("^{root}"), self.next, 'B');
        }
        let letters = word.chars().count();
        if letters < LONG {
            return;
        }
        for (index, (at, _)) in word.char_indices().enumerate() {
            if index >= BEGINNING && letters - index >= END {
                self.add(format!("*{}", &word[at..]), self.next, 'B');
            }
        }
    }

    fn sku(&mut self, sku: &str) {
        self.add(format!("={}", key(sku)), self.next, 'A');
        self.facts(sku, 'A');
        self.next += GAP;
    }

    /// Words with their stems.
    fn facts(&mut self, text: &str, weight: char) {
        for written in text.split_whitespace() {
            let begin = self.next;
            self.written(&fold(written), begin, weight);
            let end = self.next;
            if let Some(long) = spelt_out(written) {
                self.written(&long, begin, weight);
            }
            self.next = end;
        }
    }

    fn written(&mut self, folded: &str, begin: usize, weight: char) {
        self.next = begin;
        let tokens = tokens(folded);
        for segment in segments(&tokens) {
            if let Some(joined) = joined(segment) {
                self.add(joined, self.next, weight);
            }
            for token in segment {
                self.token(token, weight);
            }
        }
    }

    fn token(&mut self, token: &Token, weight: char) {
        match token {
            Token::Word(word) => {
                if let Some(stem) = stem(word) {
                    self.add(format!("~{stem}"), self.next, weight);
                }
                self.add(word.clone(), self.next, weight);
            }
            Token::Number(number) => self.add(number.clone(), self.next, weight),
            Token::Run(run) => {
                for (index, pair) in pairs(run).enumerate() {
                    self.add(pair, self.next + index, weight);
                }
            }
        }
        self.next += token.places();
    }

    /// Stems alone, as it is long.
    fn description(&mut self, text: &str) {
        for written in text.split_whitespace() {
            let begin = self.next;
            for folded in std::iter::once(fold(written)).chain(spelt_out(written)) {
                self.next = begin;
                for token in tokens(&folded) {
                    match token {
                        Token::Word(word) if says_little(&word) => self.next += 1,
                        Token::Word(word) => {
                            let stem = stem(&word).unwrap_or(word);
                            self.add(stem, self.next, 'C');
                            self.next += 1;
                        }
                        token => self.token(&token, 'C'),
                    }
                }
            }
        }
    }

    fn into_text(self) -> String {
        let mut text = String::with_capacity(self.places.len() * 16);
        for (lexeme, mut places) in self.places {
            places.sort_unstable();
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(&crate::quoted(&lexeme));
            for (index, (place, weight)) in places.iter().enumerate() {
                text.push(if index == 0 { ':' } else { ',' });
                text.push_str(&place.to_string());
                text.push(*weight);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, sku: &str, attributes: &[(&str, &str)], description: &str) -> String {
        vector(&Texts { name, sku, attributes, description })
    }

    #[test]
    fn a_vector_says_where_each_word_is_from() {
        assert_eq!(
            of("Oil Lamps", "OL-1", &[("Made of", "Brass")], "The lamps burn."),
            "'1':12A '=oil lamps':1A '=ol-1':11A '@made of=brass':21B '^lamp':3B 'brass':21B 'burn':32C 'lamp':31C 'lamps':2A \
             'oil':1A 'ol':11A 'ol1':11A '~lamp':2A"
        );
    }

    #[test]
    fn compound_words_are_found_by_their_ends() {
        let vector = of("Edelstahlwasserkocher", "E", &[], "");
        for lexeme in ["'*wasserkocher':", "'*kocher':", "'edelstahlwasserkocher':"] {
            assert!(vector.contains(lexeme), "{lexeme} in {vector}");
        }
        for lexeme in ["'*her'", "'*delstahlwasserkocher'"] {
            assert!(!vector.contains(lexeme), "{lexeme} in {vector}");
        }
        assert!(!of("Kettle", "K", &[], "").contains('*'));
    }

    #[test]
    fn no_text_makes_a_vector_too_big() {
        let long = "語".repeat(5000);
        let attributes = vec![("a", long.as_str()); 3];
        let vector = of(&"語".repeat(200), "S", &attributes, &long);
        assert!(vector.len() < 100_000, "{}", vector.len());
        let words: String = (0..5000).map(|n| format!("w{n} ")).collect();
        assert!(of("n", "S", &[], &words).len() < 1_000_000);
    }
}
