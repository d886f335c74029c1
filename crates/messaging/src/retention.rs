//! Old rows of outbox and inbox are deleted, a bounded number at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use service::Pulse;
use service::db::Pool;
use tokio_util::sync::CancellationToken;

/// As in the statements below.
const BATCH: u64 = 10_000;
/// And the most batches in one pass.
const BATCHES: usize = 30;

const EVERY: Duration = Duration::from_secs(60);

/// How long an applied event is remembered; as in the statement below.
pub const INBOX_REMEMBERS: Duration = Duration::from_secs(30 * 24 * 3600);

pub(crate) async fn run(
    pool: &Pool,
    consumer: &str,
    caught_up: &AtomicBool,
    stop: &CancellationToken,
    pulse: &Pulse,
) {
    while pulse.rest(stop.run_until_cancelled(tokio::time::sleep(EVERY))).await.is_some() {
        let swept: sqlx::Result<()> = async {
            sweep(BATCHES, stop, pulse, || prune_outbox(pool)).await?;
            // A consumer that was down for long may still get events that it had applied and not
            // acknowledged.
            if caught_up.swap(false, Ordering::Relaxed) {
                sweep(BATCHES, stop, pulse, || prune_inbox(pool, consumer)).await?;
            }
            Ok(())
        }
        .await;
        if let Err(error) = swept {
            tracing::warn!(%error, "retention.failed");
        }
    }
}

/// As long as there is a full batch, there is probably more.
async fn sweep<F>(
    batches: usize,
    stop: &CancellationToken,
    pulse: &Pulse,
    prune: impl Fn() -> F,
) -> sqlx::Result<()>
where
    F: Future<Output = sqlx::Result<bool>>,
{
    for _ in 0..batches {
        pulse.beat();
        if stop.is_cancelled() || !prune().await? {
            break;
        }
    }
    Ok(())
}

/// Whether a full batch was deleted.
async fn prune_outbox(pool: &Pool) -> sqlx::Result<bool> {
    let sent = sqlx::query!(
        "DELETE FROM outbox WHERE id IN (
             SELECT id FROM outbox WHERE published_at < now() - interval '7 days' LIMIT 10000)"
    )
    .execute(pool)
    .await?;
    Ok(sent.rows_affected() == BATCH)
}

/// Whether a full batch was deleted. The same statement records it in `inbox_pruned`: this separates an event
/// that may have been applied long ago from one that has only waited for long. The time in the id counts,
/// too, as its maker's clock may be ahead: nothing younger than 30 days is ever doubted.
pub(crate) async fn prune_inbox(pool: &Pool, consumer: &str) -> sqlx::Result<bool> {
    let pruned = sqlx::query_scalar!(
        r#"WITH old AS (
               SELECT event_id FROM inbox
               WHERE consumer = $1 AND applied_at < now() - interval '30 days'
                 AND event_id < (lpad(to_hex((EXTRACT(epoch FROM now() - interval '30 days') * 1000)::bigint), 12, '0')
                                 || repeat('0', 20))::uuid
               ORDER BY applied_at LIMIT 10000 FOR UPDATE SKIP LOCKED
           ), gone AS (
               DELETE FROM inbox USING old
               WHERE inbox.consumer = $1 AND inbox.event_id = old.event_id
               RETURNING inbox.event_id
           )
           INSERT INTO inbox_pruned (consumer, up_to)
           SELECT $1, event_id FROM gone ORDER BY event_id DESC LIMIT 1
           ON CONFLICT (consumer) DO UPDATE SET up_to = GREATEST(inbox_pruned.up_to, EXCLUDED.up_to)
           RETURNING (SELECT count(*) FROM gone) AS "pruned!""#,
        consumer,
    )
    .fetch_optional(pool)
    .await?;
    Ok(pruned == Some(BATCH as i64))
}
