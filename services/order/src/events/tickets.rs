//! One-time tickets for an order's stream. A browser's `EventSource` sends no `Authorization` header, and an access token
//! has no place in an address: addresses are logged.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use identity::User;
use order_core::ids::OrderId;
use serde::Serialize;
use service::db::Pool;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::ticket_store;

/// How long an unused ticket is good.
const LIFE_SECONDS: f64 = 60.0;

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
    let expires_at = ticket_store::insert(pool, hash(&ticket), user, order, LIFE_SECONDS).await?;
    Ok(Ticket { ticket, expires_at })
}

/// The user who got the ticket; `None` when it is not for this order, was used, or has expired.
pub async fn redeem(pool: &Pool, ticket: &str, order: OrderId) -> sqlx::Result<Option<User>> {
    ticket_store::take(pool, hash(ticket), order).await
}

fn hash(ticket: &str) -> Vec<u8> {
    Sha256::digest(ticket).to_vec()
}
