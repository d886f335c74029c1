//! Orders that have a call to make.

use serde::Serialize;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

#[derive(Clone, Debug, FromRow, Serialize)]
pub struct Saga {
    pub order_id: Uuid,
    pub status: String,
    pub phase: String,
    pub payment: String,
    /// Calls in vain since the last one that brought it on.
    pub attempts: i32,
    /// When the next call is due, UTC.
    pub next_at: String,
    /// Seconds that it has been due for; negative when it is not due yet.
    pub due_seconds: f64,
    /// Seconds that its worker's lease still holds; 0 when nobody works on it.
    pub lease_seconds: f64,
    /// Seconds since the order was placed.
    pub age_seconds: f64,
    /// What the provider said and nobody has followed up yet.
    pub unread_news: i64,
}

/// What makes a saga stuck.
#[derive(Clone, Copy, Debug)]
pub struct Stuck {
    /// Due for longer than this.
    pub older_seconds: f64,
    /// Or tried in vain more often than this.
    pub attempts: i32,
}

/// The sagas that have something to do, longest due first; with `stuck`, only
/// those that are.
pub async fn list(database: &PgPool, stuck: Option<Stuck>, limit: i64) -> sqlx::Result<Vec<Saga>> {
    sqlx::query_as(
        r#"SELECT s.order_id, o.status, s.phase, o.payment_status AS payment, s.attempts,
                  to_char(s.next_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS next_at,
                  EXTRACT(epoch FROM now() - s.next_at)::float8 AS due_seconds,
                  CASE WHEN s.lease_until > now()
                       THEN EXTRACT(epoch FROM s.lease_until - now())::float8 ELSE 0 END AS lease_seconds,
                  EXTRACT(epoch FROM now() - o.placed_at)::float8 AS age_seconds,
                  s.news - s.news_read AS unread_news
           FROM orders.sagas s JOIN orders.orders o ON o.id = s.order_id
           WHERE (s.busy OR s.news > s.news_read)
             AND ($1::float8 IS NULL OR s.next_at < now() - make_interval(secs => $1) OR s.attempts > $2)
           ORDER BY s.next_at LIMIT $3"#,
    )
    .bind(stuck.map(|stuck| stuck.older_seconds))
    .bind(stuck.map(|stuck| stuck.attempts))
    .bind(limit)
    .fetch_all(database)
    .await
}

/// Reschedules the order's saga, and has it ask about the payment again; false when there is no such order.
/// Safe at any time: it only makes the saga ask.
pub async fn reschedule(database: &PgPool, order: Uuid) -> sqlx::Result<bool> {
    let statement = "UPDATE orders.sagas SET news = news + 1, next_at = now() WHERE order_id = $1";
    Ok(sqlx::query(statement).bind(order).execute(database).await?.rows_affected() == 1)
}
