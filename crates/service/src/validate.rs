//! Checks that several forms share. Each returns the clean value, or records
//! what is wrong and returns `None`, so that a form reports all at once.

use crate::problem::MOST_ERRORS;
use crate::{FieldError, Money, Problem};

/// The assigned codes of ISO 3166-1 alpha-2, with a space between them.
pub const COUNTRIES: &str = "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS \
    BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE \
    EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM \
    HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC \
    LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA \
    NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW \
    SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO \
    TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

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

    /// A price: from 0 to [`Money::MAX_AMOUNT`].
    pub fn price(&mut self, pointer: &str, price: Money) -> Option<Money> {
        self.range(&format!("{pointer}/amount"), price.amount, 0, Money::MAX_AMOUNT)?;
        Some(price)
    }

    /// A country: an assigned code of ISO 3166-1 alpha-2, in upper case.
    pub fn country(&mut self, pointer: &str, code: &str) {
        if !COUNTRIES.split(' ').any(|assigned| assigned == code) {
            self.push(pointer, "invalid_country", "An ISO 3166-1 alpha-2 code, like GB.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_country_is_one_of_the_249() {
        assert_eq!(COUNTRIES.split(' ').count(), 249);
        let accepted = |code: &str| {
            let mut invalid = Invalid::new();
            invalid.country("/country", code);
            invalid.check().is_ok()
        };
        assert!(accepted("GB"));
        for bad in ["", "UK", "gb", "GBR", "ZZ", " ", "AD AE"] {
            assert!(!accepted(bad), "{bad:?}");
        }
    }
}
