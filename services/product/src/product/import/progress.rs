//! How far an import is: a row that the import writes while it runs, and that any replica can read.

pub mod store;

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// Whether an import still runs. `failed`: it ended early. `lost`: it has not been heard of for a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, sqlx::Type, ToSchema)]
#[schema(as = ImportStatus)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Status {
    Running,
    Done,
    Failed,
    Lost,
}

/// What an import has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// The last line that is dealt with.
    pub lines: u64,
    /// Bytes of the file that have come.
    pub bytes: u64,
    pub created: u64,
    pub updated: u64,
    pub unchanged: u64,
    pub failed: u64,
}

/// How far an import is.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ImportProgress)]
pub struct Progress {
    pub id: Uuid,
    pub status: Status,
    /// The last line that is dealt with.
    #[schema(minimum = 0)]
    pub lines: i64,
    /// How much of the file has come.
    #[schema(minimum = 0)]
    pub bytes: i64,
    #[schema(minimum = 0)]
    pub created: i64,
    /// Lines whose product was there before.
    #[schema(minimum = 0)]
    pub updated: i64,
    /// Those of `updated` that changed nothing.
    #[schema(minimum = 0)]
    pub unchanged: i64,
    #[schema(minimum = 0)]
    pub failed: i64,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub started_at: OffsetDateTime,
    /// When the import was last heard of.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: OffsetDateTime,
}
