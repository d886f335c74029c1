//! The progress of an import, for clients that ask: it is written once a second.
//!
//! The answer to POST cannot show it. Once an answer has begun, nginx does not wait until it can send more of
//! the request: an import that is slower than its client would never get the rest of the file.

use std::time::Duration;

use service::Problem;
use service::db::Pool;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::product::import::progress::{self, Counts, Status};

const EVERY: Duration = Duration::from_secs(1);

pub struct Followed {
    pool: Pool,
    id: Uuid,
    run: Uuid,
    counts: watch::Receiver<Counts>,
}

impl Followed {
    pub async fn begin(pool: Pool, id: Uuid, counts: watch::Receiver<Counts>) -> Result<Self, Problem> {
        let run = Uuid::now_v7();
        progress::store::begin(&mut *pool.acquire().await?, id, run).await?;
        Ok(Self { pool, id, run, counts })
    }

    /// Does the work of the import. When it returns, the row says that the import has ended.
    pub async fn through(self, work: impl Future<Output = Result<(), Problem>>) -> Result<(), Problem> {
        let ended = CancellationToken::new();
        let working = async {
            let _guard = ended.clone().drop_guard();
            work.await
        };
        let (outcome, ()) = tokio::join!(working, self.record_until(&ended));
        self.record_end(if outcome.is_ok() { Status::Done } else { Status::Failed }).await;
        outcome
    }

    async fn record_until(&self, ended: &CancellationToken) {
        while ended.run_until_cancelled(sleep(EVERY)).await.is_some() {
            self.record(Status::Running).await;
        }
    }

    /// An import does not fail because its progress can't be written.
    async fn record(&self, status: Status) {
        if let Err(error) = self.try_record(status).await {
            tracing::warn!(%error, "import.progress_not_noted");
        }
    }

    /// Tried again: without it the import counts as lost.
    async fn record_end(&self, status: Status) {
        for pause in [1, 2, 4] {
            match self.try_record(status).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "import.progress_not_noted"),
            }
            sleep(Duration::from_secs(pause)).await;
        }
        self.record(status).await;
    }

    async fn try_record(&self, status: Status) -> sqlx::Result<()> {
        let counts = *self.counts.borrow();
        progress::store::record(&mut *self.pool.acquire().await?, self.id, self.run, status, counts).await
    }
}
