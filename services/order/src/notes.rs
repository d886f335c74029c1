//! Notes that staff write about orders.

pub mod store;

use audit::Entry;
use identity::User;
use order_core::ids::{NoteId, OrderId, UserId};
use serde::Serialize;
use service::db::Pool;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

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

/// Why no note is written.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    #[error("the order's customer is forgotten, and so would be what is noted")]
    CustomerForgotten,
    #[error("the key is of another note")]
    KeyReused,
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

/// Adds a note to an order, and returns it. If its author has used the key for this order, it is the earlier
/// note.
pub async fn add(
    pool: &Pool,
    order: OrderId,
    author: User,
    text: &str,
    key: Option<&str>,
) -> Result<Note, NoteError> {
    let id = NoteId::from(Uuid::now_v7());
    let mut transaction = service::db::begin(pool).await?;
    let note = store::add(&mut transaction, id, order, author.id.into(), text, key).await?;
    let note = note.ok_or(NoteError::CustomerForgotten)?;
    if note.id == id {
        // The text is in the note, as long as that is kept.
        let entry = Entry::new(author, "note.added", "order", order).field("note", (), id);
        audit::record(&mut transaction, entry).await?;
    }
    transaction.commit().await?;
    if note.text == text { Ok(note) } else { Err(NoteError::KeyReused) }
}
