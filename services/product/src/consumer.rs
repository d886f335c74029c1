//! Events of other services that change the stock.

use messaging::topology::ORDER_CANCELLED;
use messaging::{ApplyError, Event, Handler};
use proto::order::v1::OrderCancelled;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::stock;

pub struct Consumer;

impl Handler for Consumer {
    async fn apply(&self, connection: &mut PgConnection, events: &[Event]) -> Result<(), ApplyError> {
        let cancelled = events.iter().filter(|event| event.kind == ORDER_CANCELLED);
        let orders = cancelled.map(order_id).collect::<Result<Vec<_>, _>>()?;
        stock::restock(connection, &orders).await?;
        Ok(())
    }
}

fn order_id(event: &Event) -> Result<Uuid, ApplyError> {
    let order = event.decode::<OrderCancelled>()?.order.unwrap_or_default();
    let rejected = |_| ApplyError::Rejected(format!("{:?} is not an order's id", order.id));
    order.id.parse().map_err(rejected)
}
