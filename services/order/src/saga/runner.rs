//! Works on sagas: claim what is due, make the next call, apply what came back.
//!
//! Any replica may work on any order; a lease keeps two from doing so at once.
//! A worker that dies leaves the lease to run out, and the order goes on from
//! what was last committed.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use messaging::Outbox;
use service::batch::Batcher;
use service::db::Pool;
use service::failpoint::reach;
use service::{Pulse, telemetry};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use uuid::Uuid;

use super::calls::{self, Calls};
use super::facts;
use super::money::RefundStatus;
use super::store::{self, Lease};
use super::{Call, Input, Refusal, State};
use crate::live::Live;
use crate::split::split;
use crate::times::Times;

/// Orders worked on at once by one process.
const AT_ONCE: usize = 64;
const POLL_EVERY: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// With so many that wait for a worker, orders come faster than they can be seen through.
const MOST_WAITING: i64 = 128;
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What was seen longer ago says nothing any more.
const LOOK_HOLDS: Duration = Duration::from_secs(2);

/// What a fact led to; `None` for an unknown order.
type Applied = sqlx::Result<Option<Result<State, Refusal>>>;

/// How long a worker leaves a saga alone, and whether because its call was in vain.
struct Rest {
    pause: Duration,
    in_vain: bool,
}

impl Rest {
    const DONE: Self = Self { pause: Duration::ZERO, in_vain: false };
}

#[derive(Clone)]
pub struct Sagas {
    pool: Pool,
    calls: Calls,
    times: Times,
    facts: Batcher<(Uuid, Input), Applied>,
    bell: Arc<Notify>,
    /// When too many were last seen to wait for a worker, unless fewer were seen since.
    behind: Arc<Mutex<Option<Instant>>>,
}

impl Sagas {
    pub fn new(pool: Pool, outbox: Outbox, live: Live, calls: Calls, times: Times) -> Self {
        let facts_pool = pool.clone();
        let facts = Batcher::spawn(move |batch: Arc<Vec<(Uuid, Input)>>| {
            let (pool, outbox, live) = (facts_pool.clone(), outbox.clone(), live.clone());
            async move { apply(&pool, &outbox, &live, &batch).await }
        });
        Self { pool, calls, times, facts, bell: Arc::default(), behind: Arc::default() }
    }

    /// Whether orders come faster than they can be seen through, so that each new one would wait longer than the one
    /// before. Of the one queue that all processes share.
    pub fn is_behind(&self) -> bool {
        let behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        behind.is_some_and(|seen| seen.elapsed() < LOOK_HOLDS)
    }

    fn note(&self, behind: bool) {
        *self.behind.lock().unwrap_or_else(PoisonError::into_inner) = behind.then(Instant::now);
    }

    /// Tells the runner that a saga is due.
    pub fn wake(&self) {
        self.bell.notify_one();
    }

    /// Applies a fact and wakes the runner. The error is 503's: busy, or the
    /// database is away.
    pub async fn tell(&self, order: Uuid, input: Input) -> Applied {
        let applied = self.facts.run((order, input)).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        self.wake();
        applied
    }

    /// Claims and works until `stop`, then waits for the calls under way.
    pub async fn run(self, stop: CancellationToken, pulse: Pulse) {
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        let workers = TaskTracker::new();
        let mut looked = Instant::now();
        loop {
            pulse.beat();
            let leases = match self.claim(slots.available_permits(), &mut looked).await {
                Ok(leases) => leases,
                Err(error) => {
                    tracing::warn!(%error, "saga.claim_failed");
                    Vec::new()
                }
            };
            for lease in leases {
                let Ok(slot) = slots.clone().try_acquire_owned() else { break };
                let (sagas, stop) = (self.clone(), stop.clone());
                workers.spawn(async move {
                    sagas.work(lease, &stop).await;
                    drop(slot);
                    // There may be more than the slots could take.
                    sagas.wake();
                });
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(POLL_EVERY) => {}
                () = self.bell.notified() => {}
            }
        }
        workers.close();
        workers.wait().await;
    }

    /// Takes as many sagas as there are free workers, and looks now and then how many are left.
    async fn claim(&self, free: usize, looked: &mut Instant) -> sqlx::Result<Vec<Lease>> {
        if free == 0 && looked.elapsed() < LOOK_EVERY {
            return Ok(Vec::new());
        }
        let mut connection = self.pool.acquire().await?;
        let limit = i64::try_from(free).unwrap_or(1);
        let leases = match free {
            0 => Vec::new(),
            _ => store::claim(&mut connection, limit, self.times.saga_lease).await?,
        };
        if leases.len() < free {
            self.note(false);
        } else if looked.elapsed() >= LOOK_EVERY {
            *looked = Instant::now();
            match store::waiting(&mut connection, MOST_WAITING).await {
                Ok(waiting) => self.note(waiting >= MOST_WAITING),
                // What was claimed is worked on all the same.
                Err(error) => tracing::warn!(%error, "saga.not_counted"),
            }
        }
        drop(connection);
        if !leases.is_empty() {
            reach("order.saga.leased").await?;
        }
        Ok(leases)
    }

    async fn work(&self, lease: Lease, stop: &CancellationToken) {
        let span = tracing::info_span!("saga", order.id = %lease.order_id);
        let mut seen = i64::MAX;
        let worked = async {
            while !stop.is_cancelled() {
                if let Some(Rest { pause, in_vain }) = self.step(lease, &mut seen).await? {
                    return self.release(lease, pause, in_vain, seen).await;
                }
            }
            self.release(lease, Duration::ZERO, false, seen).await
        };
        if let Err(error) = worked.instrument(span.clone()).await {
            span.in_scope(|| tracing::warn!(%error, "saga.step_failed"));
            // If that fails too, the lease runs out and somebody takes over.
            let _ = self.release(lease, LONGEST_PAUSE / 10, true, seen).await;
        }
    }

