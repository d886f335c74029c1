//! How an order looks to whoever reads it.

use std::collections::HashMap;

use order_core::ids::{OrderId, ParcelId, ProductId, UserId};
use serde::Serialize;
use service::Money;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, ArrayBuilder, Object};

use super::{
    CancelReason, DeclineReason, Dispute, Former, Item, Line, NextAction, Order, OrderNumber, Parcel, Past,
    PaymentStatus, Quantity, Sent, Status, Tracking, Viewer,
};
use crate::address::Address;
use crate::schema;

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
    #[schema(inline)]
    quantity: Quantity,
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
