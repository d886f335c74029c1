//! Events of other services that change the stock.

use messaging::{ApplyError, Event, Handler};
use proto::events::{ORDER_CANCELLED, ORDER_REFUNDED};
use proto::order::v1::{OrderCancelled, OrderRefunded};
use service::db::Connection;
use service::failpoint;
use uuid::Uuid;

use crate::stock::{self, Lives, Return};

pub struct Consumer(pub Lives);

impl Handler for Consumer {
    async fn apply(&self, connection: &mut Connection, events: &[Event]) -> Result<(), ApplyError> {
        let (mut cancelled, mut returns) = (Vec::new(), Vec::new());
        for event in events {
            match event.kind.as_str() {
                ORDER_CANCELLED => {
                    let order = event.decode::<OrderCancelled>()?.order.unwrap_or_default();
                    cancelled.push(id(&order.id)?);
                }
                ORDER_REFUNDED => returns.extend(returned(&event.decode()?)?),
                _ => {}
            }
        }
        stock::restock(connection, &cancelled, &returns, self.0).await?;
        if !cancelled.is_empty() || !returns.is_empty() {
            failpoint::hit("product.restock.written").await?;
        }
        Ok(())
    }
}

fn returned(refund: &OrderRefunded) -> Result<Vec<Return>, ApplyError> {
    if refund.restock.is_empty() {
        return Ok(Vec::new());
    }
    let order_id = id(refund.order.as_ref().map_or("", |order| &order.id))?;
    let line = |line: &proto::order::v1::Restock| {
        Ok(Return { order_id, product_id: id(&line.product_id)?, quantity: line.quantity })
    };
    refund.restock.iter().map(line).collect()
}

fn id(text: &str) -> Result<Uuid, ApplyError> {
    text.parse().map_err(|_| ApplyError::Rejected(format!("{text:?} is not an id")))
}
