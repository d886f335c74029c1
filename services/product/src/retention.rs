//! What has run out goes, a bounded number of rows at a time.

use std::time::Duration;

use service::db::Pool;
use service::{Lifecycle, idempotency};

const EVERY: Duration = Duration::from_secs(60);

pub fn start(pool: Pool, lifecycle: &Lifecycle) {
    let stop = lifecycle.stopping();
    lifecycle.spawn("retention", async move {
        loop {
            // After a full batch there is probably more.
            while !stop.is_cancelled() {
                match sweep(&pool).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(%error, "retention.failed");
                        break;
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    });
}

/// True when there may be more.
async fn sweep(pool: &Pool) -> sqlx::Result<bool> {
    idempotency::sweep(&mut *pool.acquire().await?).await
}
