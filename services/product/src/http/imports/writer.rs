//! Batches, each written as a transaction.

use std::time::Duration;

use audit::Entry;
use identity::User;
use service::Problem;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::reader::Batch;
use super::{App, MAX_ERRORS, Report};
use crate::product::import::progress::Counts;
use crate::product::import::{self, Applied, ApplyError, DryRun, Line, Sender};

const TRIES: u32 = 5;

/// The audit record of an import: one row, with the first batch that changes something.
pub struct Recorded {
    by: User,
    import: Uuid,
    done: bool,
}

impl Recorded {
    /// `import` is the id that the sender gave it, if they did.
    pub fn new(by: User, import: Option<Uuid>) -> Self {
        Self { by, import: import.unwrap_or_else(Uuid::now_v7), done: false }
    }
}

pub async fn write(
    app: &App,
    sender: Sender<'_>,
    mut queue: mpsc::Receiver<Batch>,
    report: &mut Report,
    counts: &watch::Sender<Counts>,
    mut recorded: Recorded,
) -> Result<(), Problem> {
    let mut seen = DryRun::default();
    while let Some(mut batch) = queue.recv().await {
        let applied = if report.dry_run {
            let mut transaction = service::db::begin(&app.pool).await?;
            import::dry_run(&mut transaction, &batch.lines, sender, &mut seen).await.map_err(problem)?
        } else {
            write_batch(app, sender, &batch.lines, &mut recorded).await?
        };
        report.created += applied.created;
        report.updated += applied.updated;
        report.unchanged += applied.unchanged;
        report.price_unit = batch.unit;
        (report.profile, report.left_out) = batch.platform.unzip();
        batch.errors.extend(applied.errors);
        batch.errors.sort_by_key(|error| error.line);
        report.failed += batch.errors.len() as u64;
        let left = MAX_ERRORS - report.errors.len();
        let listed: Vec<_> = batch.errors.into_iter().take(left).collect();
        if let Some(rejected) = &mut report.rejected {
            listed.iter().for_each(|error| rejected.add(error, &batch.raw, batch.header.as_ref()));
        }
        report.errors.extend(listed.into_iter().map(|error| error.named(batch.names.as_deref())));
        report.last_line = report.last_line.max(batch.last);
        counts.send_modify(|counts| *counts = report.counts(counts.bytes));
    }
    Ok(())
}

/// Tries again what another transaction has overtaken, or what failed for a transient reason.
async fn write_batch(
    app: &App,
    sender: Sender<'_>,
    lines: &[Line],
    recorded: &mut Recorded,
) -> Result<Applied, Problem> {
    let mut tries = 0;
    loop {
        tries += 1;
        match try_batch(app, sender, lines, recorded).await {
            Ok(applied) => return Ok(applied),
            Err(ApplyError::Raced) if tries < TRIES => {}
            Err(ApplyError::Database(error)) if tries < TRIES && service::db::is_transient(&error) => {
                tracing::warn!(%error, "import.batch_failed");
                tokio::time::sleep(Duration::from_millis(100) * tries).await;
            }
            Err(error) => return Err(problem(error)),
        }
    }
}

fn problem(error: ApplyError) -> Problem {
    match error {
        ApplyError::Raced => Problem::unavailable("The products are being changed."),
        ApplyError::Database(error) => error.into(),
        error @ ApplyError::Unsure(_) => {
            tracing::error!(%error, "import.unsure");
            let detail = "Whether the last lines were written is not known; look, and send the rest again.";
            Problem::outcome_unknown(detail)
        }
    }
}

async fn try_batch(
    app: &App,
    sender: Sender<'_>,
    lines: &[Line],
    recorded: &mut Recorded,
) -> Result<Applied, ApplyError> {
    if lines.is_empty() {
        return Ok(Applied::default());
    }
    let mut transaction = service::db::begin(&app.pool).await?;
    let applied = import::apply(&mut transaction, lines, sender).await?;
    let first_change = applied.changed > 0 && !recorded.done;
    if first_change {
        let entry = Entry::new(recorded.by, "products.imported", "import", recorded.import);
        audit::record(&mut transaction, entry).await?;
    }
    transaction.commit().await.map_err(ApplyError::at_commit)?;
    recorded.done |= first_change;
    if applied.changed > 0 {
        app.outbox.wake();
    }
    Ok(applied)
}
