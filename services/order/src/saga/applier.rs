//! Applies reports in batches, each batch in one transaction.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use messaging::Outbox;
use service::batch::{Batcher, Overloaded, split};
use service::db::Pool;
use service::failpoint;
use tokio::time::{Instant, timeout_at};

use super::Refusal;
use super::facts::{self, Outcome, Report, Reported};
use super::measured;
use crate::events::stream::OrderStream;
use crate::times::Times;

/// Why a report was not applied, or why the outcome is not known.
#[derive(Debug, thiserror::Error)]
pub enum NotApplied {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("there is no such order")]
    UnknownOrder,
    #[error("too many facts wait to be applied")]
    Overloaded,
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

impl NotApplied {
    /// Whether the same report may be applied later.
    fn is_transient(&self) -> bool {
        match self {
            Self::Refused(_) | Self::UnknownOrder => false,
            Self::Overloaded => true,
            Self::Store(error) => service::db::is_transient(error),
        }
    }
}

pub struct Applier {
    batcher: Batcher<Report, sqlx::Result<Outcome>>,
    times: Times,
}

impl Applier {
    pub fn new(pool: Pool, outbox: Outbox, stream: OrderStream, times: Times) -> Self {
        let batcher = Batcher::spawn("facts", move |batch: Arc<Vec<Report>>| {
            let (pool, outbox, stream) = (pool.clone(), outbox.clone(), stream.clone());
            async move { apply(&pool, &outbox, &stream, &batch, &times).await }
        });
        Self { batcher, times }
    }

    pub async fn apply(&self, report: Report) -> Result<Reported, NotApplied> {
        match self.batcher.run(report).await {
            Ok(outcome) => match outcome? {
                Outcome::Applied(reported) => Ok(*reported),
                Outcome::Refused(refusal) => Err(refusal.into()),
                Outcome::UnknownOrder => Err(NotApplied::UnknownOrder),
            },
            Err(Overloaded) => Err(NotApplied::Overloaded),
        }
    }

    /// Tries a few times, not for longer than a lease: facts may be expensive to learn again.
    pub async fn apply_with_retries(&self, report: Report) -> Result<Reported, NotApplied> {
        let tries = async {
            for pause in [100, 500, 2000] {
                match self.apply(report.clone()).await {
                    Err(error) if error.is_transient() => {
                        tokio::time::sleep(Duration::from_millis(pause)).await;
                    }
                    done => return done,
                }
            }
            self.apply(report.clone()).await
        };
        timeout_at(Instant::now() + self.times.saga_lease, tries).await.unwrap_or(Err(NotApplied::Overloaded))
    }
}

/// All reports in one transaction; if one is bad, each by itself.
async fn apply(
    pool: &Pool,
    outbox: &Outbox,
    stream: &OrderStream,
    reports: &[Report],
    times: &Times,
) -> Vec<sqlx::Result<Outcome>> {
    let together = |part: Range<usize>| async move {
        let mut transaction = service::db::begin(pool).await?;
        let applied = facts::apply(&mut transaction, &reports[part], times).await?;
        failpoint::hit("order.saga.written").await?;
        transaction.commit().await?;
        measured::count(&applied.happened);
        failpoint::hit("order.saga.committed").await?;
        outbox.wake();
        stream.announce(&applied.moved);
        Ok::<_, sqlx::Error>(applied.outcomes)
    };
    split(reports.len(), together).await
}
