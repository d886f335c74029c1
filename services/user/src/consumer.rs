//! Turns events about orders into notifications of their customers: one for each event.

use messaging::{ApplyError, Event, Handler};
use proto::events;
use proto::order::v1::{
    Order, OrderCancelled, OrderConfirmed, OrderDelivered, OrderPlaced, OrderRefunded, OrderShipped,
};
use service::db::Connection;

use crate::notification::{self, NewNotification};

pub(crate) struct Notifier {
    /// Whether mail can be sent.
    pub mails: bool,
}

impl Handler for Notifier {
    async fn apply(&self, connection: &mut Connection, events: &[Event]) -> Result<(), ApplyError> {
        let mut new = Vec::with_capacity(events.len());
        for event in events {
            let order = match event.kind.as_str() {
                events::ORDER_PLACED => event.decode::<OrderPlaced>()?.order,
                events::ORDER_CONFIRMED => event.decode::<OrderConfirmed>()?.order,
                events::ORDER_CANCELLED => event.decode::<OrderCancelled>()?.order,
                events::ORDER_SHIPPED => event.decode::<OrderShipped>()?.order,
                events::ORDER_DELIVERED => event.decode::<OrderDelivered>()?.order,
                events::ORDER_REFUNDED => event.decode::<OrderRefunded>()?.order,
                _ => continue,
            };
            new.push(notification(event, order.as_ref())?);
        }
        notification::insert(connection, new, self.mails).await?;
        Ok(())
    }
}

fn notification(event: &Event, order: Option<&Order>) -> Result<NewNotification, ApplyError> {
    let rejected = |what: &str| ApplyError::Rejected(format!("{} has {what}", event.kind));
    let order = order.ok_or_else(|| rejected("no order"))?;
    Ok(NewNotification {
        event: event.id,
        user: order.user_id.parse().map_err(|_| rejected("no user id"))?,
        order: order.id.parse().map_err(|_| rejected("no order id"))?,
        kind: event.kind.clone(),
        payload: event.payload.clone(),
    })
}
