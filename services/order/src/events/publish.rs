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
use uuid::Uuid;

use crate::order::{
    self, CancelReason, Card, DeclineReason, Item, Line, OrderNumber, Parcel, Placement, Status, Tracking,
};

/// Writes `order.placed` of new orders.
pub async fn placed(connection: &mut Connection, placements: &[Placement]) -> sqlx::Result<()> {
    let event = |order: &Placement| {
        let body = body(order.id, order.user_id, &order.number, &order.items, order.items.total());
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
        quantity: item.quantity.into(),
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
    /// Why; why the card was declined if that is the reason; and what goes back, where that is known.
    Cancelled(CancelReason, Option<DeclineReason>, Option<Money>),
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
    /// The order has had this status since then.
    pub fn new(parcel: &'a Parcel, status: Status) -> Self {
        Self { parcel, more_follows: status == Status::PartiallyShipped, corrected: false }
    }

    fn event(
        &self,
        order: Option<events::Order>,
        ships_to: Option<events::Destination>,
    ) -> events::OrderShipped {
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
            // Goods that the customer fetched go nowhere.
            ships_to: ships_to.filter(|_| self.parcel.tracking.is_some()),
        }
    }
}

fn units(line: &Line) -> events::Restock {
    events::Restock { product_id: line.product_id.to_string(), quantity: line.quantity.into() }
}

/// The part of every event about an order.
pub struct About {
    pub user: UserId,
    pub total: Money,
    /// The name on the parcel; none once the customer is erased.
    pub recipient: Option<String>,
    pub town: Option<String>,
    pub traceparent: Option<String>,
}

impl About {
    fn ships_to(&self) -> Option<events::Destination> {
        let recipient = self.recipient.clone()?;
        Some(events::Destination { recipient, town: self.town.clone().unwrap_or_default() })
    }
}

/// A change of an order at a version of it.
pub struct Announcement<'a> {
    pub order: OrderId,
    pub about: &'a About,
    pub version: i64,
    /// What was charged, if it was and is known.
    pub card: Option<&'a Card>,
    pub notice: Notice<'a>,
}

/// Writes events about orders into the outbox. `refunds` has amount and restocked lines of those that succeeded.
pub async fn announce(
    connection: &mut Connection,
    notices: &[Announcement<'_>],
    refunds: &HashMap<RefundId, (Money, Vec<Line>)>,
) -> sqlx::Result<()> {
    if notices.is_empty() {
        return Ok(());
    }
    let ids: Vec<OrderId> = notices.iter().map(|one| one.order).collect();
    let contents = order::store::contents(connection, &ids).await?;
    let mut announced = Vec::with_capacity(notices.len());
    for one in notices {
        let (id, about) = (one.order, one.about);
        let of = contents.get(&id).ok_or(Defect("an order has no lines"))?;
        let order = body(id, about.user, &of.number, &of.items(about.total.currency)?, about.total);
        let event = one.event(order, refunds).ok_or(Defect("a refund that succeeded is not there"))?;
        announced.push(event.in_trace(about.traceparent.clone()));
    }
    enqueue(connection, &announced).await
}

impl Announcement<'_> {
    fn event(
        &self,
        order: events::Order,
        refunds: &HashMap<RefundId, (Money, Vec<Line>)>,
    ) -> Option<NewEvent> {
        let (id, version, order) = (Uuid::from(self.order), self.version, Some(order));
        let card =
            self.card.map(|card| events::Card { brand: card.brand.clone(), last4: card.last4.clone() });
        Some(match &self.notice {
            Notice::Confirmed => {
                let body = events::OrderConfirmed { order, card, ships_to: self.about.ships_to() };
                NewEvent::new(ORDER_CONFIRMED, id, version, &body)
            }
            Notice::Cancelled(reason, decline, returns) => {
                let decline_reason = decline.filter(|_| *reason == CancelReason::PaymentDeclined);
                let decline_reason = decline_reason.map(|reason| reason.as_str().to_owned());
                let (reason, returns) = (reason.as_str().to_owned(), returns.map(|returns| returns.amount));
                // Where nothing is refunded there is no card to refund it to.
                let card = card.filter(|_| returns.is_some_and(|returns| returns > 0));
                let body = events::OrderCancelled { order, reason, decline_reason, returns, card };
                NewEvent::new(ORDER_CANCELLED, id, version, &body)
            }
            Notice::Shipped(sent) => {
                NewEvent::new(ORDER_SHIPPED, id, version, &sent.event(order, self.about.ships_to()))
            }
            Notice::Delivered => {
                NewEvent::new(ORDER_DELIVERED, id, version, &events::OrderDelivered { order })
            }
            Notice::Refunded(refund) => {
                let (amount, restock) = refunds.get(refund)?;
                let restock = restock.iter().map(units).collect();
                let (refund_id, amount) = (refund.to_string(), amount.amount);
                let body = events::OrderRefunded { order, refund_id, amount, restock, card };
                NewEvent::new(ORDER_REFUNDED, id, version, &body)
            }
        })
    }
}
