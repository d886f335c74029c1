//! The SQL of tickets. Only their hashes are kept.

use identity::{Role, User};
use order_core::ids::OrderId;
use service::db::Pool;
use time::OffsetDateTime;

/// Expired tickets that are deleted whenever one is made: more than can have been made.
const MOST_EXPIRED: i64 = 100;

/// Writes a ticket of this hash, good for so many seconds and no longer than the user's token; returns until when.
pub async fn insert(
    pool: &Pool,
    hash: Vec<u8>,
    user: User,
    order: OrderId,
    seconds: f64,
) -> sqlx::Result<OffsetDateTime> {
    let good_until =
        OffsetDateTime::from_unix_timestamp(user.until).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query_scalar!(
        r#"WITH expired AS (
             DELETE FROM orders.stream_tickets WHERE hash IN (
                 SELECT hash FROM orders.stream_tickets WHERE expires_at < now()
                 ORDER BY expires_at LIMIT $8 FOR UPDATE SKIP LOCKED)
         )
         INSERT INTO orders.stream_tickets (hash, order_id, user_id, session_id, role, good_until, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, LEAST($6, now() + make_interval(secs => $7)))
         RETURNING expires_at"#,
        hash,
        order as OrderId,
        user.id,
        user.session,
        user.role.as_str(),
        good_until,
        seconds,
        MOST_EXPIRED,
    )
    .fetch_one(&mut *pool.acquire().await?)
    .await
}

/// Deletes the ticket, and returns whose it was; `None` where there is none that is good for this order.
pub async fn take(pool: &Pool, hash: Vec<u8>, order: OrderId) -> sqlx::Result<Option<User>> {
    let row = sqlx::query!(
        r#"DELETE FROM orders.stream_tickets WHERE hash = $1 AND order_id = $2
           RETURNING user_id, session_id, role, good_until, expires_at > now() AS "is_good!""#,
        hash,
        order as OrderId,
    )
    .fetch_optional(&mut *pool.acquire().await?)
    .await?;
    let Some(row) = row.filter(|row| row.is_good) else { return Ok(None) };
    let role: Role = row.role.parse().map_err(|error: String| sqlx::Error::Decode(error.into()))?;
    let until = row.good_until.unix_timestamp();
    Ok(Some(User { id: row.user_id, role, session: row.session_id, until }))
}
