//! What an order is made of.

mod lines;

use std::ops::Deref;

pub use self::lines::{Line, Lines, MAX_LINES, NoLines, NoQuantity, Quantity};
use crate::ids::{ParcelId, ProductId};
use crate::words::words;
use money::{Currency, Money};
use serde::{Deserialize, Serialize};

words! {
    Status as OrderStatus {
        /// Stock is reserved, payment under way.
        Pending = "pending",
        /// Payment is captured, the stock taken.
        Confirmed = "confirmed",
        /// A part of it is on its way, the rest is not.
        PartiallyShipped = "partially_shipped",
        Shipped = "shipped",
        Delivered = "delivered",
        Cancelled = "cancelled",
    }
}

words! {
    CancelReason {
        PaymentDeclined = "payment_declined",
        PaymentTimeout = "payment_timeout",
        OutOfStock = "out_of_stock",
        Customer = "customer",
        Staff = "staff",
    }
}

words! {
    PaymentStatus {
        Pending = "pending",
        Authorized = "authorized",
        Captured = "captured",
        Voided = "voided",
        Declined = "declined",
        Refunded = "refunded",
        /// The provider has not told yet what happened.
        Unknown = "unknown",
    }
}

words! {
    /// Why a card was declined, as far as its owner may know. What tells of theft or fraud is `declined`:
    /// <https://docs.stripe.com/declines/codes>.
    DeclineReason {
        /// No reason that could be told.
        Declined = "declined",
        InsufficientFunds = "insufficient_funds",
        ExpiredCard = "expired_card",
        /// Its number, date or security code is wrong.
        IncorrectDetails = "incorrect_details",
        /// The customer did not prove who they are.
        AuthenticationFailed = "authentication_failed",
        /// It is not for such a purchase, currency or country.
        CardNotSupported = "card_not_supported",
        /// It is used too often, or for too much.
        LimitExceeded = "limit_exceeded",
        /// The provider takes no so small or large amounts.
        AmountNotAccepted = "amount_not_accepted",
        /// The bank can't be reached: the same card may do later.
        TryAgainLater = "try_again_later",
    }
}

words! {
    /// What has become of a customer's complaint to their bank about a payment.
    Dispute as PaymentDispute {
        /// The bank has taken the money back until it is decided.
        Open = "open",
        /// The money stays with the shop.
        Won = "won",
        /// The money has gone back to the customer.
        Lost = "lost",
    }
}

/// What the customer has to do before their bank lets the money be held: to prove who they are (3-D Secure).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = PaymentAction))]
pub struct NextAction {
    /// Where the customer's browser is to go. It comes back to the shop from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_url: Option<String>,
    /// For the provider's own program in the customer's browser, where there is no address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<String>,
}

/// The card that was charged. No more of it is kept than its owner knows it by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Card {
    /// As the provider calls it, such as `visa`; or `unknown`.
    pub brand: String,
    /// Its last four digits.
    pub last4: String,
}

impl Card {
    /// `None` unless `last4` is four digits: whatever else a provider may say in its place is not kept.
    pub fn new(brand: &str, last4: &str) -> Option<Self> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let named = (1..=30).contains(&brand.len()) && brand.bytes().all(word);
        let brand = if named { brand } else { "unknown" };
        let digits = last4.len() == 4 && last4.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| Self { brand: brand.to_owned(), last4: last4.to_owned() })
    }
}

/// Where a parcel is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tracking {
    #[cfg_attr(feature = "openapi", schema(schema_with = up_to_100))]
    pub carrier: String,
    #[cfg_attr(feature = "openapi", schema(schema_with = up_to_100))]
    pub tracking_number: String,
}

/// What left for the customer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Parcel {
    pub id: ParcelId,
    /// None: the customer fetched it in the shop.
    pub tracking: Option<Tracking>,
    pub lines: Vec<Line>,
}

/// Text of 1 to 100 characters that is not blank and has no control characters.
#[cfg(feature = "openapi")]
fn up_to_100() -> utoipa::openapi::Object {
    let visible = concat!(
        r"^[^\u0000-\u001f\u007f-\u009f]*",
        r"[^\s\u0000-\u001f\u007f-\u009f]",
        r"[^\u0000-\u001f\u007f-\u009f]*$"
    );
    utoipa::openapi::ObjectBuilder::new()
        .schema_type(utoipa::openapi::schema::Type::String)
        .pattern(Some(visible))
        .min_length(Some(1))
        .max_length(Some(100))
        .build()
}

