//! How card providers count money, which is not always as ISO 4217 does.
//!
//! Of <https://docs.stripe.com/currencies>, read on 2026-11-29: "Minor units in API amounts", "Zero-decimal currencies",
//! "Three-decimal currencies", "Special cases" and "Maximum charge amounts".

use crate::{Currency, Money};

/// Most that the provider takes in one payment, in its units: twelve digits. Networks may take less.
const CEILING: i64 = 999_999_999_999;

/// Without decimals in ISO 4217, and counted in hundredths all the same, of which there are none.
const IN_HUNDREDTHS: [&str; 2] = ["ISK", "UGX"];

/// With decimals in ISO 4217, and none for the provider.
const WHOLE: [&str; 1] = ["MGA"];

impl Currency {
    /// The provider's units of one minor unit, and the minor units of one of the provider's.
    fn units(self) -> (i64, i64) {
        match self.code() {
            code if IN_HUNDREDTHS.contains(&code) => (100, 1),
            code if WHOLE.contains(&code) => (1, 10_i64.pow(self.decimals().into())),
            _ => (1, 1),
        }
    }

    /// What amounts have to be multiples of to be charged, in minor units. Of three decimals the last is always 0.
    pub fn card_step(self) -> i64 {
        if self.decimals() == 3 { 10 } else { self.units().1 }
    }

    /// Most that a price or an order may come to, in minor units.
    pub fn card_ceiling(self) -> i64 {
        let (up, down) = self.units();
        (CEILING / up * down) / self.card_step() * self.card_step()
    }
}

impl Money {
    /// The amount as the provider counts it; `None` when it can't be charged.
    pub fn for_cards(self) -> Option<i64> {
        let (up, down) = self.currency.units();
        let sound = (0..=self.currency.card_ceiling()).contains(&self.amount)
            && self.amount % self.currency.card_step() == 0;
        sound.then(|| self.amount / down * up)
    }

    /// Whether the provider counts the currency as ISO 4217 does.
    pub fn is_counted_alike(self) -> bool {
        self.currency.units() == (1, 1)
    }

    /// An amount as the provider counts it; `None` for one that is no whole number of minor units.
    pub fn from_cards(amount: i64, currency: Currency) -> Option<Self> {
        let (up, down) = currency.units();
        (amount % up == 0).then(|| (amount / up).checked_mul(down))?.map(|amount| Self::new(amount, currency))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(amount: i64, currency: &str) -> Money {
        Money::new(amount, currency.parse().unwrap())
    }

    #[test]
    fn amounts_are_sent_as_the_provider_counts_them() {
        for (amount, currency, sent) in [
            (1999, "EUR", 1999),
            (500, "JPY", 500),
            (24_900, "ISK", 2_490_000),
            (5, "UGX", 500),
            (1200, "MGA", 12),
            (5120, "KWD", 5120),
            (5120, "BHD", 5120),
            (5120, "JOD", 5120),
            (5120, "OMR", 5120),
            (5120, "TND", 5120),
            (450_000_000, "IDR", 450_000_000),
            (1045, "HUF", 1045),
            (80_045, "TWD", 80_045),
            (0, "EUR", 0),
            (999_999_999_999, "EUR", 999_999_999_999),
            (9_999_999_999, "ISK", 999_999_999_900),
            (99_999_999_999_900, "MGA", 999_999_999_999),
        ] {
            let money = money(amount, currency);
            assert_eq!(money.for_cards(), Some(sent), "{money}");
            assert_eq!(Money::from_cards(sent, money.currency), Some(money), "{money}");
        }
    }

    #[test]
    fn what_the_provider_cannot_count_is_not_sent() {
        for (amount, currency) in [
            (5124, "KWD"),
            (1, "TND"),
            (1250, "MGA"),
            (-1, "EUR"),
            (1_000_000_000_000, "EUR"),
            (10_000_000_000, "ISK"),
            (i64::MAX, "JPY"),
        ] {
            assert_eq!(money(amount, currency).for_cards(), None, "{amount} {currency}");
        }
        // Half a krona.
        assert_eq!(Money::from_cards(50, "ISK".parse().unwrap()), None);
        assert_eq!(Money::from_cards(i64::MAX, "MGA".parse().unwrap()), None);
    }

    #[test]
    fn every_ceiling_can_be_charged() {
        for currency in ["EUR", "JPY", "KWD", "ISK", "UGX", "MGA", "IDR", "CLF", "XXX"] {
            let currency: Currency = currency.parse().unwrap();
            assert!(Money::new(currency.card_ceiling(), currency).for_cards().is_some(), "{currency}");
            let more = Money::new(currency.card_ceiling() + currency.card_step(), currency);
            assert_eq!(more.for_cards(), None, "{currency}");
        }
    }
}
