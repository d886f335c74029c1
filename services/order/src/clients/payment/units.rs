//! How the amounts of a payment are counted, and whether an intent is for what the order comes to.

use service::Money;
use service::money::Currency;

use super::Payment;
use super::bodies::IntentBody;

/// How amounts of a payment are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// As the provider says.
    Providers,
    /// In ISO 4217's minor units, as an earlier version of ours sent them whatever the provider makes of it.
    Iso,
}

impl Units {
    /// Those of an intent, if it is of the order's total in one of them. What is left out is not looked at.
    pub fn of(intent: &IntentBody, payment: Payment<'_>) -> Option<Self> {
        match intent.amount {
            None => Some(Self::Providers),
            amount if amount == payment.total.for_cards() => Some(Self::Providers),
            Some(amount) if amount == payment.total.amount => Some(Self::Iso),
            Some(_) => None,
        }
    }

    pub fn count(self, amount: Money) -> Option<i64> {
        match self {
            Self::Providers => amount.for_cards(),
            Self::Iso => Some(amount.amount),
        }
    }

    pub fn read(self, amount: i64, currency: Currency) -> Option<Money> {
        match self {
            Self::Providers => Money::from_cards(amount, currency),
            Self::Iso => Some(Money::new(amount, currency)),
        }
    }
}

/// Whether what is held, or was taken, is what the order comes to. What is left out is not looked at.
pub fn is_for(intent: &IntentBody, payment: Payment<'_>) -> bool {
    let Some(units) = Units::of(intent, payment) else { return false };
    if units == Units::Iso {
        tracing::warn!(intent = intent.id, total = %payment.total, "payment.old_units");
    }
    let whole = intent.amount_received.is_none_or(|received| Some(received) == units.count(payment.total));
    let received = intent.status != "succeeded" || whole;
    let order = intent.metadata.get("order_id").is_none_or(|id| *id == payment.order.to_string());
    received && is_currency(intent.currency.as_deref(), payment.total.currency) && order
}

/// Whether this is the currency, as the provider writes it. What is left out is not looked at.
pub fn is_currency(text: Option<&str>, currency: Currency) -> bool {
    text.is_none_or(|text| text.eq_ignore_ascii_case(currency.code()))
}
