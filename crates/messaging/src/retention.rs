//! Old rows of outbox and inbox go, a bounded number at a time.

use std::time::Duration;

use service::db::Pool;
use tokio_util::sync::CancellationToken;

/// As in the statements below.
const BATCH: u64 = 10_000;

const EVERY: Duration = Duration::from_secs(60);

pub(crate) async fn run(pool: &Pool, stop: &CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        // As long as there is a full batch, there is probably more.
        while !stop.is_cancelled() {
            match sweep(pool).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(%error, "retention.failed");
                    break;
                }
            }
        }
    }
}

/// Whether a full batch was deleted. Inbox rows outlive the outbox rows that
/// could be replayed.
async fn sweep(pool: &Pool) -> sqlx::Result<bool> {
    let sent = sqlx::query!(
        "DELETE FROM outbox WHERE id IN (
             SELECT id FROM outbox WHERE published_at < now() - interval '7 days' LIMIT 10000)"
    )
    .execute(pool)
    .await?;
    let applied = sqlx::query!(
        "DELETE FROM inbox WHERE (consumer, event_id) IN (
             SELECT consumer, event_id FROM inbox WHERE applied_at < now() - interval '30 days' LIMIT 10000)"
    )
    .execute(pool)
    .await?;
    Ok(sent.rows_affected().max(applied.rows_affected()) == BATCH)
}
