//! What has run out goes, a bounded number of rows at a time.

use std::time::Duration;

use service::Lifecycle;
use service::db::Pool;

use crate::{notification, session, throttle};

const EVERY: Duration = Duration::from_secs(60);

pub(crate) fn start(pool: Pool, lifecycle: &Lifecycle) {
    let stop = lifecycle.stopping();
    lifecycle.spawn("retention", async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(EVERY) => {}
            }
            if let Err(error) = sweep(&pool).await {
                tracing::warn!(%error, "retention.failed");
            }
        }
    });
}

async fn sweep(pool: &Pool) -> sqlx::Result<()> {
    let mut connection = pool.acquire().await?;
    session::sweep(&mut connection).await?;
    throttle::sweep(&mut connection).await?;
    notification::sweep(&mut connection).await
}
