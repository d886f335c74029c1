//! Expired rows are deleted, a bounded number at a time.

use std::time::Duration;

use service::db::Pool;
use service::{Lifecycle, idempotency};

use crate::{device, notification, quota, reset, session, throttle, verification};

const EVERY: Duration = Duration::from_secs(60);

pub(crate) fn start(pool: Pool, lifecycle: &Lifecycle) {
    lifecycle.spawn_every("retention", EVERY, move || {
        let pool = pool.clone();
        async move {
            sweep(&pool).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "retention.failed");
                false
            })
        }
    });
}

/// True when there may be more.
async fn sweep(pool: &Pool) -> sqlx::Result<bool> {
    let mut connection = pool.acquire().await?;
    let sessions = session::sweep(&mut connection).await?;
    let failures = throttle::sweep(&mut connection).await?;
    let notifications = notification::sweep(&mut connection).await?;
    let resets = reset::sweep(&mut connection).await?;
    let quotas = quota::sweep(&mut connection).await?;
    let verifications = verification::sweep(&mut connection).await?;
    let devices = device::sweep(&mut connection).await?;
    let keys = idempotency::sweep(&mut connection).await?;
    Ok(sessions || failures || notifications || resets || quotas || verifications || devices || keys)
}
