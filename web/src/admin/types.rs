//! What the API tells staff.

use std::collections::BTreeMap;

use serde::Deserialize;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::api::types::{Account, Product};

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
