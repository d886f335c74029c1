//! The SQL of notes.

use order_core::ids::{NoteId, OrderId, UserId};
use service::db::Connection;
use uuid::Uuid;

use super::Note;

/// Writes a note, and returns it. With a key that its author has used for the order it returns the earlier
/// note. None if the order's customer is erased, as the note would have to be erased too.
pub async fn add(
    connection: &mut Connection,
    id: NoteId,
    order: OrderId,
    author: UserId,
    text: &str,
    key: Option<&str>,
) -> sqlx::Result<Option<Note>> {
    // The order is locked, so that an erasure comes before or after this. An existing note is locked and left
    // as it is, so that it is returned too.
    sqlx::query_as!(
        Note,
        "INSERT INTO orders.notes (id, order_id, author, text, key)
         SELECT $1, o.id, $3, $4, $5
         FROM (SELECT id FROM orders.orders WHERE id = $2 AND shipping_address IS NOT NULL FOR SHARE) o
         ON CONFLICT (order_id, author, key) DO UPDATE SET key = EXCLUDED.key
         RETURNING id, author, text, created_at",
        id as NoteId,
        order as OrderId,
        author as UserId,
        text,
        key,
    )
    .fetch_optional(connection)
    .await
}

/// An order's notes, newest first, older than `before`.
pub async fn page(
    connection: &mut Connection,
    order: OrderId,
    before: Option<NoteId>,
    limit: i64,
) -> sqlx::Result<Vec<Note>> {
    sqlx::query_as!(
        Note,
        "SELECT id, author, text, created_at FROM orders.notes
         WHERE order_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
        order as OrderId,
        before.map_or(Uuid::max(), Uuid::from),
        limit,
    )
    .fetch_all(connection)
    .await
}
