//! Orders: their data, how they look to readers, and who may do what with them.

pub mod parcel_store;
pub mod reads;
pub mod search;
pub mod search_store;
pub mod store;
mod view;

use std::collections::HashMap;
use std::time::Duration;

use order_core::ids::{OrderId, ProductId, UserId};
pub use order_core::number::OrderNumber;
pub use order_core::order::{
    CancelReason, Card, DeclineReason, Dispute, Item, Items, Line, Lines, MAX_LINES, NextAction, NoLines,
    NoTotal, Parcel, PaymentStatus, Quantity, Status, Tracking,
};
use serde::{Deserialize, Serialize};
use service::Money;
use time::OffsetDateTime;
use utoipa::ToSchema;

pub use self::view::{Customer, View};
use crate::address::Address;

/// A line as it is sent to the service; [`Lines::parse`] says what is wrong with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineBody {
    pub product_id: ProductId,
    pub quantity: u32,
}

/// The reader of an order: what may be done next depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Viewer {
    Owner,
    Staff,
}

/// An order that is about to be placed.
#[derive(Clone, Debug)]
pub struct Placement {
    pub id: OrderId,
    pub number: OrderNumber,
    pub user_id: UserId,
    pub items: Items,
    pub shipping_address: Address,
    pub payment_method: String,
    /// Seconds from now until an unpaid order is cancelled.
    pub deadline_seconds: f64,
    /// The same where the customer has to prove who they are.
    pub action_seconds: f64,
    pub placed_at: OffsetDateTime,
    pub traceparent: Option<String>,
    /// How long the first lease lasts of the process that places it; without one any process may work on it.
    pub lease: Option<Duration>,
}

impl Placement {
    /// The order as it will be read once it is placed.
    pub fn order(&self) -> Result<Order, serde_json::Error> {
        let none = Money::zero(self.items.total().currency);
        Ok(Order {
            id: self.id,
            number: self.number.clone(),
            user_id: self.user_id,
            status: Status::Pending,
            cancel_reason: None,
            total: self.items.total(),
            refunded: none,
            refunding: none,
            payment_status: PaymentStatus::Pending,
            payment_method: self.payment_method.clone(),
            payment_action: None,
            decline_reason: None,
            dispute: None,
            shipping_address: Some(serde_json::to_value(&self.shipping_address)?),
            tracking: None,
            parcels: vec![],
            unsent: Unsent::default(),
            placed_at: self.placed_at,
            updated_at: self.placed_at,
            items: self.items.to_vec(),
            version: 1,
            history: vec![Past {
                version: 1,
                status: Status::Pending,
                at: self.placed_at,
                payment_status: PaymentStatus::Pending,
                refunded: none,
            }],
        })
    }
}

/// An order with everything that its readers see.
#[derive(Clone, Debug)]
pub struct Order {
    pub id: OrderId,
    pub number: OrderNumber,
    pub user_id: UserId,
    pub status: Status,
    pub cancel_reason: Option<CancelReason>,
    pub total: Money,
    pub refunded: Money,
    /// What is on its way back.
    pub refunding: Money,
    pub payment_status: PaymentStatus,
    pub payment_method: String,
    pub payment_action: Option<NextAction>,
    pub decline_reason: Option<DeclineReason>,
    pub dispute: Option<Dispute>,
    pub shipping_address: Option<serde_json::Value>,
    pub tracking: Option<Tracking>,
    /// Oldest first.
    pub parcels: Vec<Sent>,
    /// Loaded only where refunds can have left less to be sent, or a part has left.
    pub unsent: Unsent,
    pub placed_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
    pub items: Vec<Item>,
    /// Grows with every change that is announced.
    pub version: i64,
    pub history: Vec<Past>,
}

/// Units of each product that went back into stock without having left.
#[derive(Clone, Debug, Default)]
pub struct Unsent {
    /// With those of refunds that the provider has not answered.
    pub all: HashMap<ProductId, i64>,
    pub done: HashMap<ProductId, i64>,
}

/// A parcel on its way, and what it was said to be before.
#[derive(Clone, Debug)]
pub struct Sent {
    pub parcel: Parcel,
    pub collected: bool,
    pub former: Vec<Former>,
    /// The Idempotency-Key of the report, if it had one.
    pub key: Option<String>,
    pub sent_at: OffsetDateTime,
}

/// What a parcel was said to be until it was corrected.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = FormerTracking)]
pub struct Former {
    pub carrier: String,
    pub tracking_number: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub until: OffsetDateTime,
}

/// A change of status, and what the order showed then.
#[derive(Clone, Debug)]
pub struct Past {
    pub version: i64,
    pub status: Status,
    pub at: OffsetDateTime,
    pub payment_status: PaymentStatus,
    pub refunded: Money,
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
        then.refunding = Money::zero(self.total.currency);
        then.unsent = Unsent::default();
        then.payment_action = None;
        // With the present numbers: a wrong number is of no use to anybody.
        then.parcels.retain(|sent| sent.sent_at <= past.at);
        then.tracking = then.parcels.iter().rev().find_map(|sent| sent.parcel.tracking.clone());
        then.version = past.version;
        then.updated_at = past.at;
        then.history.truncate(index + 1);
        then
    }

    /// Units of each product that have not left.
    pub fn not_sent(&self) -> HashMap<ProductId, i64> {
        let mut left: HashMap<ProductId, i64> =
            self.items.iter().map(|item| (item.product_id, i64::from(item.quantity))).collect();
        for line in self.parcels.iter().flat_map(|sent| &sent.parcel.lines) {
            left.entry(line.product_id).and_modify(|left| *left -= i64::from(line.quantity));
        }
        left
    }

    /// What is still to be sent: neither left, nor among these units that went back into stock.
    pub fn rest(&self, restocked: &HashMap<ProductId, i64>) -> Vec<Line> {
        let not_sent = self.not_sent();
        let line = |item: &Item| {
            let back = restocked.get(&item.product_id).copied().unwrap_or(0);
            let left = not_sent.get(&item.product_id).copied().unwrap_or(0) - back;
            let quantity = left.try_into().ok()?;
            Some(Line { product_id: item.product_id, quantity })
        };
        self.items.iter().filter_map(line).collect()
    }
}
