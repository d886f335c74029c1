//! All SQL of what refunds are for; their money is the saga's.

use std::collections::HashMap;

use order_core::ids::{OrderId, ProductId, RefundId, UserId};
use service::Money;
use service::db::Connection;
use service::money::Currency;

use super::{Request, View};
use crate::order::Line;
use crate::saga::refunds::RefundStatus;

/// Locks an order as the saga does, so that what is counted stays true.
pub async fn lock(connection: &mut Connection, order: OrderId) -> sqlx::Result<()> {
    sqlx::query!(
        "SELECT s.order_id FROM orders.sagas s JOIN orders.orders o ON o.id = s.order_id
         WHERE s.order_id = $1 FOR UPDATE",
        order as OrderId,
    )
    .fetch_optional(connection)
    .await?;
    Ok(())
}

/// Units of each product that went back into stock, or are to.
pub async fn restocked(connection: &mut Connection, order: OrderId) -> sqlx::Result<HashMap<ProductId, i64>> {
    // The units of a refund that failed after it had succeeded are back in stock: only the money returns.
    let rows = sqlx::query!(
        r#"SELECT (line ->> 'product_id')::uuid AS "product_id!", sum((line ->> 'quantity')::int) AS "units!"
           FROM orders.refunds r CROSS JOIN jsonb_array_elements(r.restock) AS line
           WHERE r.order_id = $1 AND (r.status <> 'failed' OR r.told) GROUP BY 1"#,
        order as OrderId,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.product_id.into(), row.units)).collect())
}

/// Writes what a refund is for, and returns it. `returned`: the units that go back into stock had left.
pub async fn describe(
    connection: &mut Connection,
    id: RefundId,
    request: &Request,
    returned: bool,
    actor: UserId,
    currency: Currency,
) -> sqlx::Result<View> {
    let restock =
        serde_json::to_value(&request.restock).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let row = sqlx::query!(
        "UPDATE orders.refunds SET reason = $2, restock = $3, actor = $4, returned = $5 WHERE id = $1
         RETURNING amount, status, created_at",
        id as RefundId,
        request.reason,
        restock,
        actor as UserId,
        returned,
    )
    .fetch_one(connection)
    .await?;
    Ok(View {
        id,
        amount: Money::new(row.amount, currency),
        status: RefundStatus::try_from(row.status)?,
        reason: request.reason.clone(),
        restock: request.restock.clone(),
        created_at: row.created_at,
    })
}

/// An order's refunds, newest first, older than `before`.
pub async fn page(
    connection: &mut Connection,
    order: OrderId,
    currency: Currency,
    before: Option<RefundId>,
    limit: i64,
) -> sqlx::Result<Vec<View>> {
    let rows = sqlx::query!(
        "SELECT id, amount, status, reason, restock, created_at FROM orders.refunds
         WHERE order_id = $1 AND id < COALESCE($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
         ORDER BY id DESC LIMIT $3",
        order as OrderId,
        before as Option<RefundId>,
        limit,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(View {
                id: row.id.into(),
                amount: Money::new(row.amount, currency),
                status: RefundStatus::try_from(row.status)?,
                reason: row.reason,
                restock: lines(row.restock)?,
                created_at: row.created_at,
            })
        })
        .collect()
}

fn lines(column: serde_json::Value) -> sqlx::Result<Vec<Line>> {
    serde_json::from_value(column).map_err(|error| sqlx::Error::Decode(error.into()))
}
