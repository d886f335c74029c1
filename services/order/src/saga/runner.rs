//! Works on sagas: claim what is due, make the next call, apply what came back.
//!
//! Any replica may work on any order; a lease keeps two from doing so at once.
//! A worker that dies leaves the lease to run out, and the order goes on from
//! what was last committed.

use std::sync::Arc;
use std::time::Duration;

use messaging::Outbox;
use service::batch::Batcher;
use service::telemetry;
use sqlx::PgPool;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use uuid::Uuid;

use super::facts;
use super::store::{self, Job, Lease};
use super::{Call, Input, Refusal, State};
use crate::clients::payment::Payments;
use crate::clients::product::Products;
use crate::times::Times;

/// Orders worked on at once by one process.
const AT_ONCE: usize = 64;
const POLL_EVERY: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What a fact led to; `None` for an unknown order.
type Applied = sqlx::Result<Option<Result<State, Refusal>>>;

#[derive(Clone)]
pub struct Sagas {
    pool: PgPool,
    payments: Payments,
    products: Products,
    times: Times,
    facts: Batcher<(Uuid, Input), Applied>,
    bell: Arc<Notify>,
}

impl Sagas {
    pub fn new(pool: PgPool, outbox: Outbox, payments: Payments, products: Products, times: Times) -> Self {
        let facts_pool = pool.clone();
        let facts = Batcher::spawn(move |batch: Arc<Vec<(Uuid, Input)>>| {
            let (pool, outbox) = (facts_pool.clone(), outbox.clone());
            async move { apply(&pool, &outbox, &batch).await }
        });
        Self { pool, payments, products, times, facts, bell: Arc::new(Notify::new()) }
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
    pub async fn run(self, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        let workers = TaskTracker::new();
        loop {
            let leases = match self.claim(slots.available_permits()).await {
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

    async fn claim(&self, free: usize) -> sqlx::Result<Vec<Lease>> {
        if free == 0 {
            return Ok(Vec::new());
        }
        let mut connection = self.pool.acquire().await?;
        store::claim(&mut connection, i64::try_from(free).unwrap_or(1), self.times.saga_lease).await
    }

    async fn work(&self, lease: Lease, stop: &CancellationToken) {
        let span = tracing::info_span!("saga", order.id = %lease.order_id);
        let worked = async {
            while !stop.is_cancelled() {
                if let Some(pause) = self.step(lease).await? {
                    return self.release(lease, pause.0, pause.1).await;
                }
            }
            self.release(lease, Duration::ZERO, false).await
        };
        if let Err(error) = worked.instrument(span.clone()).await {
            span.in_scope(|| tracing::warn!(%error, "saga.step_failed"));
            // If that fails too, the lease runs out and somebody takes over.
            let _ = self.release(lease, LONGEST_PAUSE / 10, true).await;
        }
    }

    /// One call and its fact. `None`: go on at once; else how long to rest, and
    /// whether because the call was in vain.
    async fn step(&self, lease: Lease) -> sqlx::Result<Option<(Duration, bool)>> {
        let job = {
            let mut connection = self.pool.acquire().await?;
            store::load(&mut connection, lease, self.times.saga_lease).await?
        };
        let Some(job) = job else {
            return Ok(Some((Duration::ZERO, false))); // somebody else's now
        };
        let Some(call) = job.state.next_call() else {
            return Ok(Some((Duration::ZERO, false)));
        };
        let input = if job.overdue && job.state.has_deadline() {
            Input::Deadline
        } else {
            let span = tracing::info_span!("saga.call", otel.kind = "client", call = ?call);
            telemetry::continue_traceparent(&span, job.traceparent.as_deref());
            let call = self.call(lease.order_id, &job, call).instrument(span);
            // A step may be two calls; the lease is longer than one deadline.
            tokio::time::timeout(self.times.provider_call, call).await.unwrap_or(Input::NoAnswer)
        };
        let in_vain = input == Input::NoAnswer;
        let state = match self.learn(lease.order_id, &input).await? {
            Some(Ok(state)) => state,
            None | Some(Err(_)) => return Ok(Some((LONGEST_PAUSE, true))),
        };
        if state != job.state {
            tracing::info!(
                ?input,
                from = job.state.phase.as_str(),
                to = state.phase.as_str(),
                "saga.advanced"
            );
        }
        if in_vain || state == job.state {
            return Ok(Some((pause(job.attempts), true)));
        }
        Ok(None)
    }

    /// Applies a fact; tries a few times, as it may be dear to learn it again.
    async fn learn(&self, order: Uuid, input: &Input) -> Applied {
        for pause in [100, 500, 2000] {
            match self.facts.run((order, input.clone())).await {
                Ok(Err(error)) if service::db::is_transient(&error) => {}
                Ok(applied) => return applied,
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        self.facts.run((order, input.clone())).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn call(&self, order: Uuid, job: &Job, call: Call) -> Input {
        let intent = job.state.intent.as_deref();
        // Each attempt has a key of its own, and a crash in the middle of one uses it again.
        let attempt = format!("{}.{}", job.version, job.attempts);
        match (call, intent) {
            (Call::CreateIntent, _) => {
                self.payments.create(order, job.total, &job.currency, &job.payment_method).await
            }
            (Call::ConfirmIntent, Some(intent)) => self.payments.confirm(intent, &attempt).await,
            (Call::RetrieveIntent, Some(intent)) => self.payments.retrieve(intent).await,
            (Call::CaptureIntent, Some(intent)) => self.payments.capture(intent, &attempt).await,
            (Call::CancelIntent, Some(intent)) => self.payments.cancel(intent, &attempt).await,
            (Call::Refund, Some(intent)) => match job.refund {
                Some((refund, amount)) => self.payments.refund(intent, refund, amount, job.attempts).await,
                None => Input::Refunded, // nothing was left to give back
            },
            (Call::CommitStock, _) => match self.products.commit(order).await {
                Ok(true) => Input::StockCommitted,
                Ok(false) => Input::StockGone,
                Err(error) => {
                    tracing::warn!(%error, "saga.commit_unanswered");
                    Input::NoAnswer
                }
            },
            (_, None) => {
                tracing::error!(?call, "saga.intent_missing");
                Input::NoAnswer
            }
        }
    }

    async fn release(&self, lease: Lease, pause: Duration, in_vain: bool) -> sqlx::Result<()> {
        let mut connection = self.pool.acquire().await?;
        store::release(&mut connection, lease, pause, in_vain).await
    }
}

/// All facts in one transaction; if that fails for another reason than the
/// database being away, each in one of its own, so that a bad one fails alone.
async fn apply(pool: &PgPool, outbox: &Outbox, facts: &[(Uuid, Input)]) -> Vec<Applied> {
    let together = async |facts: &[(Uuid, Input)]| {
        let mut transaction = pool.begin().await?;
        let answers = facts::apply(&mut transaction, facts).await?;
        transaction.commit().await?;
        outbox.wake();
        Ok::<_, sqlx::Error>(answers)
    };
    let error = match together(facts).await {
        Ok(answers) => return answers.into_iter().map(Ok).collect(),
        Err(error) => error,
    };
    if facts.len() == 1 {
        return vec![Err(error)];
    }
    let away = service::db::is_transient(&error);
    let mut answers = Vec::with_capacity(facts.len());
    for fact in facts {
        answers.push(if away {
            Err(sqlx::Error::PoolTimedOut)
        } else {
            together(std::slice::from_ref(fact)).await.map(|mut answers| answers.pop().flatten())
        });
    }
    answers
}

/// 100 ms, doubling up to ten seconds.
fn pause(attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(0).min(10);
    (Duration::from_millis(100) * 2u32.pow(doublings)).min(LONGEST_PAUSE)
}
