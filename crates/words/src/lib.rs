//! Words: how a product's texts are taken apart for the index, and how what people type is.
//!
//! Both go through the same code, so that they meet. It knows no database but PostgreSQL's notation: [`vector`] is a
//! `tsvector`, and a [`Query`] holds `tsquery`s, made of quoted lexemes alone, which no input can break.
//!
//! The lexemes of a product, and the weights that say where they are from:
//!
//! | lexeme | weight | |
//! |---|---|---|
//! | `jackets` | A, B | a word of its name or SKU (A) or attributes (B), [folded](fold) |
//! | `~jacket` | A, B | the word's [stem](stem), where that is another |
//! | `tshirt` | A, B | `T-shirt`, written as one |
//! | `咖啡`, `啡机`, `机` | A, B, C | scripts without spaces: each two neighbours, and the last one |
//! | `=waxed jacket` | A | the name as it is, and the SKU |
//! | `*wasserkocher` | B | an end of a long word of the name |
//! | `^tass` | B | a word of the name without its ending |
//! | `@color=red` | B | an attribute with its value |
//! | `jacket` | C | a stem of the description |

#![forbid(unsafe_code)]

mod fold;
mod query;
mod stem;
mod tokens;
mod vector;

pub use fold::fold;
pub use query::{Query, Word};
pub use vector::{Texts, vector};

/// Of the lexemes; vectors of an older version are to be made anew.
pub const VERSION: i16 = 1;

/// The `tsquery` of products whose attribute has just this value, but for case.
pub fn with_attribute(name: &str, value: &str) -> String {
    quoted(&vector::attribute(name, value))
}

/// A lexeme in quotes, as `tsvector` and `tsquery` take any.
fn quoted(lexeme: &str) -> String {
    let mut quoted = String::with_capacity(lexeme.len() + 2);
    quoted.push('\'');
    for c in lexeme.chars() {
        if matches!(c, '\'' | '\\') {
            quoted.push(c);
        }
        quoted.push(c);
    }
    quoted.push('\'');
    quoted
}

/// Most letters of a lexeme that is a word or several in one; PostgreSQL takes 2,046 bytes.
const LONGEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lexeme_is_quoted_whatever_it_holds() {
        assert_eq!(quoted(r"o'brien\x"), r"'o''brien\\x'");
    }
}
