//! Which currencies are taken, how they are counted, and between which amounts.
//!
//! Of <https://docs.stripe.com/currencies>, read on 2026-11-29. A table of the sandbox's own, not the shop's
//! (`crates/money`): a mistake in one of them shows.

use crate::error::ApiError;

/// Most that a payment comes to: twelve digits.
const MOST: u64 = 999_999_999_999;

const TAKEN: [&str; 142] = [
    "aed", "afn", "all", "amd", "ang", "aoa", "ars", "aud", "awg", "azn", "bam", "bbd", "bdt", "bgn", "bhd",
    "bif", "bmd", "bnd", "bob", "brl", "bsd", "bwp", "byn", "bzd", "cad", "cdf", "chf", "clp", "cny", "cop",
    "crc", "cve", "czk", "djf", "dkk", "dop", "dzd", "egp", "etb", "eur", "fjd", "fkp", "gbp", "gel", "gip",
    "gmd", "gnf", "gtq", "gyd", "hkd", "hnl", "htg", "huf", "idr", "ils", "inr", "isk", "jmd", "jod", "jpy",
    "kes", "kgs", "khr", "kmf", "krw", "kwd", "kyd", "kzt", "lak", "lbp", "lkr", "lrd", "lsl", "mad", "mdl",
    "mga", "mkd", "mmk", "mnt", "mop", "mur", "mvr", "mwk", "mxn", "myr", "mzn", "nad", "ngn", "nio", "nok",
    "npr", "nzd", "omr", "pab", "pen", "pgk", "php", "pkr", "pln", "pyg", "qar", "ron", "rsd", "rub", "rwf",
    "sar", "sbd", "scr", "sek", "sgd", "shp", "sle", "sos", "srd", "std", "szl", "thb", "tjs", "tnd", "top",
    "try", "ttd", "twd", "tzs", "uah", "ugx", "usd", "uyu", "uzs", "vnd", "vuv", "wst", "xaf", "xcd", "xcg",
    "xof", "xpf", "yer", "zar", "zmw", "mro", "svc",
];

/// Of three decimals, the last of them 0.
const IN_TENS: [&str; 5] = ["bhd", "jod", "kwd", "omr", "tnd"];

/// Without decimals, and counted in hundredths all the same, of which there are none.
const IN_HUNDREDS: [&str; 2] = ["isk", "ugx"];

/// The least amounts that are documented, in the currencies that accounts settle in.
const LEAST: [(&str, u64); 24] = [
    ("aed", 200),
    ("aud", 50),
    ("bgn", 100),
    ("brl", 50),
    ("cad", 50),
    ("chf", 50),
    ("czk", 1500),
    ("dkk", 250),
    ("eur", 50),
    ("gbp", 30),
    ("hkd", 400),
    ("huf", 17_500),
    ("inr", 50),
    ("jpy", 50),
    ("mxn", 1000),
    ("myr", 200),
    ("nok", 300),
    ("nzd", 50),
    ("pln", 200),
    ("ron", 200),
    ("sek", 300),
    ("sgd", 50),
    ("thb", 1000),
    ("usd", 50),
];

/// The currency as it is written here, in lower case.
pub fn named(code: &str) -> Result<String, ApiError> {
    let currency = code.to_lowercase();
    if TAKEN.contains(&currency.as_str()) {
        return Ok(currency);
    }
    Err(ApiError::bad("currency", format!("Invalid currency: {currency}.")))
}

/// Refuses an amount that is not between the least and the most of a payment, or can't be counted.
pub fn check_payment(amount: u64, currency: &str) -> Result<(), ApiError> {
    let least = LEAST.iter().find(|(of, _)| *of == currency).map_or(1, |(_, least)| *least);
    if amount < least {
        let message = format!("Amount must be at least {least} {currency} in its smallest unit");
        return Err(ApiError::param("amount_too_small", "amount", message));
    }
    if amount > MOST {
        let message = format!("Amount must be no more than {MOST} {currency} in its smallest unit");
        return Err(ApiError::param("amount_too_large", "amount", message));
    }
    check_step("amount", amount, currency)
}

/// Refuses an amount that is not a whole number of what the currency is charged in.
pub fn check_step(param: &'static str, amount: u64, currency: &str) -> Result<(), ApiError> {
    let step = match currency {
        _ if IN_TENS.contains(&currency) => 10,
        _ if IN_HUNDREDS.contains(&currency) => 100,
        _ => 1,
    };
    if amount.is_multiple_of(step) {
        return Ok(());
    }
    Err(ApiError::bad(param, format!("Amounts in {currency} must be evenly divisible by {step}")))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_tables_name_each_currency_once_and_none_that_is_not_taken() {
        let taken = HashSet::from(TAKEN);
        assert_eq!(taken.len(), TAKEN.len());
        let special = LEAST.iter().map(|(of, _)| *of).chain(IN_TENS).chain(IN_HUNDREDS);
        assert!(special.clone().all(|code| taken.contains(code)), "{:?}", special.collect::<Vec<_>>());
        assert!(!taken.contains("iqd") && !taken.contains("xxx"));
    }
}