/// A line as it was bought: later changes of the product don't touch it.
#[derive(Clone, Debug)]
pub struct Item {
    pub product_id: ProductId,
    pub sku: String,
    pub name: String,
    pub unit_price: Money,
    pub quantity: Quantity,
}

/// Why the lines of an order have no total. The number is the line's place, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTotal {
    #[error("there is no line")]
    Empty,
    #[error("line {0} has another currency than the first")]
    MixedCurrencies(usize),
    #[error("with line {0} it is more than a card provider takes")]
    TooLarge(usize),
    #[error("a card provider does not take such an amount")]
    NotChargeable(Currency),
}

/// What was bought, and what it comes to. An order has one currency, and an amount that card providers take, or costs
/// nothing.
#[derive(Clone, Debug)]
pub struct Items {
    items: Vec<Item>,
    total: Money,
}

impl Items {
    pub fn new(items: Vec<Item>) -> Result<Self, NoTotal> {
        let total = total(&items)?;
        Ok(Self { items, total })
    }

    /// The sum of the items.
    pub fn total(&self) -> Money {
        self.total
    }
}

impl Deref for Items {
    type Target = [Item];

    fn deref(&self) -> &[Item] {
        &self.items
    }
}

fn total(items: &[Item]) -> Result<Money, NoTotal> {
    let first = items.first().ok_or(NoTotal::Empty)?;
    let mut total = Money::zero(first.unit_price.currency);
    for (index, item) in items.iter().enumerate() {
        if item.unit_price.currency != total.currency {
            return Err(NoTotal::MixedCurrencies(index));
        }
        let sum = item.unit_price.checked_mul(item.quantity.into()).and_then(|line| total.checked_add(line));
        total =
            sum.filter(|sum| sum.amount <= sum.currency.card_ceiling()).ok_or(NoTotal::TooLarge(index))?;
    }
    if total.for_cards().is_none() { Err(NoTotal::NotChargeable(total.currency)) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn item(amount: i64, currency: &str, quantity: u32) -> Item {
        let currency: Currency = currency.parse().unwrap();
        Item {
            product_id: Uuid::now_v7().into(),
            sku: "S".to_owned(),
            name: "N".to_owned(),
            unit_price: Money::new(amount, currency),
            quantity: quantity.try_into().unwrap(),
        }
    }

    #[test]
    fn of_a_card_only_four_digits_and_a_word_are_kept() {
        let card = |brand: &str, last4: &str| Some(Card { brand: brand.to_owned(), last4: last4.to_owned() });
        assert_eq!(Card::new("visa", "4242"), card("visa", "4242"));
        assert_eq!(Card::new("", "0005"), card("unknown", "0005"));
        assert_eq!(Card::new("<b>", "0005"), card("unknown", "0005"));
        for wrong in ["", "424", "42424", "4242424242424242", "424x", "٤٢٤٢"] {
            assert_eq!(Card::new("visa", wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_total_is_the_sum_of_its_lines() {
        let total = total(&[item(1999, "EUR", 2), item(1, "EUR", 3)]).unwrap();
        assert_eq!(total, Money::new(4001, Currency::EUR));
    }

    #[test]
    fn a_total_that_cannot_be_paid_is_refused() {
        assert_eq!(total(&[]), Err(NoTotal::Empty));
        assert_eq!(total(&[item(1, "EUR", 1), item(1, "USD", 1)]), Err(NoTotal::MixedCurrencies(1)));
        let half = Currency::EUR.card_ceiling() / 2 + 1;
        assert_eq!(total(&[item(half, "EUR", 1), item(half, "EUR", 1)]), Err(NoTotal::TooLarge(1)));
        assert_eq!(total(&[item(i64::MAX, "EUR", 999)]), Err(NoTotal::TooLarge(0)));
        let dinar: Currency = "KWD".parse().unwrap();
        assert_eq!(total(&[item(5124, "KWD", 1)]), Err(NoTotal::NotChargeable(dinar)));
        assert_eq!(total(&[item(5124, "KWD", 5)]), Ok(Money::new(25_620, dinar)));
        assert_eq!(total(&[item(0, "EUR", 5)]), Ok(Money::zero(Currency::EUR)));
        assert_eq!(total(&[item(450_000_000, "IDR", 2)]).map(|sum| sum.amount), Ok(900_000_000));
    }
}
