//! Events about orders: written into the outbox in the transaction of the change.

use std::collections::HashMap;

use messaging::NewEvent;
use messaging::outbox::enqueue;
use order_core::ids::{OrderId, RefundId, UserId};
use proto::events::{
    ORDER_CANCELLED, ORDER_CONFIRMED, ORDER_DELIVERED, ORDER_PLACED, ORDER_REFUNDED, ORDER_SHIPPED,
};
use proto::order::v1 as events;
use service::Money;
use service::db::{Connection, Defect};

use crate::order::{
    self, CancelReason, DeclineReason, Item, Line, OrderNumber, Parcel, Placement, Status, Tracking,
};

/// Writes `order.placed` of new orders.
pub async fn placed(connection: &mut Connection, placements: &[Placement]) -> sqlx::Result<()> {
    let event = |order: &Placement| {
        let body = body(order.id, order.user_id, &order.number, &order.items, order.total);
        NewEvent::new(ORDER_PLACED, order.id.into(), 1, &events::OrderPlaced { order: Some(body) })
            .in_trace(order.traceparent.clone())
    };
    enqueue(connection, &placements.iter().map(event).collect::<Vec<_>>()).await
}

fn body(id: OrderId, user: UserId, number: &OrderNumber, items: &[Item], total: Money) -> events::Order {
    let line = |item: &Item| events::Line {
        product_id: item.product_id.to_string(),
        sku: item.sku.clone(),
        name: item.name.clone(),
        quantity: item.quantity,
        unit_price: item.unit_price.amount,
    };
    events::Order {
        id: id.to_string(),
        user_id: user.to_string(),
        lines: items.iter().map(line).collect(),
        total: total.amount,
        currency: total.currency.code().to_owned(),
        number: number.to_string(),
    }
}

/// What is announced of an order.
pub enum Notice<'a> {
    Confirmed,
    /// Why; why the card was declined if that is the reason; and what goes back in minor units, where that is known.
    Cancelled(CancelReason, Option<DeclineReason>, Option<i64>),
    Shipped(Sent<'a>),
    Delivered,
    /// This refund has succeeded.
    Refunded(RefundId),
}

/// A parcel that left, or whose number has changed.
pub struct Sent<'a> {
    pub parcel: &'a Parcel,
    pub more_follows: bool,
    pub corrected: bool,
}

impl<'a> Sent<'a> {
    /// Of an order that is in this status since.
    pub fn new(parcel: &'a Parcel, status: Status) -> Self {
        Self { parcel, more_follows: status == Status::PartiallyShipped, corrected: false }
    }

    fn event(&self, order: Option<events::Order>) -> events::OrderShipped {
        let (carrier, tracking_number) = match self.parcel.tracking.clone() {
            Some(Tracking { carrier, tracking_number }) => (carrier, tracking_number),
            None => (String::new(), String::new()),
        };
        events::OrderShipped {
            order,
            carrier,
            tracking_number,
            parcel_id: self.parcel.id.to_string(),
            contents: self.parcel.lines.iter().map(units).collect(),
            more_follows: self.more_follows,
            corrected: self.corrected,
        }
    }
}

fn units(line: &Line) -> events::Restock {
    events::Restock { product_id: line.product_id.to_string(), quantity: line.quantity }
}

/// What every announcement of an order has.
pub struct About {
    pub user: UserId,
    pub total: Money,
    pub traceparent: Option<String>,
}

/// A change of an order at a version of it.
pub struct Announcement<'a> {
    pub order: OrderId,
    pub about: &'a About,
    pub version: i64,
    pub notice: Notice<'a>,
}

/// Writes events about orders into the outbox. `refunds` has amount and restocked lines of those that succeeded.
pub async fn announce(
    connection: &mut Connection,
    notices: &[Announcement<'_>],
    refunds: &HashMap<RefundId, (i64, Vec<Line>)>,
) -> sqlx::Result<()> {
    if notices.is_empty() {
        return Ok(());
    }
    let ids: Vec<OrderId> = notices.iter().map(|one| one.order).collect();
    let contents = order::store::contents(connection, &ids).await?;
    let mut announced = Vec::with_capacity(notices.len());
    for Announcement { order: id, about, version, notice } in notices {
        let of = contents.get(id).ok_or(Defect("an order has no lines"))?;
        let order = body(*id, about.user, &of.number, &of.items(about.total.currency), about.total);
        let event = notice
            .event(*id, *version, order, refunds)
            .ok_or(Defect("a refund that succeeded is not there"))?;
        announced.push(event.in_trace(about.traceparent.clone()));
    }
    enqueue(connection, &announced).await
}

impl Notice<'_> {
    fn event(
        &self,
        id: OrderId,
        version: i64,
        order: events::Order,
        refunds: &HashMap<RefundId, (i64, Vec<Line>)>,
    ) -> Option<NewEvent> {
        let order = Some(order);
        Some(match self {
            Self::Confirmed => {
                NewEvent::new(ORDER_CONFIRMED, id.into(), version, &events::OrderConfirmed { order })
            }
            Self::Cancelled(reason, decline, returns) => {
                let decline_reason = decline.filter(|_| *reason == CancelReason::PaymentDeclined);
                let decline_reason = decline_reason.map(|reason| reason.as_str().to_owned());
                let (reason, returns) = (reason.as_str().to_owned(), *returns);
                let body = events::OrderCancelled { order, reason, decline_reason, returns };
                NewEvent::new(ORDER_CANCELLED, id.into(), version, &body)
            }
            Self::Shipped(sent) => NewEvent::new(ORDER_SHIPPED, id.into(), version, &sent.event(order)),
            Self::Delivered => {
                NewEvent::new(ORDER_DELIVERED, id.into(), version, &events::OrderDelivered { order })
            }
            Self::Refunded(refund) => {
                let (amount, restock) = refunds.get(refund)?;
                let restock = restock.iter().map(units).collect();
                let (refund_id, amount) = (refund.to_string(), *amount);
                let body = events::OrderRefunded { order, refund_id, amount, restock };
                NewEvent::new(ORDER_REFUNDED, id.into(), version, &body)
            }
        })
    }
}
