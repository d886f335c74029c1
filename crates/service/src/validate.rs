//! Checks that several forms share. Each returns the clean value, or records
//! what is wrong and returns `None`, so that a form reports all at once.

use crate::problem::MOST_ERRORS;
use crate::{FieldError, Money, Problem};

/// Collects what is wrong with a form, up to a hundred errors.
#[derive(Debug, Default)]
pub struct Invalid(Vec<FieldError>);

impl Invalid {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, pointer: impl Into<String>, code: &str, detail: impl Into<String>) {
        if self.0.len() < MOST_ERRORS {
            self.0.push(FieldError::new(pointer, code, detail));
        }
    }

    /// 422 with everything recorded, or `Ok` when nothing was.
    pub fn check(self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::invalid(self.0)) }
    }

    /// Text of `min..=max` characters, not blank when `min` > 0.
    pub fn text(&mut self, pointer: &str, value: String, min: usize, max: usize) -> Option<String> {
        let length = value.chars().count();
        if length < min || (min > 0 && value.trim().is_empty()) {
            let detail = match min {
                1 => "This must not be blank.".to_owned(),
                _ => format!("At least {min} characters, not all blank."),
            };
            self.push(pointer, "too_short", detail);
            None
        } else if length > max {
            self.push(pointer, "too_long", format!("At most {max} characters."));
            None
        } else {
            Some(value)
        }
    }

    pub fn range<N: PartialOrd + std::fmt::Display>(
        &mut self,
        pointer: &str,
        value: N,
        min: N,
        max: N,
    ) -> Option<N> {
        if value < min || value > max {
            self.push(pointer, "out_of_range", format!("From {min} to {max}."));
            return None;
        }
        Some(value)
    }

    /// A price: from 0 to the most that cards are charged in its currency, in steps that can be charged.
    pub fn price(&mut self, pointer: &str, price: Money) -> Option<Money> {
        let (pointer, currency) = (format!("{pointer}/amount"), price.currency);
        self.range(&pointer, price.amount, 0, currency.card_ceiling())?;
        if price.for_cards().is_none() {
            let step = Money::new(currency.card_step(), currency);
            self.push(pointer, "not_chargeable", format!("Cards are charged in steps of {step}."));
            return None;
        }
        Some(price)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_one_that_can_be_charged() {
        let code = |amount: i64, currency: &str| {
            let mut invalid = Invalid::new();
            invalid.price("/price", Money::new(amount, currency.parse().unwrap()));
            invalid.0.pop().map(|error| (error.code, error.detail))
        };
        for (amount, currency) in
            [(0, "EUR"), (450_000_000, "IDR"), (24_900, "ISK"), (5120, "KWD"), (999_999_999_999, "EUR")]
        {
            assert_eq!(code(amount, currency), None, "{amount} {currency}");
        }
        let (refused, detail) = code(5124, "KWD").unwrap();
        assert_eq!((&*refused, &*detail), ("not_chargeable", "Cards are charged in steps of 0.010 KWD."));
        assert_eq!(code(-1, "EUR").unwrap().0, "out_of_range");
        assert_eq!(code(1_000_000_000_000, "EUR").unwrap().0, "out_of_range");
    }
}
