//! Measures how many sagas are at each phase, and how many make no progress.

use std::time::Duration;

use service::Pulse;
use service::db::Pool;
use service::telemetry::{gauge, label};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Phase, store};

const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// Counts until `stop`, for all replicas.
pub async fn run(pool: Pool, stop: CancellationToken, pulse: Pulse) {
    let open = gauge("sagas.open", "{saga}", "Sagas with work left.");
    let stuck =
        gauge("sagas.stuck", "{saga}", "Sagas due for more than a minute, or tried in vain for long.");
    let waiting = gauge("sagas.waiting_for_customer", "{saga}", "Sagas that wait for the customer's bank.");
    let description = "Time that the oldest order in work has waited to be paid and sold, or settled; the customer's bank not counted.";
    let oldest = gauge("sagas.oldest_age", "s", description);
    loop {
        pulse.beat();
        match timeout(MEASURE_EVERY, store::open(&pool)).await {
            Ok(Ok(rows)) => {
                for phase in Phase::ALL {
                    let row = rows.iter().find(|row| row.phase == phase.as_str());
                    let count = row.map_or(0, |row| row.open);
                    open.record(count as f64, &[label("phase", phase.as_str())]);
                }
                stuck.record(rows.iter().map(|row| row.stuck).sum::<i64>() as f64, &[]);
                waiting.record(rows.iter().map(|row| row.waiting).sum::<i64>() as f64, &[]);
                // A refund may be of an order that was confirmed long ago.
                let later = [Phase::Confirmed, Phase::Refunding, Phase::Settled].map(Phase::as_str);
                let ages = rows.iter().filter(|row| !later.contains(&row.phase.as_str()));
                oldest.record(ages.map(|row| row.oldest_seconds).fold(0.0, f64::max), &[]);
            }
            Ok(Err(error)) => tracing::debug!(%error, "sagas.not_measured"),
            Err(_) => tracing::debug!("sagas.not_measured_in_time"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(MEASURE_EVERY) => {}
        }
    }
}
