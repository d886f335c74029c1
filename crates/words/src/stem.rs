//! What is left of a word without its endings.

use rust_stemmers::{Algorithm, Stemmer};

/// The stem of a folded word: English endings off, as PostgreSQL's `english` takes them, and Arabic articles and
/// endings. `None` where it is the word itself.
pub fn stem(word: &str) -> Option<String> {
    let stem = match word.chars().next()? {
        'a'..='z' if word.is_ascii() => Stemmer::create(Algorithm::English).stem(word).into_owned(),
        '\u{621}'..='\u{64a}' => arabic(word).to_owned(),
        _ => return None,
    };
    (stem != word && !stem.is_empty()).then_some(stem)
}

/// As the light stemmers of Larkey and others have it ("Light stemming for Arabic information retrieval", 2007).
fn arabic(word: &str) -> &str {
    let long = |rest: &&str, letters: usize| rest.chars().count() >= letters;
    let articles = ["وال", "بال", "كال", "فال", "ال", "لل"];
    let bare = articles.iter().find_map(|article| word.strip_prefix(article).filter(|rest| long(rest, 2)));
    let bare = bare.unwrap_or(word);
    let endings = ["ات", "ون", "ين", "يه", "ه", "ي"];
    endings.iter().find_map(|ending| bare.strip_suffix(ending).filter(|rest| long(rest, 3))).unwrap_or(bare)
}

/// The word without what many European languages end plurals and cases with: `tass` of `tasse` and `tassen`. For
/// Latin words, of which four letters are left.
pub fn root(word: &str) -> Option<&str> {
    const ENDINGS: [&str; 16] =
        ["ego", "ych", "ami", "ach", "ern", "en", "er", "em", "ej", "ie", "ow", "om", "im", "ym", "um", "as"];
    if word.len() < 4 || !word.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return None;
    }
    let enough = |rest: &&str| rest.len() >= 4;
    let one = word.strip_suffix(['s', 'x']).filter(enough).unwrap_or(word);
    let ending = ENDINGS.iter().find_map(|ending| one.strip_suffix(ending).filter(enough));
    Some(
        ending
            .or_else(|| one.strip_suffix(['a', 'e', 'i', 'o', 'u', 'y', 'n']).filter(enough))
            .unwrap_or(one),
    )
}

const STOP_WORDS: [&str; 42] = [
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "can", "do", "for", "from", "has", "have", "he",
    "if", "in", "into", "is", "it", "its", "no", "not", "of", "on", "or", "so", "that", "the", "their",
    "they", "this", "to", "too", "was", "we", "who", "will", "with", "you", "your",
];

/// Words that say little beside others: not looked for in descriptions, nor anywhere when others are.
pub fn says_little(word: &str) -> bool {
    STOP_WORDS.binary_search(&word).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_taken_off() {
        for (word, stemmed) in [
            ("jackets", Some("jacket")),
            ("repaired", Some("repair")),
            ("batteries", Some("batteri")),
            ("jacket", None),
            ("القهوه", Some("قهو")),
            ("القهوات", Some("قهو")),
            ("قهوه", Some("قهو")),
            ("кофе", None),
        ] {
            assert_eq!(stem(word).as_deref(), stemmed, "{word}");
        }
    }

    #[test]
    fn roots_are_common_to_cases_and_numbers() {
        for (one, other) in [
            ("tasse", "tassen"),
            ("zielona", "zielonej"),
            ("herbata", "herbaty"),
            ("verre", "verres"),
            ("becher", "bechern"),
            ("gateau", "gateaux"),
            ("miod", "miodu"),
        ] {
            assert_eq!(root(one), root(other), "{one} {other}");
        }
        assert_eq!((root("cap"), root("cape"), root("capes")), (None, Some("cape"), Some("cape")));
    }

    #[test]
    fn words_that_say_little_are_sorted() {
        assert!(STOP_WORDS.is_sorted());
        assert!(says_little("the") && !says_little("lamp"));
    }
}
