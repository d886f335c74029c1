//! SKUs: as suppliers write them, and equal where a person would call them the same.

use caseless::Caseless;
use unicode_normalization::UnicodeNormalization;

/// Most characters of a SKU.
pub const LONGEST: usize = 64;

/// Whether it is a SKU: 1 to 64 visible characters, with blanks only between them.
pub fn is_sku(text: &str) -> bool {
    let length = text.chars().count();
    (1..=LONGEST).contains(&length) && !text.trim().is_empty() && !text.chars().any(is_invisible)
}

/// Invisible characters: controls, joiners, marks of direction, separators of lines. As in `schema::sku`.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{ffff}')
}

/// The common form of two SKUs that are the same: in any case (Unicode's full case folding) and any normal
/// form, with or without blanks around. Canonical caseless matching: Unicode 17, section 3.13.5, D145.
pub fn key(sku: &str) -> String {
    let sku = sku.trim();
    if sku.is_ascii() {
        return sku.to_ascii_lowercase();
    }
    sku.nfd().default_case_fold().nfc().collect()
}

/// The content of the column `sku_key`: the [`key`], unless it is merely the lower case.
pub fn stored_key(sku: &str) -> Option<String> {
    Some(key(sku)).filter(|key| *key != sku.to_ascii_lowercase())
}

/// The key of a product whose [`key`] another one has, from the time when SKUs could differ by case alone. No
/// SKU has it, as it begins with a control character.
pub fn exact_key(sku: &str) -> String {
    format!("\u{1f}{}", sku.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sku_is_printable() {
        for good in ["A", "4058NB/12", "AB 12", "M8x20+", "10:4", "ÜF-1", "товар-1", "無線", "a\u{a0}b", "🏮"]
        {
            assert!(is_sku(good), "{good}");
        }
        assert!(is_sku(&"ß".repeat(64)) && !is_sku(&"x".repeat(65)));
        for bad in
            ["", " ", "\u{a0}", "a\nb", "a\tb", "a\u{0}", "a\u{200b}b", "\u{feff}a", "a\u{202e}b", "a\u{ad}b"]
        {
            assert!(!is_sku(bad), "{bad:?}");
        }
    }

    #[test]
    fn two_spellings_of_one_sku_have_one_key() {
        for (one, other) in [
            ("ABC-1", "abc-1"),
            (" ABC-1", "ABC-1 "),
            ("ÜF-1", "u\u{308}f-1"),
            ("STRASSE", "straße"),
            ("ΣΑΣ", "σας"),
            ("ТОВАР", "товар"),
            ("\u{212b}", "å"),
            ("ﬁ", "FI"),
        ] {
            assert_eq!(key(one), key(other), "{one} {other}");
        }
        for (one, other) in [("A-1", "A1"), ("U", "Ü"), ("A 1", "A  1"), ("1/2", "½"), ("²", "2")] {
            assert_ne!(key(one), key(other), "{one} {other}");
        }
        assert_eq!(key("ŠÇ"), key(&key("ŠÇ")));
        // As `lower(sku COLLATE "C")` has it, which knows ASCII alone.
        for (sku, stored) in
            [("Ab-1", None), ("ab 1/ü", None), (" A", Some("a")), ("ÄB", Some("äb")), ("ß", Some("ss"))]
        {
            assert_eq!(stored_key(sku).as_deref(), stored, "{sku}");
        }
        assert!(!is_sku(&exact_key("a")));
    }
}
