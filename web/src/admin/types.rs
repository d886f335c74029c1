//! The API's answers for staff.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::api::types::{Account, Money, Product};

#[derive(Clone, Deserialize)]
pub struct StaffProduct {
    #[serde(flatten)]
    pub product: Product,
    /// Of one in the shop the API says nothing.
    #[serde(default = "published")]
    pub status: String,
}

fn published() -> String {
    "published".to_owned()
}

#[derive(Deserialize)]
pub struct StockEntry {
    pub delta: i32,
    pub on_hand: i32,
    pub kind: String,
    pub reason: Option<String>,
    pub order_id: Option<Uuid>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

#[derive(Deserialize)]
pub struct Note {
    pub text: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// How an order's saga went.
#[derive(Deserialize)]
pub struct Saga {
    pub phase: String,
    pub intent_id: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub next_at: Option<OffsetDateTime>,
    pub attempts: u32,
    #[serde(with = "time::serde::rfc3339::option")]
    pub waiting_since: Option<OffsetDateTime>,
    pub steps: Vec<SagaStep>,
    pub waiting_events: Vec<WaitingEvent>,
}

#[derive(Deserialize)]
pub struct SagaStep {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    pub kind: String,
    /// Of the order, or of a refund.
    pub status: Option<String>,
    pub payment: Option<String>,
    pub amount: Option<Money>,
    pub made_by: Option<String>,
    pub provider_id: Option<String>,
    pub event: Option<String>,
}

#[derive(Deserialize)]
pub struct WaitingEvent {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    pub attempts: u32,
}

#[derive(Deserialize)]
pub struct Managed {
    pub id: Uuid,
    #[serde(flatten)]
    pub account: Account,
    pub disabled: bool,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

#[derive(Deserialize)]
pub struct ImportReport {
    pub created: u64,
    pub updated: u64,
    pub unchanged: u64,
    pub failed: u64,
    #[serde(default)]
    pub dry_run: bool,
    pub profile: Option<String>,
    pub errors: Vec<ImportError>,
    #[serde(default)]
    pub left_out: BTreeMap<String, u64>,
    pub rejected: Option<String>,
}

#[derive(Deserialize)]
pub struct ImportError {
    pub line: u64,
    pub column: Option<String>,
    pub detail: String,
}

#[derive(Deserialize)]
pub struct ImportProgress {
    pub status: String,
    pub lines: u64,
    pub bytes: u64,
    pub created: u64,
    pub updated: u64,
    pub unchanged: u64,
    pub failed: u64,
}

/// Something that was done.
#[derive(Deserialize)]
pub struct Audited {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    pub actor: Option<Uuid>,
    pub role: Option<String>,
    pub action: String,
    pub object: AuditObject,
    pub changes: Vec<Changed>,
}

#[derive(Deserialize)]
pub struct AuditObject {
    pub kind: String,
    pub id: Option<String>,
}

#[derive(Deserialize)]
pub struct Changed {
    pub field: String,
    /// Left out of a value that is not kept, which is something else than null.
    #[serde(default, deserialize_with = "present")]
    pub before: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub after: Option<Value>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}
