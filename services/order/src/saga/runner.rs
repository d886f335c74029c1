//! Works on sagas: claim what is due, make the next call, apply what came back.
//!
//! Any replica may work on any order; a lease keeps two from doing so at once.
//! A worker that dies leaves the lease to run out, and the order goes on from
//! what was last committed.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use messaging::Outbox;
use order_core::ids::OrderId;
use service::db::Pool;
use service::failpoint;
use service::{Pulse, telemetry};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument;
use uuid::Uuid;

use super::applier::{Applier, NotApplied};
use super::calls::{self, Calls};
use super::facts::{Report, Reported};
use super::refunds::RefundStatus;
use super::store::{self, Job, Lease};
use super::webhooks::{OF_INTENTS, Reports, Subscription, is_known};
use super::{Call, Input, IntentStatus, Phase, State};
use crate::events::stream::OrderStream;
use crate::order::Placement;
use crate::order::store::FIRST_EPOCH;
use crate::times::Times;

/// Orders worked on at once by one process.
const AT_ONCE: usize = 128;
const POLL_EVERY: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Between two looks whether a customer has proved who they are.
const ACTION_PAUSE: Duration = Duration::from_secs(15);

/// With so many that wait for a worker, orders come faster than they can be seen through.
const MOST_WAITING: i64 = 128;
const COUNT_EVERY: Duration = Duration::from_millis(100);
/// An older count says nothing any more.
const COUNT_HOLDS: Duration = Duration::from_secs(2);

/// How long a worker leaves a saga alone, and whether because its call was in vain.
struct Rest {
    pause: Duration,
    in_vain: bool,
}

impl Rest {
    const DONE: Self = Self { pause: Duration::ZERO, in_vain: false };
}

/// What a worker does after a step.
enum Next {
    /// The next call.
    Call,
    /// Reads the saga again first.
    Load,
    /// Lets go of it.
    Rest(Rest),
    /// Nothing: it is let go of, or another's.
    Done,
}

/// An order that is worked on here.
struct Work {
    lease: Lease,
    /// What is known of it; nothing when it has to be read.
    job: Option<Job>,
    /// How many reports there were at the last step.
    seen: i64,
    subscription: Option<Subscription>,
}

/// A place for one more order to be worked on here.
pub struct Slot {
    _place: OwnedSemaphorePermit,
    /// The process waits for it when it stops.
    _worker: TaskTrackerToken,
}

/// Cheap to clone, as each request does.
#[derive(Clone)]
pub struct Sagas(Arc<Inner>);

pub struct Inner {
    pool: Pool,
    calls: Calls,
    times: Times,
    applier: Applier,
    wake_up: Notify,
    slots: Arc<Semaphore>,
    workers: TaskTracker,
    stop: CancellationToken,
    reports: Reports,
    /// When too many were last seen to wait for a worker, unless fewer were seen since.
    backlog: Mutex<Option<Instant>>,
    /// Others wait for a worker: they go first.
    queued: AtomicBool,
}

impl Deref for Sagas {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// A panic elsewhere says nothing of what is in there.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sagas {
    pub fn new(
        pool: Pool,
        outbox: Outbox,
        stream: OrderStream,
        calls: Calls,
        times: Times,
        stop: CancellationToken,
    ) -> Self {
        let applier = Applier::new(pool.clone(), outbox, stream, times);
        Self(Arc::new(Inner {
            pool,
            calls,
            times,
            applier,
            wake_up: Notify::new(),
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            workers: TaskTracker::new(),
            stop,
            reports: Reports::default(),
            backlog: Mutex::default(),
            queued: AtomicBool::default(),
        }))
    }

    /// Whether orders come faster than they can be seen through, so that each new one would wait longer than the one
    /// before. Of the one queue that all processes share.
    pub fn has_backlog(&self) -> bool {
        locked(&self.backlog).is_some_and(|seen| seen.elapsed() < COUNT_HOLDS)
    }

    fn set_backlog(&self, backlog: bool) {
        *locked(&self.backlog) = backlog.then(Instant::now);
    }

    /// Whether the payment provider refuses the shop's key, so that nothing can be paid.
    pub fn is_key_refused(&self) -> bool {
        self.calls.payments.is_key_refused()
    }

