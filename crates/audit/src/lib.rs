//! Who did what: a row for each thing that staff do and for what matters to security, written in the
//! transaction of the change. It knows no shop: a service names the actor, the action and the object.
//!
//! Rows are only added, and the database enforces that ([`MIGRATIONS`]). A row has ids and the names of
//! fields, with their values before and after. Personal values are in a table of their own, from which
//! [`forget`] deletes them.

mod entry;
pub mod list;
mod store;

use std::time::Duration;

use service::Lifecycle;
use service::db::{Connection, Pool};
use sqlx::migrate::Migrator;
use uuid::Uuid;

pub use entry::{Actor, Entry};
pub use list::{Filters, Recorded};

/// The tables; run it before the service's own migrations.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// How long rows are kept.
#[derive(clap::Args, Clone, Debug)]
pub struct Settings {
    /// Days that the record of who did what is kept for. The database refuses to delete what is younger than 365.
    #[arg(long, env = "AUDIT_DAYS", default_value_t = 400, value_parser = clap::value_parser!(i32).range(366..=36_500))]
    pub audit_days: i32,
}

/// Writes an entry in the caller's transaction.
pub async fn record(connection: &mut Connection, entry: Entry) -> sqlx::Result<()> {
    store::insert(connection, &entry.finished()).await
}

/// Deletes the personal values of these people. What was done, and to which account, stays.
pub async fn forget(connection: &mut Connection, people: &[Uuid]) -> sqlx::Result<()> {
    if people.is_empty() {
        return Ok(());
    }
    store::forget(connection, people).await
}

/// Deletes what is too old, once an hour, until `lifecycle` stops.
pub fn start(pool: Pool, settings: &Settings, lifecycle: &Lifecycle) {
    let days = settings.audit_days;
    lifecycle.spawn_every("audit.retention", SWEEP_EVERY, move || {
        let pool = pool.clone();
        async move {
            store::sweep(&pool, days).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "retention.failed");
                false
            })
        }
    });
}
