//! The number of an order: what people read out on the phone.
//!
//! Nine random signs and a check sign, of an alphabet that leaves out what is easily confused: no 0 and O, no
//! 1, I and L, and no vowels, which could make words. It has 19 signs, a prime number, so the check of
//! ISBN-10 finds every wrong sign and every swap of two signs.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

const ALPHABET: &[u8; 19] = b"23456789FHJKMPRTWXY";

/// Signs before the one that checks them.
const SIGNS: usize = 9;

/// How many numbers there are: 323 billion.
const COUNT: u64 = 19u64.pow(SIGNS as u32);

/// Kept without its dash, shown with it: `F7K2M-9XHRR`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(transparent))]
pub struct OrderNumber(String);

/// Why a text is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotANumber {
    #[error("a number has ten of the signs 2 to 9 and F H J K M P R T W X Y")]
    Form,
    #[error("a sign is wrong, or two have changed places")]
    Check,
}

impl OrderNumber {
    /// One of them, by chance if `random` is.
    pub fn new(random: u64) -> Self {
        let mut left = random % COUNT;
        let mut digits = [0; SIGNS];
        for digit in &mut digits {
            (*digit, left) = ((left % 19) as usize, left / 19);
        }
        let signs = digits.into_iter().chain([check(&digits)]);
        Self(signs.map(|digit| char::from(ALPHABET[digit])).collect())
    }

    /// Without the dash, as it is kept.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The digit that makes the sum of all, each times its place, a multiple of 19.
fn check(digits: &[usize]) -> usize {
    digits.iter().zip(1..).map(|(digit, place)| digit * place).sum::<usize>() % 19
}

/// As people type it: in any case, with blanks and dashes anywhere.
impl FromStr for OrderNumber {
    type Err = NotANumber;

    fn from_str(text: &str) -> Result<Self, NotANumber> {
        let typed = text.chars().filter(|sign| *sign != '-' && !sign.is_whitespace());
        let number: String = typed.map(|sign| sign.to_ascii_uppercase()).collect();
        let digit = |sign: u8| ALPHABET.iter().position(|known| *known == sign);
        let digits: Option<Vec<usize>> = number.bytes().map(digit).collect();
        let digits = digits.filter(|digits| digits.len() == SIGNS + 1).ok_or(NotANumber::Form)?;
        if check(&digits[..SIGNS]) == digits[SIGNS] { Ok(Self(number)) } else { Err(NotANumber::Check) }
    }
}

impl fmt::Display for OrderNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (front, back) = self.0.split_at_checked(5).unwrap_or((&self.0, ""));
        write!(f, "{front}-{back}")
    }
}

impl Serialize for OrderNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for OrderNumber {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::schema::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("What people read out on the phone. Its last sign checks the others."))
            .pattern(Some("^[2-9FHJKMPRTWXY]{5}-[2-9FHJKMPRTWXY]{5}$"))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for OrderNumber {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_however_it_is_typed() {
        let number = OrderNumber::new(0x0123_4567_89ab_cdef);
        let shown = number.to_string();
        assert_eq!((shown.len(), number.as_str().len()), (11, 10));
        let spaced: String = number.as_str().chars().flat_map(|sign| [sign, ' ']).collect();
        for typed in [shown.clone(), number.as_str().to_owned(), shown.to_lowercase(), spaced] {
            assert_eq!(typed.parse(), Ok(number.clone()), "{typed:?}");
        }
        assert_eq!(serde_json::to_string(&number).unwrap(), format!("\"{shown}\""));
    }

    #[test]
    fn every_wrong_sign_and_every_two_that_changed_places_are_found() {
        for random in [0, 1, 18, COUNT - 1, u64::MAX, 0x5eed_5eed_5eed_5eed] {
            let number = OrderNumber::new(random);
            let signs = number.as_str().as_bytes();
            let read = |signs: &[u8]| String::from_utf8(signs.to_vec()).unwrap().parse::<OrderNumber>();
            for at in 0..signs.len() {
                for sign in ALPHABET.iter().filter(|sign| **sign != signs[at]) {
                    let mut wrong = signs.to_vec();
                    wrong[at] = *sign;
                    assert_eq!(read(&wrong), Err(NotANumber::Check), "{number} at {at}");
                }
                for other in (0..at).filter(|other| signs[*other] != signs[at]) {
                    let mut wrong = signs.to_vec();
                    wrong.swap(at, other);
                    assert_eq!(read(&wrong), Err(NotANumber::Check), "{number}, {other} and {at}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_ten_of_its_signs_is_no_number() {
        for bad in
            ["", "-", "2222222222222", "222222222", "01234-56789", "OIL22-22222", "ÄÖÜ22-22222", "2222\u{0}"]
        {
            assert_eq!(bad.parse::<OrderNumber>(), Err(NotANumber::Form), "{bad:?}");
        }
    }
}
