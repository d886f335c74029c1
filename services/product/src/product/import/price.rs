//! Prices as people write them.

use serde::{Deserialize, Serialize};
use service::money::Currency;
use utoipa::ToSchema;

/// What a number in CSV's column `price` counts. In JSON, and in the column `price_minor`, it is minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// `34` is 34.00.
    #[default]
    Major,
    /// `34` is 0.34, in a currency with two decimals.
    Minor,
}

/// What is before decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decimal {
    #[default]
    Point,
    Comma,
}

/// A code, and what is wrong.
pub type Refused = (&'static str, String);

/// A price in major units as minor ones. It has no more decimals than the currency, unless they are four or
/// more, as databases write them, and zeros: three could be thousands.
pub fn minor_units(text: &str, currency: Currency, decimal: Decimal) -> Result<i64, Refused> {
    let (mark, other) = match decimal {
        Decimal::Point => ('.', ','),
        Decimal::Comma => (',', '.'),
    };
    let no_number = || {
        let mut detail = format!("A number such as 1234{mark}50, without blanks or thousands separators.");
        if decimal == Decimal::Point && text.contains(other) {
            detail.push_str(" For decimals behind a comma add ?decimal=comma to the address.");
        }
        ("invalid_value", detail)
    };
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once(mark).unwrap_or((digits, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return Err(no_number());
    }
    let decimals = usize::from(currency.decimals());
    let (kept, beyond) = fraction.split_at(fraction.len().min(decimals));
    if beyond.contains(|digit| digit != '0') || (!beyond.is_empty() && fraction.len() == 3) {
        let detail = format!("{currency} has {decimals} decimals.");
        return Err(("too_many_decimals", detail));
    }
    let amount = format!("{whole}{kept:0<decimals$}").parse::<i64>();
    amount.map(|amount| sign * amount).map_err(|_| ("out_of_range", "More than any price.".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_read_in_the_decimals_of_its_currency() {
        for (text, currency, decimal, amount) in [
            ("34", "EUR", Decimal::Point, 3400),
            ("34.50", "EUR", Decimal::Point, 3450),
            ("34.5", "EUR", Decimal::Point, 3450),
            ("0.07", "EUR", Decimal::Point, 7),
            ("34.0000", "EUR", Decimal::Point, 3400),
            ("34.5000", "EUR", Decimal::Point, 3450),
            ("12,90", "EUR", Decimal::Comma, 1290),
            ("12", "EUR", Decimal::Comma, 1200),
            ("5000", "JPY", Decimal::Point, 5000),
            ("5000.00", "JPY", Decimal::Point, 5000),
            ("9", "KWD", Decimal::Point, 9000),
            ("9.120", "KWD", Decimal::Point, 9120),
            ("-1", "EUR", Decimal::Point, -100),
        ] {
            let currency = currency.parse().unwrap();
            assert_eq!(minor_units(text, currency, decimal), Ok(amount), "{text} {currency}");
        }
    }

    #[test]
    fn what_could_be_another_price_is_none() {
        for (text, currency, decimal, code) in [
            ("12,90", "EUR", Decimal::Point, "invalid_value"),
            ("12.90", "EUR", Decimal::Comma, "invalid_value"),
            ("1,234.50", "EUR", Decimal::Point, "invalid_value"),
            ("1.234,50", "EUR", Decimal::Comma, "invalid_value"),
            ("1 234", "EUR", Decimal::Point, "invalid_value"),
            ("1.000", "EUR", Decimal::Point, "too_many_decimals"),
            ("1,000", "JPY", Decimal::Comma, "too_many_decimals"),
            ("34.505", "EUR", Decimal::Point, "too_many_decimals"),
            ("34.50", "JPY", Decimal::Point, "too_many_decimals"),
            ("9.1205", "KWD", Decimal::Point, "too_many_decimals"),
            ("34.", "EUR", Decimal::Point, "invalid_value"),
            (".5", "EUR", Decimal::Point, "invalid_value"),
            ("1e3", "EUR", Decimal::Point, "invalid_value"),
            ("+1", "EUR", Decimal::Point, "invalid_value"),
            ("34 €", "EUR", Decimal::Point, "invalid_value"),
            ("", "EUR", Decimal::Point, "invalid_value"),
            ("99999999999999999999", "EUR", Decimal::Point, "out_of_range"),
        ] {
            let refused = minor_units(text, currency.parse().unwrap(), decimal).unwrap_err();
            assert_eq!(refused.0, code, "{text} {currency}");
        }
    }
}