    /// One call and its facts. `None`: go on at once. `seen` becomes the news
    /// that the step knew of.
    async fn step(&self, lease: Lease, seen: &mut i64) -> sqlx::Result<Option<Rest>> {
        let order = lease.order_id;
        let job = {
            let mut connection = self.pool.acquire().await?;
            store::load(&mut connection, lease, self.times.saga_lease).await?
        };
        let Some(job) = job else {
            return Ok(Some(Rest::DONE)); // somebody else's now
        };
        *seen = job.news;
        let call = job.state.next_call();
        // The answers to most calls are the news; what is left of it at rest is looked into.
        let unread = job.news > job.news_read && matches!(call, None | Some(Call::Refund));
        if call.is_none() && !unread {
            return Ok(Some(Rest::DONE));
        }
        let overdue = job.overdue && job.state.has_deadline();
        let facts = if overdue && !unread {
            vec![Input::Deadline]
        } else {
            let span = tracing::info_span!("saga.call", otel.kind = "client", call = ?call);
            telemetry::continue_traceparent(&span, job.traceparent.as_deref());
            let call = call.filter(|_| !unread);
            reach(calls::before(call)).await?;
            let calls = async {
                match call {
                    Some(call) => self.calls.make(order, &job, call).await,
                    None => self.calls.look(&job).await,
                }
            };
            // A step may be several calls; the lease is longer than one deadline.
            let answer = tokio::time::timeout(self.times.provider_call, calls.instrument(span)).await;
            reach(calls::after(call)).await?;
            answer.unwrap_or_else(|_| vec![Input::NoAnswer])
        };
        let unanswered = facts.contains(&Input::NoAnswer);
        // Not for longer than a lease: whoever takes over asks again.
        let until = tokio::time::Instant::now() + self.times.saga_lease;
        let mut state = job.state.clone();
        for fact in &facts {
            if says_nothing(&state, fact) {
                continue;
            }
            state = match self.learn(order, fact, until).await? {
                Some(Ok(state)) => state,
                None | Some(Err(_)) => return Ok(Some(Rest { pause: LONGEST_PAUSE, in_vain: true })),
            };
        }
        if state != job.state {
            let (from, to) = (job.state.phase.as_str(), state.phase.as_str());
            tracing::info!(?facts, from, to, "saga.advanced");
        }
        if unread && !unanswered {
            store::read_news(&mut *self.pool.acquire().await?, order, job.news).await?;
            return Ok(None);
        }
        if refund_failed_again(&job.state, &state) {
            return Ok(Some(Rest { pause: patient_pause(job.attempts), in_vain: true }));
        }
        if unanswered || state == job.state {
            return Ok(Some(Rest { pause: pause(job.attempts), in_vain: true }));
        }
        Ok(None)
    }

    /// Applies a fact; tries a few times until then, as it may be dear to learn it again.
    async fn learn(&self, order: Uuid, input: &Input, until: tokio::time::Instant) -> Applied {
        let tries = async {
            for pause in [100, 500, 2000] {
                match self.facts.run((order, input.clone())).await {
                    Ok(Err(error)) if service::db::is_transient(&error) => {}
                    Ok(applied) => return applied,
                    Err(_) => {}
                }
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            self.facts.run((order, input.clone())).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
        };
        timeout_at(until, tries).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn release(&self, lease: Lease, pause: Duration, in_vain: bool, seen: i64) -> sqlx::Result<()> {
        let mut connection = self.pool.acquire().await?;
        store::release(&mut connection, lease, pause, in_vain, seen).await
    }
}

/// All facts in one transaction, or a bad one apart from the others.
async fn apply(pool: &Pool, outbox: &Outbox, live: &Live, facts: &[(Uuid, Input)]) -> Vec<Applied> {
    let together = |part: Range<usize>| async move {
        let mut transaction = service::db::begin(pool).await?;
        let applied = facts::apply(&mut transaction, &facts[part]).await?;
        reach("order.saga.written").await?;
        transaction.commit().await?;
        reach("order.saga.committed").await?;
        outbox.wake();
        live.announce(&applied.moved);
        Ok::<_, sqlx::Error>(applied.answers)
    };
    split(facts.len(), together).await
}

/// A look tells much that is known. What a slow worker takes for known is told
/// again by the next look.
fn says_nothing(state: &State, fact: &Input) -> bool {
    let told = state.clone().apply(fact.clone(), Uuid::nil());
    matches!(fact, Input::Heard(_) | Input::NoAnswer) && told.is_ok_and(|(told, _)| told == *state)
}

/// A refund has failed for good and the rule has opened another in its place.
fn refund_failed_again(before: &State, after: &State) -> bool {
    let failed =
        |state: &State| state.refunds.iter().filter(|refund| refund.status == RefundStatus::Failed).count();
    failed(after) > failed(before) && after.next_call() == Some(Call::Refund)
}

/// A second, doubling up to an hour: what a provider refuses today it may do tomorrow.
fn patient_pause(attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(0).min(12);
    (Duration::from_secs(1) * 2u32.pow(doublings)).min(Duration::from_secs(3600))
}

/// 100 ms, doubling up to ten seconds.
fn pause(attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(0).min(10);
    (Duration::from_millis(100) * 2u32.pow(doublings)).min(LONGEST_PAUSE)
}
