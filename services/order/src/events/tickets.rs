//! One-time tickets for an order's stream. A browser's `EventSource` sends no `Authorization` header, and an access token
//! has no place in an address: addresses are logged.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use identity::{Role, User};
use order_core::ids::OrderId;
use serde::Serialize;
use service::db::Pool;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// Until a ticket that nobody used is worth nothing.
const LIFE_SECONDS: f64 = 60.0;

/// Expired tickets that are deleted whenever one is made: more than can have been made.
const MOST_EXPIRED: i64 = 100;

/// A ticket for one request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StreamTicket)]
pub struct Ticket {
    /// For `?ticket=` of the order's events, once.
    #[schema(min_length = 43, max_length = 43, pattern = "^[A-Za-z0-9_-]+$")]
    ticket: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    expires_at: OffsetDateTime,
}

/// Makes a ticket for this order, which `user` may see.
pub async fn issue(pool: &Pool, user: User, order: OrderId) -> sqlx::Result<Ticket> {
    let ticket = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let good_until =
        OffsetDateTime::from_unix_timestamp(user.until).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let expires_at = sqlx::query_scalar!(
        r#"WITH expired AS (
             DELETE FROM orders.stream_tickets WHERE hash IN (
                 SELECT hash FROM orders.stream_tickets WHERE expires_at < now()
                 ORDER BY expires_at LIMIT $8 FOR UPDATE SKIP LOCKED)
         )
         INSERT INTO orders.stream_tickets (hash, order_id, user_id, session_id, role, good_until, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, LEAST($6, now() + make_interval(secs => $7)))
         RETURNING expires_at"#,
        hash(&ticket),
        order as OrderId,
        user.id,
        user.session,
        user.role.as_str(),
        good_until,
        LIFE_SECONDS,
        MOST_EXPIRED,
    )
    .fetch_one(&mut *pool.acquire().await?)
    .await?;
    Ok(Ticket { ticket, expires_at })
}

/// Who got the ticket; `None` when it is not for this order, was used, or has expired.
pub async fn redeem(pool: &Pool, ticket: &str, order: OrderId) -> sqlx::Result<Option<User>> {
    let row = sqlx::query!(
        r#"DELETE FROM orders.stream_tickets WHERE hash = $1 AND order_id = $2
           RETURNING user_id, session_id, role, good_until, expires_at > now() AS "is_good!""#,
        hash(ticket),
        order as OrderId,
    )
    .fetch_optional(&mut *pool.acquire().await?)
    .await?;
    let Some(row) = row.filter(|row| row.is_good) else { return Ok(None) };
    let role: Role = row.role.parse().map_err(|error: String| sqlx::Error::Decode(error.into()))?;
    let until = row.good_until.unix_timestamp();
    Ok(Some(User { id: row.user_id, role, session: row.session_id, until }))
}

fn hash(ticket: &str) -> Vec<u8> {
    Sha256::digest(ticket).to_vec()
}
