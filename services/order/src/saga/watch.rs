//! Measures how many sagas get nowhere.

use std::time::Duration;

use service::db::Pool;
use service::{Pulse, telemetry};
use tokio_util::sync::CancellationToken;

const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// Counts until `stop` the sagas that have been due for more than a minute, or have been tried in vain for long.
pub async fn run(pool: Pool, stop: CancellationToken, pulse: Pulse) {
    let stuck = telemetry::gauge("sagas.stuck");
    loop {
        pulse.beat();
        match count(&pool).await {
            Ok(count) => stuck.record(count as f64, &[]),
            Err(error) => tracing::debug!(%error, "sagas.not_measured"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(MEASURE_EVERY) => {}
        }
    }
}

async fn count(pool: &Pool) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM orders.sagas
           WHERE (busy OR news > news_read) AND (next_at < now() - interval '1 minute' OR attempts > 20)"#
    )
    .fetch_one(pool)
    .await
}
