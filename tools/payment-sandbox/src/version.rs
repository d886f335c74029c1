//! The API's versions, by which parameters are taken or refused: <https://docs.stripe.com/upgrades>.

use std::str::FromStr;

/// The account's, unless a setting names another: the one that the order service was written for.
pub const DEFAULT: &str = "2025-08-27.basil";

/// All since the one whose intents have `latest_charge`, as `stripe` 23.1.0 of npm names them in its history. Sorted.
const KNOWN: [&str; 31] = [
    "2022-11-15",
    "2023-08-16",
    "2023-10-16",
    "2024-04-10",
    "2024-06-20",
    "2024-09-30.acacia",
    "2024-10-28.acacia",
    "2024-11-20.acacia",
    "2024-12-18.acacia",
    "2025-01-27.acacia",
    "2025-02-24.acacia",
    "2025-03-31.basil",
    "2025-04-30.basil",
    "2025-05-28.basil",
    "2025-06-30.basil",
    "2025-07-30.basil",
    "2025-08-27.basil",
    "2025-09-30.clover",
    "2025-10-29.clover",
    "2025-11-17.clover",
    "2025-12-15.clover",
    "2026-01-28.clover",
    "2026-02-25.clover",
    "2026-03-25.dahlia",
    "2026-04-22.dahlia",
    "2026-05-27.dahlia",
    "2026-06-24.dahlia",
    "2026-07-29.dahlia",
    "2026-08-26.dahlia",
    "2026-09-30.endive",
    "2026-10-28.endive",
];

/// A version that is known. Later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(&'static str);

impl Version {
    pub fn name(self) -> &'static str {
        self.0
    }

    /// An intent that names no payment methods takes all of the account's, those that lead customers away included.
    pub fn takes_all_methods(self) -> bool {
        self.0 >= "2023-08-16"
    }

    /// The default of `capture_method` is `automatic_async`.
    pub fn captures_later(self) -> bool {
        self.0 >= "2024-04-10"
    }

    /// Intents name their payment methods in `payment_method_types`.
    pub fn has_method_types(self) -> bool {
        self.0 < "2026-09-30"
    }

    /// Intents name them in `allowed_payment_method_types`.
    pub fn has_allowed_types(self) -> bool {
        self.0 >= "2026-07-29"
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = KNOWN.iter().find(|known| **known == name);
        known.map(|known| Self(known)).ok_or_else(|| format!("Invalid Stripe API version: {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_sorted_and_nothing_else_is_one() {
        assert!(KNOWN.is_sorted());
        assert_eq!(DEFAULT.parse::<Version>().unwrap().name(), DEFAULT);
        for other in ["", "2025-08-27", "2025-08-28.basil", "2022-08-01", "2026-11-25.endive", "latest"] {
            assert!(other.parse::<Version>().is_err(), "{other}");
        }
    }
}
