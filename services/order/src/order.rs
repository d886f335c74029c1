//! Orders: what they are, how they look, and who may do what with them.

pub mod reads;
pub mod store;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use service::{FieldError, Money};
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, ArrayBuilder};
use uuid::Uuid;

use crate::address::Address;
use crate::schema;
use crate::text::words;

words! {
    Status as OrderStatus {
        /// Stock is reserved, payment under way.
        Pending = "pending",
        /// Payment is captured, the stock taken.
        Confirmed = "confirmed",
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

/// Where a parcel is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tracking {
    #[schema(schema_with = schema::up_to_100)]
    pub carrier: String,
    #[schema(schema_with = schema::up_to_100)]
    pub tracking_number: String,
}

/// Who looks at an order: what may be done next depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Viewer {
    Owner,
    Staff,
}

/// So many of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OrderLine)]
pub struct Line {
    pub product_id: Uuid,
    #[schema(minimum = 1, maximum = 999)]
    pub quantity: u32,
}

/// Most of one product in an order or a cart.
pub const MAX_QUANTITY: u32 = 999;

/// Most different products in an order or a cart.
pub const MAX_LINES: usize = 100;

/// A line as it was bought: later changes of the product don't touch it.
#[derive(Clone, Debug)]
pub struct Item {
    pub product_id: Uuid,
    pub sku: String,
    pub name: String,
    pub unit_price: Money,
    pub quantity: u32,
}

/// An order that is about to be placed.
#[derive(Clone, Debug)]
pub struct Placement {
    pub id: Uuid,
    pub user_id: Uuid,
    pub items: Vec<Item>,
    pub total: Money,
    pub shipping_address: Address,
    pub payment_method: String,
    /// Seconds from now until an unpaid order is cancelled.
    pub deadline_seconds: f64,
    pub placed_at: OffsetDateTime,
    pub traceparent: Option<String>,
    /// For how long the process that places it works on it first; without one anybody may.
    pub lease: Option<Duration>,
}

impl Placement {
    /// The order as it will be read once it is placed.
    pub fn order(&self) -> Result<Order, serde_json::Error> {
        Ok(Order {
            id: self.id,
            user_id: self.user_id,
            status: Status::Pending,
            cancel_reason: None,
            total: self.total,
            refunded: 0,
            refunding: 0,
            payment_status: PaymentStatus::Pending,
            payment_method: self.payment_method.clone(),
            shipping_address: Some(serde_json::to_value(&self.shipping_address)?),
            tracking: None,
            placed_at: self.placed_at,
            updated_at: self.placed_at,
            items: self.items.clone(),
            version: 1,
            history: vec![Past {
                version: 1,
                status: Status::Pending,
                at: self.placed_at,
                payment_status: PaymentStatus::Pending,
                refunded: 0,
            }],
        })
    }
}

/// An order with everything that its readers see.
#[derive(Clone, Debug)]
pub struct Order {
    pub id: Uuid,
    pub user_id: Uuid,
    pub status: Status,
    pub cancel_reason: Option<CancelReason>,
    pub total: Money,
    pub refunded: i64,
    /// What is on its way back, in minor units.
    pub refunding: i64,
    pub payment_status: PaymentStatus,
    pub payment_method: String,
    pub shipping_address: Option<serde_json::Value>,
    pub tracking: Option<Tracking>,
    pub placed_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
    pub items: Vec<Item>,
    /// Grows with every change that is told of.
    pub version: i64,
    pub history: Vec<Past>,
}

/// A change of status, and what the order showed then.
#[derive(Clone, Debug)]
pub struct Past {
    pub version: i64,
    pub status: Status,
    pub at: OffsetDateTime,
    pub payment_status: PaymentStatus,
    pub refunded: i64,
}

/// An order, as its reader may see it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Order)]
pub struct View {
    id: Uuid,
    status: Status,
    /// Null unless it is cancelled.
    #[schema(required)]
    cancel_reason: Option<CancelReason>,
    #[schema(min_items = 1, max_items = 100)]
    items: Vec<ItemView>,
    total: Money,
    /// The money returned so far.
    refunded: Money,
    /// Null when the order has ended and the customer was erased.
    #[schema(required, value_type = Option<Address>)]
    shipping_address: Option<serde_json::Value>,
    payment: PaymentView,
    /// Null until it is shipped, and when the customer was erased since.
    #[schema(required)]
    tracking: Option<Tracking>,
    /// What this caller may do now.
    #[schema(schema_with = next_actions)]
    next_actions: Vec<&'static str>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    placed_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    updated_at: OffsetDateTime,
    /// Oldest first.
    history: Vec<HistoryView>,
}

/// A product as it was when the order was placed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrderItem)]
struct ItemView {
    product_id: Uuid,
    sku: String,
    name: String,
    unit_price: Money,
    #[schema(minimum = 1, maximum = 999)]
    quantity: u32,
    line_total: Money,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Payment)]
struct PaymentView {
    status: PaymentStatus,
    method: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StatusChange)]
struct HistoryView {
    status: Status,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    at: OffsetDateTime,
}

