//! Checks that several forms share. Each returns the clean value, or records
//! what is wrong and returns `None`, so that a form reports all at once.

use crate::problem::MOST_ERRORS;
use crate::{FieldError, Problem};

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
}
