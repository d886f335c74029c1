//! A published batch, until all of it is confirmed or has failed.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::{Confirmation, PublisherConfirm};
use opentelemetry::metrics::Counter;
use service::db::Pool;
use service::{failpoint, telemetry};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::lane::Tally;

/// Below the claim's lease.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(5);

/// Mostly all confirms come within a moment, and are marked together. Late confirms delay the mark of the
/// others no longer than this.
const MARK_AFTER: Duration = Duration::from_millis(100);

/// The metrics of the relay.
#[derive(Clone)]
pub(super) struct Counted {
    published: Counter<u64>,
    not_taken: Counter<u64>,
}

impl Counted {
    pub(super) fn start() -> Self {
        let published =
            telemetry::counter("events.published", "{event}", "Events that the broker has confirmed.");
        let description = "Events that the broker did not confirm. They are tried again.";
        let not_taken = telemetry::counter("events.not_taken", "{event}", description);
        for reason in ["broken", "refused", "returned", "unanswered"] {
            not_taken.add(0, &[telemetry::label("reason", reason)]);
        }
        Self { published, not_taken }
    }

    /// So many of each type. Types are ours: the outbox has no others.
    fn published(&self, kinds: HashMap<String, u64>) {
        for (kind, count) in kinds {
            self.published.add(count, &[telemetry::label("event.type", kind)]);
        }
    }

    fn not_taken(&self, reason: &'static str) {
        self.not_taken.add(1, &[telemetry::label("reason", reason)]);
    }
}

/// A published event.
pub(super) struct Sent {
    pub(super) id: Uuid,
    pub(super) kind: String,
    pub(super) confirm: PublisherConfirm,
}

/// The outcome of a batch.
pub(super) struct Outcome {
    pub(super) published: Instant,
    pub(super) tallies: HashMap<String, Tally>,
    /// The types of those that came back: a binding is missing.
    pub(super) returned: HashSet<String>,
    pub(super) last_confirm: Option<Instant>,
    /// Some were not confirmed in time.
    pub(super) unanswered: bool,
}

/// The broker's answer to one event.
enum Answer {
    Confirmed,
    Refused,
    Returned,
    Broken,
}

/// Marks confirmed events as the confirms come. The others are tried again after a pause of their own. If an
/// update fails, the lease of its rows runs out.
pub(super) async fn settle(pool: Pool, sent: Vec<Sent>, published: Instant, counted: Counted) -> Outcome {
    let mut outcome = Outcome {
        published,
        tallies: HashMap::new(),
        returned: HashSet::new(),
        last_confirm: None,
        unanswered: false,
    };
    let mut open: HashMap<Uuid, String> = sent.iter().map(|one| (one.id, one.kind.clone())).collect();
    let mut confirms: FuturesUnordered<_> =
        sent.into_iter().map(|one| async move { (one.id, one.confirm.await) }).collect();
    let (mut refused, mut broken) = (Vec::new(), Vec::new());
    let deadline = published + CONFIRM_DEADLINE;
    loop {
        let (mut confirmed, mut kinds) = (Vec::new(), HashMap::<String, u64>::new());
        // After the deadline only those that have come already, while the last mark took long.
        let until = deadline.min(Instant::now() + MARK_AFTER);
        while let Ok(Some((id, answer))) = timeout_at(until, confirms.next()).await {
            let kind = open.remove(&id).unwrap_or_default();
            let tally = outcome.tallies.entry(kind.clone()).or_default();
            match confirmation(id, answer) {
                Answer::Confirmed => {
                    tally.confirmed += 1;
                    confirmed.push(id);
                    *kinds.entry(kind).or_default() += 1;
                }
                Answer::Broken => {
                    tally.broken += 1;
                    broken.push(id);
                    counted.not_taken("broken");
                }
                Answer::Refused => {
                    tally.failed += 1;
                    refused.push(id);
                    counted.not_taken("refused");
                }
                Answer::Returned => {
                    tally.failed += 1;
                    refused.push(id);
                    outcome.returned.insert(kind);
                    counted.not_taken("returned");
                }
            }
        }
        if !confirmed.is_empty() {
            outcome.last_confirm = Some(Instant::now());
            match mark(&pool, &confirmed).await {
                Ok(()) => counted.published(kinds),
                Err(error) => tracing::warn!(%error, events = confirmed.len(), "relay.not_marked"),
            }
        }
        if confirms.is_empty() || until == deadline {
            break;
        }
    }
    for (id, kind) in open {
        outcome.unanswered = true;
        counted.not_taken("unanswered");
        outcome.tallies.entry(kind).or_default().failed += 1;
        refused.push(id);
    }
    for (ids, link_broke) in [(refused, false), (broken, true)] {
        if let Err(error) = put_off(&pool, &ids, link_broke).await {
            tracing::warn!(%error, events = ids.len(), "relay.not_put_off");
        }
    }
    outcome
}

fn confirmation(id: Uuid, answer: lapin::Result<Confirmation>) -> Answer {
    let (answer, what) = match answer {
        Ok(Confirmation::Ack(None)) => return Answer::Confirmed,
        // A message that was returned as unroutable is acked too, with the message inside.
        Ok(Confirmation::Ack(Some(_))) => (Answer::Returned, "came back"),
        Ok(_) => (Answer::Refused, "was refused"),
        Err(_) => (Answer::Broken, "lost its connection"),
    };
    tracing::debug!(event.id = %id, what, "relay.not_taken");
    answer
}

async fn mark(pool: &Pool, confirmed: &[Uuid]) -> sqlx::Result<()> {
    failpoint::hit("relay.published").await?;
    sqlx::query!("UPDATE outbox SET published_at = now(), attempts = 0 WHERE id = ANY($1)", confirmed)
        .execute(pool)
        .await?;
    failpoint::hit("relay.marked").await
}

/// A broken connection is mostly not the event's doing; an event that has seen several break waits, too.
async fn put_off(pool: &Pool, ids: &[Uuid], link_broke: bool) -> sqlx::Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE outbox SET attempts = attempts + 1, claimed_until = CASE
             WHEN $2 AND attempts < 3 THEN '-infinity'
             ELSE now() + LEAST(interval '1 second' * 2 ^ LEAST(attempts, 4), interval '15 seconds') END
         WHERE id = ANY($1) AND published_at IS NULL",
        ids,
        link_broke,
    )
    .execute(pool)
    .await?;
    Ok(())
}
