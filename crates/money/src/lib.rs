//! Money: integer minor units with checked arithmetic.

mod cards;

use std::cmp::Ordering;

use iso_currency::{Currency as Iso, IntoEnumIterator};
use serde::{Deserialize, Serialize};

/// An ISO 4217 currency, e.g. `EUR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Currency(Iso);

impl Currency {
    pub const EUR: Self = Self(Iso::EUR);

    /// The currency of an upper-case alphabetic code; `None` for an unknown one.
    pub fn from_code(code: &str) -> Option<Self> {
        Iso::from_code(code).map(Self)
    }

    /// Every code of ISO 4217, in alphabetical order.
    pub fn codes() -> Vec<&'static str> {
        let mut codes: Vec<_> = Iso::iter().map(|currency| currency.code()).collect();
        codes.sort_unstable();
        codes
    }

    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// Decimal places of the major unit: 2 for euros, 0 for yen.
    pub fn decimals(self) -> u16 {
        self.0.exponent().unwrap_or(0)
    }
}

impl std::str::FromStr for Currency {
    type Err = &'static str;

    fn from_str(code: &str) -> Result<Self, &'static str> {
        Self::from_code(code).ok_or("This is not an ISO 4217 currency code, like EUR.")
    }
}

impl std::fmt::Display for Currency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Currency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = String::deserialize(deserializer)?;
        code.parse().map_err(serde::de::Error::custom)
    }
}

/// An amount in minor units (cents) of a currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(example = json!({"amount": 1999, "currency": "EUR"})))]
pub struct Money {
    pub amount: i64,
    /// ISO 4217.
    #[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[A-Z]{3}$"))]
    pub currency: Currency,
}

impl Money {
    pub const fn new(amount: i64, currency: Currency) -> Self {
        Self { amount, currency }
    }

    pub const fn zero(currency: Currency) -> Self {
        Self::new(0, currency)
    }

    pub fn is_zero(self) -> bool {
        self.amount == 0
    }

    /// The sum; `None` on overflow or when the currencies differ.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        (self.currency == other.currency)
            .then(|| self.amount.checked_add(other.amount))?
            .map(|amount| Self::new(amount, self.currency))
    }

    /// `quantity` times this; `None` on overflow.
    pub fn checked_mul(self, quantity: u32) -> Option<Self> {
        Some(Self::new(self.amount.checked_mul(i64::from(quantity))?, self.currency))
    }
}

/// Amounts of different currencies are neither less nor more.
impl PartialOrd for Money {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.currency == other.currency).then(|| self.amount.cmp(&other.amount))
    }
}

/// In major units, for people: `19.99 EUR`.
impl std::fmt::Display for Money {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let decimals = usize::from(self.currency.decimals());
        let digits = format!("{:0>width$}", self.amount.unsigned_abs(), width = decimals + 1);
        let (major, minor) = digits.split_at(digits.len() - decimals);
        let (sign, point) = (if self.amount < 0 { "-" } else { "" }, if decimals > 0 { "." } else { "" });
        write!(f, "{sign}{major}{point}{minor} {}", self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_products_are_checked() {
        let max = Money::new(i64::MAX, Currency::EUR);
        let one = Money::new(1, Currency::EUR);
        assert_eq!(one.checked_add(one), Some(Money::new(2, Currency::EUR)));
        assert_eq!(max.checked_add(one), None);
        assert_eq!(max.checked_mul(2), None);
        assert_eq!(one.checked_add(Money::new(1, "USD".parse().unwrap())), None);
    }

    #[test]
    fn amounts_of_different_currencies_are_not_compared() {
        let (one, two) = (Money::new(1, Currency::EUR), Money::new(2, Currency::EUR));
        assert_eq!(one.partial_cmp(&two), Some(Ordering::Less));
        assert_eq!(one.partial_cmp(&Money::new(1, "USD".parse().unwrap())), None);
    }

    #[test]
    fn a_float_or_an_unknown_currency_is_not_money() {
        for bad in [
            r#"{"amount": 1.5, "currency": "EUR"}"#,
            r#"{"amount": 1, "currency": "EURO"}"#,
            r#"{"amount": 1, "currency": "eur"}"#,
            r#"{"amount": 1}"#,
            r#"{"amount": 1, "currency": "EUR", "x": 1}"#,
        ] {
            assert!(serde_json::from_str::<Money>(bad).is_err(), "{bad}");
        }
        let good = r#"{"amount":1999,"currency":"EUR"}"#;
        assert_eq!(serde_json::to_string(&serde_json::from_str::<Money>(good).unwrap()).unwrap(), good);
    }

    #[test]
    fn people_read_amounts_in_major_units() {
        for (amount, currency, text) in [
            (1999, "EUR", "19.99 EUR"),
            (5, "EUR", "0.05 EUR"),
            (0, "USD", "0.00 USD"),
            (-250, "GBP", "-2.50 GBP"),
            (1999, "JPY", "1999 JPY"),
            (0, "JPY", "0 JPY"),
            (1999, "KWD", "1.999 KWD"),
            (12, "CLF", "0.0012 CLF"),
            (i64::MIN, "EUR", "-92233720368547758.08 EUR"),
        ] {
            assert_eq!(Money::new(amount, currency.parse().unwrap()).to_string(), text);
        }
    }
}
