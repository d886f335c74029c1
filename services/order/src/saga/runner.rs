//! Works on sagas: claim what is due, make the next call, apply what came back.
//!
//! Any replica may work on any order; a lease keeps two from doing so at once.
//! A worker that dies leaves the lease to run out, and the order goes on from
//! what was last committed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use messaging::Outbox;
use service::batch::Batcher;
use service::failpoint::reach;
use service::telemetry;
use sqlx::PgPool;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use uuid::Uuid;

use super::facts;
use super::money::{Refund, RefundBy, RefundStatus};
use super::store::{self, Job, Lease};
use super::{Call, Input, Refusal, State};
use crate::clients::payment::Payments;
use crate::clients::product::Products;
use crate::live::Live;
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
    pool: PgPool,
    payments: Payments,
    products: Products,
    times: Times,
    facts: Batcher<(Uuid, Input), Applied>,
    bell: Arc<Notify>,
    /// When too many were last seen to wait for a worker, unless fewer were seen since.
    behind: Arc<Mutex<Option<Instant>>>,
}

impl Sagas {
    pub fn new(
        pool: PgPool,
        outbox: Outbox,
        live: Live,
        payments: Payments,
        products: Products,
        times: Times,
    ) -> Self {
        let facts_pool = pool.clone();
        let facts = Batcher::spawn(move |batch: Arc<Vec<(Uuid, Input)>>| {
            let (pool, outbox, live) = (facts_pool.clone(), outbox.clone(), live.clone());
            async move { apply(&pool, &outbox, &live, &batch).await }
        });
        Self { pool, payments, products, times, facts, bell: Arc::default(), behind: Arc::default() }
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
    pub async fn run(self, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        let workers = TaskTracker::new();
        let mut looked = Instant::now();
        loop {
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
            reach(before(call)).await?;
            let calls = async {
                match call {
                    Some(call) => self.call(order, &job, call).await,
                    None => self.look(&job).await,
                }
            };
            // A step may be several calls; the lease is longer than one deadline.
            let answer = tokio::time::timeout(self.times.provider_call, calls.instrument(span)).await;
            reach(after(call)).await?;
            answer.unwrap_or_else(|_| vec![Input::NoAnswer])
        };
        let unanswered = facts.contains(&Input::NoAnswer);
        let mut state = job.state.clone();
        for fact in &facts {
            if says_nothing(&state, fact) {
                continue;
            }
            state = match self.learn(order, fact).await? {
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

    async fn call(&self, order: Uuid, job: &Job, call: Call) -> Vec<Input> {
        let intent = job.state.intent.as_deref();
        // Each attempt has a key of its own, and a crash in the middle of one uses it again.
        let attempt = format!("{}.{}", job.version, job.attempts);
        vec![match (call, intent) {
            (Call::CreateIntent, _) => {
                self.payments.create(order, job.state.total, &job.currency, &job.payment_method).await
            }
            (Call::ConfirmIntent, Some(intent)) => self.payments.confirm(intent, &attempt).await,
            (Call::RetrieveIntent, Some(intent)) => self.payments.retrieve(intent).await,
            (Call::CaptureIntent, Some(intent)) => self.payments.capture(intent, &attempt).await,
            (Call::CancelIntent, Some(intent)) => self.payments.cancel(intent, &attempt).await,
            (Call::Refund, Some(intent)) => return self.refund(intent, job).await,
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
        }]
    }

    /// Asks for one open refund, after a look at those that the provider has: one
    /// whose answer got lost is among them, however long ago that was.
    async fn refund(&self, intent: &str, job: &Job) -> Vec<Input> {
        let open: Vec<&Refund> = job.state.open_refunds().collect();
        // In turns, so that one that stays open doesn't hold up the others.
        let turn = usize::try_from(job.attempts).unwrap_or(0) % open.len().max(1);
        let Some(refund) = open.get(turn) else { return vec![Input::NoAnswer] };
        let Some(made) = self.payments.refunds(intent).await else { return vec![Input::NoAnswer] };
        let known = made.iter().any(|heard| heard.ours == Some(refund.id));
        let mut facts: Vec<Input> = made.into_iter().map(Input::Heard).collect();
        if !known && refund.by != RefundBy::Provider {
            facts.push(self.payments.refund(intent, refund.id, refund.amount).await);
        }
        facts
    }

    /// Everything the provider has to say about the order's intent.
    async fn look(&self, job: &Job) -> Vec<Input> {
        let Some(intent) = job.state.intent.as_deref() else { return vec![] };
        let mut facts = vec![self.payments.retrieve(intent).await];
        match self.payments.refunds(intent).await {
            Some(made) => facts.extend(made.into_iter().map(Input::Heard)),
            None => facts.push(Input::NoAnswer),
        }
        facts
    }

    async fn release(&self, lease: Lease, pause: Duration, in_vain: bool, seen: i64) -> sqlx::Result<()> {
        let mut connection = self.pool.acquire().await?;
        store::release(&mut connection, lease, pause, in_vain, seen).await
    }
}

/// All facts in one transaction; if that fails for another reason than the
/// database being away, each in one of its own, so that a bad one fails alone.
async fn apply(pool: &PgPool, outbox: &Outbox, live: &Live, facts: &[(Uuid, Input)]) -> Vec<Applied> {
    let together = async |facts: &[(Uuid, Input)]| {
        let mut transaction = service::db::begin(pool).await?;
        let applied = facts::apply(&mut transaction, facts).await?;
        reach("order.saga.written").await?;
        transaction.commit().await?;
        reach("order.saga.committed").await?;
        outbox.wake();
        live.announce(&applied.moved);
        Ok::<_, sqlx::Error>(applied.answers)
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

/// The failpoint before a call, or a look.
fn before(call: Option<Call>) -> &'static str {
    match call {
        Some(Call::CreateIntent) => "order.saga.create.before",
        Some(Call::ConfirmIntent) => "order.saga.confirm.before",
        Some(Call::RetrieveIntent) => "order.saga.retrieve.before",
        Some(Call::CommitStock) => "order.saga.commit.before",
        Some(Call::CaptureIntent) => "order.saga.capture.before",
        Some(Call::CancelIntent) => "order.saga.cancel.before",
        Some(Call::Refund) => "order.saga.refund.before",
        None => "order.saga.look.before",
    }
}

/// The failpoint between an answer and what it changes.
fn after(call: Option<Call>) -> &'static str {
    match call {
        Some(Call::CreateIntent) => "order.saga.create.after",
        Some(Call::ConfirmIntent) => "order.saga.confirm.after",
        Some(Call::RetrieveIntent) => "order.saga.retrieve.after",
        Some(Call::CommitStock) => "order.saga.commit.after",
        Some(Call::CaptureIntent) => "order.saga.capture.after",
        Some(Call::CancelIntent) => "order.saga.cancel.after",
        Some(Call::Refund) => "order.saga.refund.after",
        None => "order.saga.look.after",
    }
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