    /// Tells the runner that a saga is due.
    pub fn wake(&self) {
        self.wake_up.notify_one();
    }

    /// A place for an order that is about to be placed; `None` when it has to wait for its turn.
    pub fn slot(&self) -> Option<Slot> {
        if self.stop.is_cancelled() || self.queued.load(Ordering::Relaxed) {
            return None;
        }
        let place = self.slots.clone().try_acquire_owned().ok()?;
        Some(Slot { _place: place, _worker: self.workers.token() })
    }

    /// Works on an order that was placed a moment ago, with its first lease.
    pub fn begin(&self, order: &Placement, slot: Slot) {
        let lease = Lease { order_id: order.id, epoch: FIRST_EPOCH };
        self.spawn(lease, Some(Job::placed(order)), slot);
    }

    /// Takes a report of this `kind` by the provider about an intent. It is kept in memory where an order's worker here has
    /// yet to ask about the intent, else in the database.
    pub async fn report(&self, intent: &str, kind: &str) -> sqlx::Result<()> {
        if kind.starts_with(OF_INTENTS) && self.reports.keep(intent, kind) {
            return Ok(());
        }
        self.write_down(intent, kind).await
    }

    async fn write_down(&self, intent: &str, kind: &str) -> sqlx::Result<()> {
        if store::add_report(&mut *self.pool.acquire().await?, intent, kind).await? {
            self.wake();
        }
        Ok(())
    }

