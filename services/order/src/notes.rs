//! What staff note of orders.

pub mod store;

use order_core::ids::{NoteId, UserId};
use serde::Serialize;
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
