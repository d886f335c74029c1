//! Old rows of outbox and inbox go, a bounded number at a time.

use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(60);

pub(crate) async fn run(pool: &PgPool, stop: &CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(error) = sweep(pool).await {
            tracing::warn!(%error, "retention.failed");
        }
    }
}

/// Inbox rows outlive the outbox rows that could be replayed.
async fn sweep(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM outbox WHERE id IN (
             SELECT id FROM outbox WHERE published_at < now() - interval '7 days' LIMIT 10000)"
    )
    .execute(pool)
    .await?;
    sqlx::query!(
        "DELETE FROM inbox WHERE (consumer, event_id) IN (
             SELECT consumer, event_id FROM inbox WHERE applied_at < now() - interval '30 days' LIMIT 10000)"
    )
    .execute(pool)
    .await?;
    Ok(())
}
