//! The SQL by which replicas learn that orders have changed.

use order_core::ids::OrderId;
use service::db::Pool;

/// Sends a message to all listeners of the channel.
pub async fn notify(pool: &Pool, channel: &str, message: &str) -> sqlx::Result<()> {
    sqlx::query_scalar!(r#"SELECT pg_notify($1, $2)::text AS "sent""#, channel, message)
        .fetch_one(pool)
        .await?;
    Ok(())
}

/// Those of the orders that have a later version than the one at their place in `versions`.
pub async fn changed(pool: &Pool, ids: &[OrderId], versions: &[i64]) -> sqlx::Result<Vec<OrderId>> {
    sqlx::query_scalar!(
        r#"SELECT o.id AS "id!: OrderId" FROM orders.orders o
               JOIN UNNEST($1::uuid[], $2::bigint[]) AS k (id, version) ON o.id = k.id
               WHERE o.version > k.version"#,
        ids as &[OrderId],
        versions,
    )
    .fetch_all(pool)
    .await
}