/// Each of these at most once.
fn next_actions() -> Array {
    let actions = schema::words(["cancel", "ship", "deliver", "refund"]);
    ArrayBuilder::new().items(actions).unique_items(true).build()
}

impl Order {
    /// The order as it was after that change of its history; the last is now.
    pub fn as_of(&self, index: usize) -> Self {
        let mut then = self.clone();
        let Some(past) = self.history.get(index).filter(|_| index + 1 < self.history.len()) else {
            return then;
        };
        then.status = past.status;
        then.cancel_reason = None; // an order that was cancelled stays so
        then.payment_status = past.payment_status;
        then.refunded = past.refunded;
        then.refunding = 0;
        then.tracking = then.tracking.filter(|_| past.status == Status::Shipped);
        then.version = past.version;
        then.updated_at = past.at;
        then.history.truncate(index + 1);
        then
    }

    /// What `viewer` may do now.
    fn next_actions(&self, viewer: Viewer) -> Vec<&'static str> {
        let staff = viewer == Viewer::Staff;
        let paid = self.payment_status == PaymentStatus::Captured;
        let refundable = paid && self.refunded + self.refunding < self.total.amount;
        let allowed = [
            ("cancel", matches!(self.status, Status::Pending | Status::Confirmed)),
            ("ship", staff && paid && self.status == Status::Confirmed),
            ("deliver", staff && self.status == Status::Shipped),
            ("refund", staff && refundable && self.status != Status::Cancelled),
        ];
        allowed.into_iter().filter(|(_, allowed)| *allowed).map(|(action, _)| action).collect()
    }

    pub fn view(self, viewer: Viewer) -> View {
        let next_actions = self.next_actions(viewer);
        let item = |item: Item| ItemView {
            product_id: item.product_id,
            // Checked when the order was placed: the total is the sum of these.
            line_total: Money::new(
                item.unit_price.amount * i64::from(item.quantity),
                item.unit_price.currency,
            ),
            sku: item.sku,
            name: item.name,
            unit_price: item.unit_price,
            quantity: item.quantity,
        };
        View {
            id: self.id,
            status: self.status,
            cancel_reason: self.cancel_reason,
            items: self.items.into_iter().map(item).collect(),
            total: self.total,
            refunded: Money::new(self.refunded, self.total.currency),
            shipping_address: self.shipping_address,
            payment: PaymentView { status: self.payment_status, method: self.payment_method },
            tracking: self.tracking,
            next_actions,
            placed_at: self.placed_at,
            updated_at: self.updated_at,
            history: self
                .history
                .iter()
                .map(|past| HistoryView { status: past.status, at: past.at })
                .collect(),
        }
    }
}

/// The sum of the lines. An order has one currency, and an amount that card
/// providers take: more than nothing, at most [`Money::MAX_AMOUNT`].
pub fn total(items: &[Item]) -> Result<Money, FieldError> {
    let refuse = |index: usize, code: &str, detail: &str| {
        Err(FieldError::new(format!("/items/{index}"), code, detail))
    };
    let Some(first) = items.first() else {
        return Err(FieldError::new("/items", "too_short", "At least one item."));
    };
    let mut total = Money::new(0, first.unit_price.currency);
    for (index, item) in items.iter().enumerate() {
        if item.unit_price.currency != total.currency {
            return refuse(index, "mixed_currencies", "All items of an order have one currency.");
        }
        let sum = item.unit_price.checked_mul(item.quantity).and_then(|line| total.checked_add(line));
        match sum.filter(|sum| sum.amount <= Money::MAX_AMOUNT) {
            Some(sum) => total = sum,
            None => return refuse(index, "total_too_large", "An order comes to at most 999,999.99."),
        }
    }
    if total.amount == 0 {
        return refuse(0, "total_too_small", "An order that costs nothing can't be paid.");
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use service::money::Currency;

    use super::*;

    fn item(amount: i64, currency: &str, quantity: u32) -> Item {
        let currency: Currency = currency.parse().unwrap();
        Item {
            product_id: Uuid::now_v7(),
            sku: "S".to_owned(),
            name: "N".to_owned(),
            unit_price: Money::new(amount, currency),
            quantity,
        }
    }

    #[test]
    fn a_total_is_the_sum_of_its_lines() {
        let total = total(&[item(1999, "EUR", 2), item(1, "EUR", 3)]).unwrap();
        assert_eq!(total, Money::new(4001, Currency::EUR));
    }

    #[test]
    fn a_total_that_cannot_be_paid_is_refused() {
        let code = |items: &[Item]| total(items).unwrap_err().code;
        assert_eq!(code(&[]), "too_short");
        assert_eq!(code(&[item(1, "EUR", 1), item(1, "USD", 1)]), "mixed_currencies");
        assert_eq!(code(&[item(Money::MAX_AMOUNT, "EUR", 2)]), "total_too_large");
        assert_eq!(code(&[item(i64::MAX, "EUR", 999)]), "total_too_large");
        assert_eq!(code(&[item(0, "EUR", 5)]), "total_too_small");
    }
}
