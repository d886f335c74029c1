//! What has run out goes, a bounded number of rows at a time.

use std::time::Duration;

use service::db::Pool;
use service::{Lifecycle, idempotency};

use crate::{notification, reset, session, throttle};

const EVERY: Duration = Duration::from_secs(60);

pub(crate) fn start(pool: Pool, lifecycle: &Lifecycle) {
    let stop = lifecycle.stopping();
    lifecycle.spawn_worker("retention", |pulse| async move {
        loop {
            // After a full batch there is probably more.
            while !stop.is_cancelled() {
                pulse.beat();
                match sweep(&pool).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(%error, "retention.failed");
                        break;
                    }
                }
            }
            if pulse.rest(stop.run_until_cancelled(tokio::time::sleep(EVERY))).await.is_none() {
                return;
            }
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
    let keys = idempotency::sweep(&mut connection).await?;
    Ok(sessions || failures || notifications || resets || keys)
}
