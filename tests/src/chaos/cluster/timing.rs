//! How long the shop took, read from what it has written: an order's events bear the time of their commits.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Shop;

const DEADLINE: Duration = Duration::from_secs(3);

/// Seconds, the longest since the fault, in which no order was confirmed. None: the database could not be asked.
pub async fn pause(shop: &Shop, fault: SystemTime) -> Option<f64> {
    let sql = "
        SELECT EXTRACT(epoch FROM max(pause))::float8
        FROM (SELECT at - lag(at) OVER (ORDER BY at) AS pause
              FROM (SELECT created_at AS at FROM orders.outbox
                    WHERE type = 'order.confirmed.v1' AND created_at > to_timestamp($1)
                    UNION ALL SELECT to_timestamp($1) UNION ALL SELECT now()) AS times) AS pauses";
    let asked = sqlx::query_scalar(sql).bind(seconds(fault)).fetch_one(&shop.database);
    tokio::time::timeout(DEADLINE, asked).await.ok()?.ok()
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Seconds from `writable`, when a primary could be written to again, until the first order that was placed after it was confirmed,
/// and until every order that was placed before it since the fault had ended. None: not yet, or the database could not be asked.
pub async fn read(
    shop: &Shop,
    fault: SystemTime,
    writable: SystemTime,
) -> Option<(Option<f64>, Option<f64>)> {
    // Each table once: the outbox has no index by order, and a run's is long.
    let sql = "
        WITH announced AS MATERIALIZED (
            SELECT aggregate_id AS id, min(created_at) FILTER (WHERE type = 'order.confirmed.v1') AS confirmed,
                   min(created_at) AS ended
            FROM orders.outbox
            WHERE created_at > to_timestamp($1) - interval '20 s'
              AND type IN ('order.confirmed.v1', 'order.cancelled.v1')
            GROUP BY aggregate_id
        ), ends AS MATERIALIZED (
            SELECT o.placed_at, announced.confirmed, announced.ended
            FROM orders.orders o LEFT JOIN announced USING (id) WHERE o.placed_at > to_timestamp($1) - interval '15 s')
        SELECT (SELECT EXTRACT(epoch FROM min(confirmed) - to_timestamp($2))::float8
                FROM ends WHERE placed_at >= to_timestamp($2)),
               (SELECT CASE WHEN count(*) = count(ended)
                       THEN COALESCE(GREATEST(EXTRACT(epoch FROM max(ended) - to_timestamp($2)), 0), 0)::float8 END
                FROM ends WHERE placed_at < to_timestamp($2))";
    let asked = sqlx::query_as(sql).bind(seconds(fault)).bind(seconds(writable)).fetch_one(&shop.database);
    tokio::time::timeout(DEADLINE, asked).await.ok()?.ok()
}
