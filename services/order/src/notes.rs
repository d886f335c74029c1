//! What staff note of orders.

pub mod store;

use order_core::ids::{NoteId, OrderId, UserId};
use serde::Serialize;
use service::db::Pool;
use time::OffsetDateTime;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
pub struct Note {
    #[schema(inline)]
    pub id: NoteId,
    /// Who of the staff wrote it.
    #[schema(inline)]
    pub author: UserId,
    pub text: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
}

/// Why nothing is noted.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    #[error("the order's customer is forgotten, and so would be what is noted")]
    CustomerForgotten,
    #[error("the key is of another note")]
    KeyReused,
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

/// Notes something of an order, and returns the note. With a key that its author has used for the order it is the one
/// from then.
pub async fn add(
    pool: &Pool,
    order: OrderId,
    author: UserId,
    text: &str,
    key: Option<&str>,
) -> Result<Note, NoteError> {
    let note = store::add(&mut *pool.acquire().await?, order, author, text, key).await?;
    let note = note.ok_or(NoteError::CustomerForgotten)?;
    if note.text == text { Ok(note) } else { Err(NoteError::KeyReused) }
}
