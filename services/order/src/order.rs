//! Orders: what they are, how they look, and who may do what with them.

pub mod parcel_store;
pub mod reads;
pub mod search;
pub mod search_store;
pub mod store;

use std::collections::HashMap;
use std::time::Duration;

use order_core::ids::{OrderId, ParcelId, ProductId, UserId};
pub use order_core::number::OrderNumber;
pub use order_core::order::{
    CancelReason, Card, DeclineReason, Dispute, Item, Line, MAX_LINES, MAX_QUANTITY, NextAction, NoTotal,
    Parcel, PaymentStatus, Status, Tracking, total,
};
use serde::{Deserialize, Serialize};
use service::Money;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, ArrayBuilder, Object};

use crate::address::Address;
use crate::schema;

/// Who looks at an order: what may be done next depends on it.
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
    pub items: Vec<Item>,
    pub total: Money,
    pub shipping_address: Address,
    pub payment_method: String,
    /// Seconds from now until an unpaid order is cancelled.
    pub deadline_seconds: f64,
    /// The same where the customer has to prove who they are.
    pub action_seconds: f64,
    pub placed_at: OffsetDateTime,
    pub traceparent: Option<String>,
    /// For how long the process that places it works on it first; without one anybody may.
    pub lease: Option<Duration>,
}

impl Placement {
    /// The order as it will be read once it is placed.
    pub fn order(&self) -> Result<Order, serde_json::Error> {
        let none = Money::zero(self.total.currency);
        Ok(Order {
            id: self.id,
            number: self.number.clone(),
            user_id: self.user_id,
            status: Status::Pending,
            cancel_reason: None,
            total: self.total,
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
            items: self.items.clone(),
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
    /// Looked up only where refunds can have left less to be sent, or a part has left.
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

/// An order, as its reader may see it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Order)]
pub struct View {
    #[schema(inline)]
    id: OrderId,
    #[schema(inline)]
    number: OrderNumber,
    /// Whose order it is, for staff.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    customer: Option<Customer>,
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
    /// Of the parcel that left last with a carrier. Null until one has, and when the customer was erased since.
    #[schema(required)]
    tracking: Option<Tracking>,
    /// What left, oldest first.
    parcels: Vec<ParcelView>,
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

/// Who placed an order, as the user service knows them today.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Customer {
    #[schema(inline)]
    pub id: UserId,
    /// Null when the account was erased, and while the user service is away.
    #[schema(required)]
    pub email: Option<String>,
    /// The same.
    #[schema(required)]
    pub name: Option<String>,
}

/// A product as it was when the order was placed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrderItem)]
struct ItemView {
    #[schema(inline)]
    product_id: ProductId,
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
    /// Why the card was declined; null unless it was, and of orders from before reasons were kept.
    #[schema(required)]
    decline_reason: Option<DeclineReason>,
    /// For staff, once the customer has complained to their bank.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    dispute: Option<Dispute>,
    /// What the customer has to do before the order can be paid; of their own orders, while it is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_action: Option<NextAction>,
}

/// A part of an order, or all of it, on its way.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Parcel)]
struct ParcelView {
    #[schema(inline)]
    id: ParcelId,
    #[schema(schema_with = method)]
    method: &'static str,
    /// Null when it was fetched in the shop, and when the customer was erased since.
    #[schema(required)]
    tracking: Option<Tracking>,
    items: Vec<Line>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    shipped_at: OffsetDateTime,
    /// What carrier and number were said to be before, oldest first.
    former: Vec<Former>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StatusChange)]
struct HistoryView {
    status: Status,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    at: OffsetDateTime,
}

fn method() -> Object {
    schema::words(["carrier", "collected"])
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
        then.refunding = Money::zero(self.total.currency);
        then.unsent = Unsent::default();
        then.payment_action = None;
        // With the numbers of now: what was wrong is of no use to anybody.
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
            let quantity = u32::try_from(left).ok().filter(|left| *left > 0)?;
            Some(Line { product_id: item.product_id, quantity })
        };
        self.items.iter().filter_map(line).collect()
    }

    /// What `viewer` may do now.
    fn next_actions(&self, viewer: Viewer) -> Vec<&'static str> {
        let staff = viewer == Viewer::Staff;
        let disputed = matches!(self.dispute, Some(Dispute::Open | Dispute::Lost));
        let paid = self.payment_status == PaymentStatus::Captured && !disputed;
        let back = self.refunded.checked_add(self.refunding);
        let refundable = paid && back.is_some_and(|back| back < self.total);
        // What goes back whole is not sent, answered or not.
        let goes_back = !self.total.is_zero() && back.is_none_or(|back| back >= self.total);
        let in_part = self.status == Status::PartiallyShipped;
        let ships = paid
            && !goes_back
            && (in_part || self.status == Status::Confirmed)
            && !self.rest(&self.unsent.all).is_empty();
        let nothing_follows = goes_back
            || self.dispute == Some(Dispute::Lost)
            || (in_part && self.rest(&self.unsent.done).is_empty());
        let allowed = [
            ("cancel", matches!(self.status, Status::Pending | Status::Confirmed)),
            ("ship", staff && ships),
            ("deliver", staff && (self.status == Status::Shipped || (in_part && nothing_follows))),
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
        let unknown = Customer { id: self.user_id, email: None, name: None };
        View {
            id: self.id,
            number: self.number,
            customer: (viewer == Viewer::Staff).then_some(unknown),
            status: self.status,
            cancel_reason: self.cancel_reason,
            items: self.items.into_iter().map(item).collect(),
            total: self.total,
            refunded: self.refunded,
            shipping_address: self.shipping_address,
            payment: PaymentView {
                status: self.payment_status,
                method: self.payment_method,
                decline_reason: self
                    .decline_reason
                    .filter(|_| self.payment_status == PaymentStatus::Declined),
                dispute: self.dispute.filter(|_| viewer == Viewer::Staff),
                next_action: self
                    .payment_action
                    .filter(|_| viewer == Viewer::Owner && self.status == Status::Pending),
            },
            tracking: self.tracking,
            parcels: self.parcels.into_iter().map(ParcelView::from).collect(),
            next_actions,
            placed_at: self.placed_at,
            updated_at: self.updated_at,
            history: changes(&self.history),
        }
    }
}

impl From<Sent> for ParcelView {
    fn from(sent: Sent) -> Self {
        let Sent { parcel: Parcel { id, tracking, lines }, collected, former, sent_at, .. } = sent;
        let method = if collected { "collected" } else { "carrier" };
        Self { id, method, tracking, items: lines, shipped_at: sent_at, former }
    }
}

impl View {
    /// With more about its customer, where its reader may see that.
    pub fn of(mut self, customers: &HashMap<UserId, Customer>) -> Self {
        self.customer = self.customer.map(|one| customers.get(&one.id).cloned().unwrap_or(one));
        self
    }
}

/// The changes of status. What an order asks of its customer while it is pending is none.
fn changes(history: &[Past]) -> Vec<HistoryView> {
    let mut changes = Vec::with_capacity(history.len());
    let mut status = None;
    for past in history {
        if status.replace(past.status) != Some(past.status) {
            changes.push(HistoryView { status: past.status, at: past.at });
        }
    }
    changes
}
