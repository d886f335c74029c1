//! One way to write each letter.

use unicode_normalization::UnicodeNormalization;

/// `text` in lower case, without accents, in compatibility forms (NFKC): `Crème ｶﾌｪ` as `creme かふぇ`.
///
/// What is no accent but a part of the letter stays: the vowels of Thai, the dots of Japanese `が`.
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let plain = text.chars().filter(|c| !is_mark_of_trade(*c)).nfkd().filter(|c| !is_accent(*c));
    let mut folded = String::with_capacity(text.len());
    for c in plain.flat_map(char::to_lowercase) {
        match c {
            'ß' => folded.push_str("ss"),
            'æ' => folded.push_str("ae"),
            'œ' => folded.push_str("oe"),
            'þ' => folded.push_str("th"),
            c => folded.push(letter(c)),
        }
    }
    folded.nfc().collect()
}

/// As [`fold`] where it differs: with `ä`, `ö` and `ü` as German writes them without dots, `å` and `ø` as the
/// north does. `None` for a text that has none of them.
pub(crate) fn spelt_out(text: &str) -> Option<String> {
    if text.is_ascii() {
        return None;
    }
    let mut changed = false;
    let mut long = String::with_capacity(text.len() + 4);
    for c in text.nfc().flat_map(char::to_lowercase) {
        let letters = match c {
            'ä' => "ae",
            'ö' | 'ø' => "oe",
            'ü' => "ue",
            'å' => "aa",
            c => {
                long.push(c);
                continue;
            }
        };
        changed = true;
        long.push_str(letters);
    }
    changed.then(|| fold(&long))
}

/// `text` as people compare names: in lower case, with its accents, blanks as single spaces.
pub(crate) fn key(text: &str) -> String {
    let lower: String = text.nfkc().flat_map(char::to_lowercase).collect();
    lower.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// NFKC makes letters of them, and so `legotm` of Lego's name.
fn is_mark_of_trade(c: char) -> bool {
    matches!(c, '\u{2120}' | '\u{2122}' | '\u{ae}' | '\u{a9}')
}

/// Accents of Latin, Greek and Cyrillic, vowel signs of Arabic and Hebrew, and what is not seen.
fn is_accent(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}'
        | '\u{591}'..='\u{5c7}' | '\u{610}'..='\u{61a}' | '\u{640}' | '\u{64b}'..='\u{65f}' | '\u{670}'
        | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{fe00}'..='\u{fe0f}')
}

fn letter(c: char) -> char {
    let digit = |zero: u32| char::from_digit(c as u32 - zero, 10).unwrap_or(c);
    match c {
        'ø' => 'o',
        'ł' => 'l',
        'đ' | 'ð' => 'd',
        'ħ' => 'h',
        'ŧ' => 't',
        'ı' => 'i',
        'ς' => 'σ',
        // Alef, yeh, kaf and teh marbuta are typed in several ways.
        '\u{671}' => '\u{627}',
        '\u{649}' | '\u{6cc}' => '\u{64a}',
        '\u{6a9}' => '\u{643}',
        '\u{629}' => '\u{647}',
        '\u{660}'..='\u{669}' => digit(0x660),
        '\u{6f0}'..='\u{6f9}' => digit(0x6f0),
        '\u{966}'..='\u{96f}' => digit(0x966),
        '\u{e50}'..='\u{e59}' => digit(0xe50),
        // Katakana as hiragana.
        '\u{30a1}'..='\u{30f6}' => char::from_u32(c as u32 - 0x60).unwrap_or(c),
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_written_in_one_way() {
        for (text, folded) in [
            ("Crème BRÛLÉE", "creme brulee"),
            ("cre\u{300}me", "creme"),
            ("Straße", "strasse"),
            ("ŁÓDŹ", "lodz"),
            ("İstanbul ılık", "istanbul ilik"),
            ("ΣΊΣΥΦΟΣ", "σισυφοσ"),
            ("ｶﾞﾗｽ Ｔシャツ", "がらす tしゃつ"),
            ("カ\u{3099}", "が"),
            ("한글", "한글"),
            ("قَهْوَة", "قهوه"),
            ("أحمد", "احمد"),
            ("٢٥٠", "250"),
            ("กาแฟ", "กาแฟ"),
            ("Lego™ ﬁne", "lego fine"),
            ("ME\u{ad}DIUM", "medium"),
        ] {
            assert_eq!(fold(text), folded, "{text}");
        }
    }

    #[test]
    fn german_is_also_spelt_without_dots() {
        assert_eq!(spelt_out("Käse"), Some("kaese".to_owned()));
        assert_eq!(spelt_out("Ka\u{308}se-Brötchen é"), Some("kaese-broetchen e".to_owned()));
        assert_eq!(spelt_out("crème"), None);
        assert_eq!(spelt_out("Kaese"), None);
    }

    #[test]
    fn names_are_compared_with_their_accents() {
        assert_eq!(key("  Kestrel\u{a0} Tee -\tRED "), "kestrel tee - red");
        assert_ne!(key("Crème"), key("Creme"));
        assert_eq!(key("Cre\u{300}me"), key("CRÈME"));
    }
}
