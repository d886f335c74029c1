//! The SQL of the saga's refunds.

use std::collections::HashMap;

use order_core::ids::{OrderId, ProviderRefundId, RefundId};
use service::Money;
use service::db::Connection;
use service::money::Currency;

use super::refunds::{Refund, RefundBy, RefundStatus};
use crate::order::Line;

/// The refunds of each order, oldest first. They are in their orders' currencies.
pub async fn read(
    connection: &mut Connection,
    orders: &HashMap<OrderId, Currency>,
) -> sqlx::Result<HashMap<OrderId, Vec<Refund>>> {
    let mut refunds: HashMap<OrderId, Vec<Refund>> = HashMap::new();
    if orders.is_empty() {
        return Ok(refunds);
    }
    let ids: Vec<OrderId> = orders.keys().copied().collect();
    let rows = sqlx::query!(
        "SELECT order_id, id, amount, status, made_by, provider_id FROM orders.refunds
         WHERE order_id = ANY($1) ORDER BY id",
        &ids as &[OrderId],
    )
    .fetch_all(connection)
    .await?;
    for row in rows {
        let order = OrderId::from(row.order_id);
        let Some(currency) = orders.get(&order) else { continue };
        refunds.entry(order).or_default().push(Refund {
            id: row.id.into(),
            amount: Money::new(row.amount, *currency),
            status: RefundStatus::try_from(row.status)?,
            by: RefundBy::try_from(row.made_by)?,
            provider_id: row.provider_id.map(Into::into),
        });
    }
    Ok(refunds)
}

/// Writes new refunds, and the changes of known ones.
pub async fn write(connection: &mut Connection, refunds: &[(OrderId, &Refund)]) -> sqlx::Result<()> {
    for (order, refund) in refunds {
        let reason = match refund.by {
            RefundBy::Cancel => "order cancelled",
            RefundBy::Provider => "made at the payment provider",
            RefundBy::Staff => "", // given by whoever asks
        };
        sqlx::query!(
            "INSERT INTO orders.refunds (id, order_id, amount, status, made_by, provider_id, reason)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (id) DO UPDATE SET status = EXCLUDED.status, provider_id = EXCLUDED.provider_id",
            refund.id as RefundId,
            *order as OrderId,
            refund.amount.amount,
            refund.status.as_str(),
            refund.by.as_str(),
            refund.provider_id.as_ref() as Option<&ProviderRefundId>,
            reason,
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Amount and restocked lines of refunds that have succeeded, by id; from now on
/// their units count as put back. They are in these currencies.
pub async fn mark_announced(
    connection: &mut Connection,
    refunds: &[(RefundId, Currency)],
) -> sqlx::Result<HashMap<RefundId, (Money, Vec<Line>)>> {
    let mut announced = HashMap::new();
    if refunds.is_empty() {
        return Ok(announced);
    }
    let ids: Vec<RefundId> = refunds.iter().map(|(id, _)| *id).collect();
    let rows = sqlx::query!(
        "UPDATE orders.refunds SET told = true WHERE id = ANY($1) RETURNING id, amount, restock",
        &ids as &[RefundId],
    )
    .fetch_all(connection)
    .await?;
    for row in rows {
        let id = RefundId::from(row.id);
        let Some((_, currency)) = refunds.iter().find(|(known, _)| *known == id) else { continue };
        announced.insert(id, (Money::new(row.amount, *currency), restock(row.restock)?));
    }
    Ok(announced)
}

fn restock(column: serde_json::Value) -> sqlx::Result<Vec<Line>> {
    serde_json::from_value(column).map_err(|error| sqlx::Error::Decode(error.into()))
}
