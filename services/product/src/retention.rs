//! Expired rows are deleted, a bounded number at a time.

use std::time::Duration;

use service::db::Pool;
use service::{Lifecycle, idempotency};

use crate::product::import;
use crate::stock::{self, Lives};

const EVERY: Duration = Duration::from_secs(60);
/// Reservations that one transaction deletes.
const BATCH: i64 = 1000;

pub fn start(pool: Pool, lives: Lives, lifecycle: &Lifecycle) {
    lifecycle.spawn_every("retention", EVERY, move || {
        let pool = pool.clone();
        async move {
            sweep(&pool, lives).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "retention.failed");
                false
            })
        }
    });
}

/// True when there may be more.
async fn sweep(pool: &Pool, lives: Lives) -> sqlx::Result<bool> {
    let keys = idempotency::sweep(&mut *pool.acquire().await?).await?;
    let mut transaction = service::db::begin(pool).await?;
    let reservations = stock::forget(&mut transaction, lives.ended_days, BATCH).await?;
    transaction.commit().await?;
    let changes = import::forget_changes(&mut *pool.acquire().await?).await?;
    let imports = import::progress::store::forget(&mut *pool.acquire().await?).await?;
    Ok(keys || reservations as i64 == BATCH || changes || imports)
}
