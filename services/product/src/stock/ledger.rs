//! The ledger: every change of what is on hand, and why.

pub mod store;

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// Why stock changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, sqlx::Type, ToSchema)]
#[schema(as = StockEntryKind)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Kind {
    /// What the product started with.
    Initial,
    /// By staff.
    Adjustment,
    /// An order's reservation was committed.
    Sale,
    /// An order that was sold was cancelled, or refunded with its goods returned.
    Restock,
}

/// An entry as the API shows it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = StockEntry)]
pub struct Entry {
    pub id: Uuid,
    pub product_id: Uuid,
    /// Grows with every entry of the product: `stock_if_version` of an import names the newest.
    #[serde(rename = "version")]
    #[schema(rename = "version", minimum = 1)]
    pub seq: i64,
    pub delta: i32,
    /// What was on hand after it.
    #[schema(minimum = 0)]
    pub on_hand: i32,
    pub kind: Kind,
    /// What staff gave as the reason.
    #[schema(required)]
    pub reason: Option<String>,
    #[schema(required)]
    pub order_id: Option<Uuid>,
    /// The user who made the adjustment.
    #[schema(required)]
    pub actor: Option<Uuid>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
}

/// A change of several products' stock for a reason of the shop's own.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub product_id: Uuid,
    pub delta: i32,
    pub on_hand: i32,
    pub order_id: Option<Uuid>,
}
