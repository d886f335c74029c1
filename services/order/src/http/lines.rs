//! Lines in requests: what is wrong with them, as errors of fields.

use service::validate::Invalid;

use crate::order::{LineBody, Lines, MAX_LINES, NoLines, Quantity};

/// The lines of the field at `at`, or `None` and what is wrong with them. `least` is how many there have to be.
pub fn checked(at: &str, lines: &[LineBody], least: usize, invalid: &mut Invalid) -> Option<Lines> {
    match Lines::parse(lines.iter().map(|line| (line.product_id, line.quantity))) {
        Ok(lines) => Some(lines),
        Err(wrong) => {
            for why in wrong {
                match why {
                    NoLines::Empty | NoLines::TooMany => {
                        invalid.range(at, lines.len(), least, MAX_LINES);
                    }
                    NoLines::Quantity(index) => {
                        let pointer = format!("{at}/{index}/quantity");
                        invalid.range(&pointer, lines[index].quantity, 1, Quantity::MAX);
                    }
                    NoLines::Twice(index) => {
                        let pointer = format!("{at}/{index}/product_id");
                        invalid.push(pointer, "duplicate_item", "Name a product once.");
                    }
                }
            }
            None
        }
    }
}
