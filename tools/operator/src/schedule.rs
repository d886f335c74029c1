//! `reconcile` on a schedule: its outcomes as lines of a log, once or again and again.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use operator::reconcile::Report;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing_subscriber::EnvFilter;

/// Of one comparison, where the next is not due before.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

/// JSON on standard output, as the services write it. Its queries are slow by nature, so sqlx does not warn of them.
pub fn start_log() {
    let filter = EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info,lapin=warn,sqlx=error"));
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).init();
}

/// A line for each difference, and one for the outcome.
pub fn log(outcome: &Result<Report>) {
    let report = match outcome {
        Ok(report) => report,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "reconcile.failed");
            return;
        }
    };
    for one in &report.differences {
        let (about, remedy) = (format!("{:?}", one.about).to_lowercase(), one.remedy.to_string());
        tracing::error!(about, id = %one.id, what = one.what, remedy, "reconcile.difference");
    }
    let Report { orders, payments, products, events, .. } = report;
    match report.differences.len() {
        0 => tracing::info!(differences = 0, orders, payments, products, events, "reconcile.agrees"),
        differences => {
            tracing::error!(differences, orders, payments, products, events, "reconcile.differs");
        }
    }
}

/// Compares now and after each `every`, and logs what comes of it, until `stop`. A comparison never runs beside another:
/// it is cut short when the next one is due, or after its deadline.
pub async fn repeat<F>(every: Duration, stop: impl Future<Output = ()>, mut compare: impl FnMut() -> F)
where
    F: Future<Output = Result<Report>>,
{
    let deadline = every.min(DEADLINE);
    let mut stop = pin!(stop);
    let mut due = interval(every);
    due.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let next = async {
            due.tick().await;
            let late = |_| Err(anyhow!("not done within {} s", deadline.as_secs()));
            timeout(deadline, compare()).await.unwrap_or_else(late)
        };
        tokio::select! {
            biased;
            () = &mut stop => return,
            outcome = next => log(&outcome),
        }
    }
}

/// Ends when the process gets a signal to stop.
pub fn stop_signal() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use anyhow::bail;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_comparison_that_fails_or_hangs_is_followed_by_the_next_until_its_signal() {
        let (sender, signal) = oneshot::channel::<()>();
        let (mut sender, mut count) = (Some(sender), 0);
        let compare = || {
            count += 1;
            let nth = count;
            if nth == 4 {
                drop(sender.take());
            }
            async move {
                match nth {
                    1 => bail!("the database does not answer"),
                    // The last one is under way when the signal comes.
                    2 | 4 => pending().await,
                    _ => Ok(Report::default()),
                }
            }
        };
        let stop = async { signal.await.unwrap_or_default() };
        repeat(Duration::from_millis(10), stop, compare).await;
        assert_eq!(count, 4);
    }
}