    /// Ends a worker's subscription. Reports that it has not asked about since are written down.
    async fn settle(&self, subscription: Option<Subscription>, state: Option<&State>) {
        let Some(subscription) = subscription else { return };
        let intent = subscription.intent().clone();
        for kind in subscription.end() {
            if state.is_some_and(|state| is_known(state.payment, &kind)) {
                continue;
            }
            for pause in [100, 500, 2000, 8000, 0] {
                match self.write_down(intent.as_str(), &kind).await {
                    Ok(()) => break,
                    Err(error) => tracing::warn!(%error, kind, "saga.report_not_written"),
                }
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    }

    /// Applies a fact and wakes the runner.
    pub async fn apply(&self, order: OrderId, input: Input) -> Result<Reported, NotApplied> {
        let report = Report { order, facts: vec![input], lease: None };
        let applied = self.applier.apply(report).await;
        self.wake();
        applied
    }

    /// Claims and works until the process stops, then waits for the calls under way.
    pub async fn run(self, pulse: Pulse) {
        let mut counted = Instant::now();
        while !self.stop.is_cancelled() {
            pulse.beat();
            let leases = match self.claim(self.slots.available_permits(), &mut counted).await {
                Ok(leases) => leases,
                Err(error) => {
                    tracing::warn!(%error, "saga.claim_failed");
                    Vec::new()
                }
            };
            for lease in leases {
                // An order that was placed meanwhile may have the place.
                let Ok(place) = self.slots.clone().try_acquire_owned() else {
                    self.put_back(lease).await;
                    continue;
                };
                self.spawn(lease, None, Slot { _place: place, _worker: self.workers.token() });
            }
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = tokio::time::sleep(POLL_EVERY) => {}
                () = self.wake_up.notified() => {}
            }
        }
        self.workers.close();
        self.workers.wait().await;
    }

    fn spawn(&self, lease: Lease, job: Option<Job>, slot: Slot) {
        let sagas = self.clone();
        tokio::spawn(async move {
            let span = tracing::info_span!("saga", order.id = %lease.order_id);
            sagas.work(lease, job).instrument(span).await;
            drop(slot);
            // There may be more than the slots could take.
            if sagas.queued.load(Ordering::Relaxed) {
                sagas.wake();
            }
        });
    }

    /// Takes as many sagas as there are free workers, and looks now and then how many are left.
    async fn claim(&self, free: usize, counted: &mut Instant) -> sqlx::Result<Vec<Lease>> {
        if free == 0 {
            self.queued.store(true, Ordering::Relaxed);
            if counted.elapsed() < COUNT_EVERY {
                return Ok(Vec::new());
            }
        }
        let mut connection = self.pool.acquire().await?;
        let limit = i64::try_from(free).unwrap_or(1);
        let leases = match free {
            0 => Vec::new(),
            _ => store::claim(&mut connection, limit, self.times.saga_lease).await?,
        };
        let all = leases.len() < free;
        self.queued.store(!all, Ordering::Relaxed);
        if all {
            self.set_backlog(false);
        } else if counted.elapsed() >= COUNT_EVERY {
            *counted = Instant::now();
            match store::waiting(&mut connection, MOST_WAITING).await {
                Ok(waiting) => self.set_backlog(waiting >= MOST_WAITING),
                // What was claimed is worked on all the same.
                Err(error) => tracing::warn!(%error, "saga.not_counted"),
            }
        }
        Ok(leases)
    }

    /// Makes one call after the other until the saga rests. `job` is what is known of it already.
    async fn work(&self, lease: Lease, job: Option<Job>) {
        let mut work = Work { lease, job, seen: i64::MAX, subscription: None };
        let worked = self.steps(&mut work).await;
        self.settle(work.subscription.take(), work.job.as_ref().map(|job| &job.state)).await;
        let rest = match worked {
            Ok(None) => return,
            Ok(Some(rest)) => rest,
            Err(error) => {
                tracing::warn!(%error, "saga.step_failed");
                // If that fails too, the lease runs out and somebody takes over.
                Rest { pause: LONGEST_PAUSE / 10, in_vain: true }
            }
        };
        if let Err(error) = self.release(lease, rest, work.seen).await {
            tracing::warn!(%error, "saga.not_released");
        }
    }

    /// How long to leave the saga alone, or nothing when it is let go of.
    async fn steps(&self, work: &mut Work) -> Result<Option<Rest>, NotApplied> {
        failpoint::hit("order.saga.leased").await?;
        while !self.stop.is_cancelled() {
            let mut job = match work.job.take() {
                Some(job) => job,
                None => {
                    let mut connection = self.pool.acquire().await?;
                    match store::load(&mut connection, work.lease, self.times.saga_lease).await? {
                        Some(job) => job,
                        None => return Ok(None), // somebody else's now
                    }
                }
            };
            work.seen = job.progress.reports;
            match &job.state.intent {
                Some(intent) if job.state.asks_again() => {
                    work.subscription.get_or_insert_with(|| self.reports.subscribe(intent));
                }
                // Somebody else has changed its course.
                _ => self.settle(work.subscription.take(), Some(&job.state)).await,
            }
            let next = self.step(work, &mut job).await;
            work.job = Some(job);
            match next? {
                Next::Call => {}
                Next::Load => work.job = None,
                Next::Rest(rest) => return Ok(Some(rest)),
                Next::Done => return Ok(None),
            }
        }
        Ok(Some(Rest::DONE))
    }

    /// One call and its facts.
    async fn step(&self, work: &mut Work, job: &mut Job) -> Result<Next, NotApplied> {
        let lease = work.lease;
        let call = job.state.next_call();
        // Most reports are about what the next call answers anyway. Those that are left at rest are asked about.
        let unread = job.has_unread_reports() && matches!(call, None | Some(Call::Refund));
        if call.is_none() && !unread {
            return Ok(Next::Rest(Rest::DONE));
        }
        let facts = match call.filter(|_| !unread) {
            _ if job.is_overdue() && !unread => vec![Input::Deadline],
            call => self.ask(lease.order_id, job, call).await?,
        };
        let unanswered = facts.contains(&Input::NoAnswer);
        let before = (job.state.clone(), job.progress.clone());
        let (facts, after) = only_new(&job.state, facts);
        // From here on it may be settled, and is not asked for by itself any more: what is said after its last answer, or
        // was just before, has to be written down first.
        if !after.asks_again() && after.phase != Phase::Confirmed {
            self.settle(work.subscription.take(), None).await;
        }
        if !facts.is_empty() {
            // An inquiry leaves the lease to the load that follows it.
            let report = Report { order: lease.order_id, facts, lease: (!unread).then_some(lease) };
            match self.applier.apply_with_retries(report).await {
                Ok(Reported { state, progress }) => {
                    (job.state, job.progress) = (state, progress);
                    job.give_time();
                }
                Err(NotApplied::Refused(_) | NotApplied::UnknownOrder) => {
                    return Ok(Next::Rest(Rest { pause: LONGEST_PAUSE, in_vain: true }));
                }
                Err(error) => return Err(error),
            }
        }
        if job.state != before.0 {
            let (from, to) = (before.0.phase.as_str(), job.state.phase.as_str());
            tracing::info!(from, to, "saga.advanced");
        }
        if job.progress.given_up || job.progress.epoch != lease.epoch {
            return Ok(Next::Done);
        }
        if unread && !unanswered {
            store::mark_reports_read(&mut *self.pool.acquire().await?, lease.order_id, before.1.reports)
                .await?;
            return Ok(Next::Load);
        }
        let attempts = before.1.attempts;
        if refund_failed_again(&before.0, &job.state) {
            return Ok(Next::Rest(Rest { pause: patient_pause(attempts), in_vain: true }));
        }
        if job.state.action.is_some() && call == Some(Call::RetrieveIntent) {
            // A webhook tells when the customer is back. That takes as long as they like: it is not in vain.
            return Ok(Next::Rest(Rest { pause: ACTION_PAUSE, in_vain: false }));
        }
        if unanswered || job.state == before.0 {
            return Ok(Next::Rest(Rest { pause: pause(attempts), in_vain: true }));
        }
        Ok(Next::Call)
    }

    /// What the call says, or an inquiry where there is none; and what the next call says, where it is made at once.
    async fn ask(&self, order: OrderId, job: &Job, call: Option<Call>) -> sqlx::Result<Vec<Input>> {
        let began = Instant::now();
        let mut facts = self.call(order, job, call).await?;
        // Held money is not written down by itself: the stock is asked for at once, and both are written together.
        // Whoever takes over in between hears both again.
        if let [Input::IntentReported(IntentStatus::Authorised)] = facts[..]
            && job.state.phase == Phase::Authorising
            && !job.is_overdue()
            && began.elapsed() < self.times.provider_call / 4
        {
            facts.extend(self.call(order, job, Some(Call::CommitStock)).await?);
        }
        Ok(facts)
    }

    async fn call(&self, order: OrderId, job: &Job, call: Option<Call>) -> sqlx::Result<Vec<Input>> {
        let span = tracing::info_span!("saga.call", otel.kind = "client", call = ?call);
        telemetry::continue_traceparent(&span, job.traceparent.as_deref());
        failpoint::hit(calls::before(call)).await?;
        let calls = async {
            match call {
                Some(call) => self.calls.make(order, job, call).await,
                None => self.calls.inquire(order, job).await,
            }
        };
        // It may be several calls; the lease is longer than one deadline.
        let answer = tokio::time::timeout(self.times.provider_call, calls.instrument(span)).await;
        failpoint::hit(calls::after(call)).await?;
        Ok(answer.unwrap_or_else(|_| vec![Input::NoAnswer]))
    }

    /// As it was before it was taken.
    async fn put_back(&self, lease: Lease) {
        let back = async { store::put_back(&mut *self.pool.acquire().await?, lease).await };
        if let Err(error) = back.await {
            tracing::warn!(%error, "saga.not_put_back"); // the lease runs out
        }
    }

    async fn release(&self, lease: Lease, rest: Rest, seen: i64) -> sqlx::Result<()> {
        let mut connection = self.pool.acquire().await?;
        let our_fault = self.calls.payments.is_our_fault();
        store::release(&mut connection, lease, rest.pause, rest.in_vain, seen, our_fault).await
    }
}

/// The facts that change something, and the state after them. An inquiry reports much that is known. What a slow worker
/// takes for known is reported again by the next one.
fn only_new(state: &State, facts: Vec<Input>) -> (Vec<Input>, State) {
    let mut state = state.clone();
    let mut new = Vec::with_capacity(facts.len());
    for fact in facts {
        match state.clone().apply(fact.clone(), Uuid::now_v7().into()) {
            Ok((next, _))
                if matches!(fact, Input::RefundReported(_) | Input::Disputed(_) | Input::NoAnswer)
                    && next == state =>
            {
                continue;
            }
            Ok((next, _)) => state = next,
            Err(_) => {}
        }
        new.push(fact);
    }
    (new, state)
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
