//! Works on sagas: claim what is due, make the next call, apply what came back.
//!
//! Any replica may work on any order; a lease keeps two from doing so at once.
//! A worker that dies leaves the lease to run out, and the order goes on from
//! what was last committed.

use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use messaging::Outbox;
use service::batch::{Batcher, split};
use service::db::Pool;
use service::failpoint::reach;
use service::{Pulse, telemetry};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument;
use uuid::Uuid;

use super::calls::{self, Calls};
use super::facts::{self, Report, Reported};
use super::heard::{Intents, Listening, OF_INTENTS, is_known};
use super::money::RefundStatus;
use super::store::{self, Job, Lease};
use super::{Call, Input, Intent, Phase, Refusal, State};
use crate::live::Live;
use crate::order::Placement;
use crate::times::Times;

/// Orders worked on at once by one process.
const AT_ONCE: usize = 128;
const POLL_EVERY: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// With so many that wait for a worker, orders come faster than they can be seen through.
const MOST_WAITING: i64 = 128;
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What was seen longer ago says nothing any more.
const LOOK_HOLDS: Duration = Duration::from_secs(2);

/// What a fact led to; `None` for an unknown order.
type Applied = sqlx::Result<Option<Result<Reported, Refusal>>>;

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
    /// The news that the last step knew of.
    seen: i64,
    listening: Option<Listening>,
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
    facts: Batcher<Report, Applied>,
    bell: Notify,
    slots: Arc<Semaphore>,
    workers: TaskTracker,
    stop: CancellationToken,
    heard: Intents,
    /// When too many were last seen to wait for a worker, unless fewer were seen since.
    behind: Mutex<Option<Instant>>,
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
        live: Live,
        calls: Calls,
        times: Times,
        stop: CancellationToken,
    ) -> Self {
        let facts_pool = pool.clone();
        let facts = Batcher::spawn(move |batch: Arc<Vec<Report>>| {
            let (pool, outbox, live) = (facts_pool.clone(), outbox.clone(), live.clone());
            async move { apply(&pool, &outbox, &live, &batch, times.saga_lease).await }
        });
        Self(Arc::new(Inner {
            pool,
            calls,
            times,
            facts,
            bell: Notify::new(),
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            workers: TaskTracker::new(),
            stop,
            heard: Intents::default(),
            behind: Mutex::default(),
            queued: AtomicBool::default(),
        }))
    }

    /// Whether orders come faster than they can be seen through, so that each new one would wait longer than the one
    /// before. Of the one queue that all processes share.
    pub fn is_behind(&self) -> bool {
        locked(&self.behind).is_some_and(|seen| seen.elapsed() < LOOK_HOLDS)
    }

    fn note(&self, behind: bool) {
        *locked(&self.behind) = behind.then(Instant::now);
    }

    /// Tells the runner that a saga is due.
    pub fn wake(&self) {
        self.bell.notify_one();
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
        let lease = Lease { order_id: order.id, epoch: store::FIRST_EPOCH };
        self.spawn(lease, Some(Job::placed(order)), slot);
    }

    /// Takes note that the provider said something of this `kind` about an intent: in memory where an order's worker here
    /// is yet to ask for it, else in the database.
    pub async fn hear(&self, intent: &str, kind: &str) -> sqlx::Result<()> {
        if kind.starts_with(OF_INTENTS) && self.heard.keep(intent, kind) {
            return Ok(());
        }
        self.write_down(intent, kind).await
    }

    async fn write_down(&self, intent: &str, kind: &str) -> sqlx::Result<()> {
        store::nudge(&mut *self.pool.acquire().await?, intent, kind).await?;
        self.wake();
        Ok(())
    }

    /// Ends a worker's listening: what it has not asked for since is written down.
    async fn settle(&self, listening: Option<Listening>, state: Option<&State>) {
        let Some(listening) = listening else { return };
        let intent = listening.intent().to_owned();
        for kind in listening.end() {
            if state.is_some_and(|state| is_known(state.payment, &kind)) {
                continue;
            }
            for pause in [100, 500, 2000, 8000, 0] {
                match self.write_down(&intent, &kind).await {
                    Ok(()) => break,
                    Err(error) => tracing::warn!(%error, kind, "saga.news_not_written"),
                }
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    }

    /// Applies a fact and wakes the runner. The error is 503's: busy, or the
    /// database is away.
    pub async fn tell(&self, order: Uuid, input: Input) -> Applied {
        let report = Report { order, facts: vec![input], lease: None };
        let applied = self.facts.run(report).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        self.wake();
        applied
    }

    /// Claims and works until the process stops, then waits for the calls under way.
    pub async fn run(self, pulse: Pulse) {
        let mut looked = Instant::now();
        while !self.stop.is_cancelled() {
            pulse.beat();
            let leases = match self.claim(self.slots.available_permits(), &mut looked).await {
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
                () = self.bell.notified() => {}
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
    async fn claim(&self, free: usize, looked: &mut Instant) -> sqlx::Result<Vec<Lease>> {
        if free == 0 {
            self.queued.store(true, Ordering::Relaxed);
            if looked.elapsed() < LOOK_EVERY {
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
            self.note(false);
        } else if looked.elapsed() >= LOOK_EVERY {
            *looked = Instant::now();
            match store::waiting(&mut connection, MOST_WAITING).await {
                Ok(waiting) => self.note(waiting >= MOST_WAITING),
                // What was claimed is worked on all the same.
                Err(error) => tracing::warn!(%error, "saga.not_counted"),
            }
        }
        Ok(leases)
    }

    /// Makes one call after the other until the saga rests. `job` is what is known of it already.
    async fn work(&self, lease: Lease, job: Option<Job>) {
        let mut work = Work { lease, job, seen: i64::MAX, listening: None };
        let worked = self.steps(&mut work).await;
        self.settle(work.listening.take(), work.job.as_ref().map(|job| &job.state)).await;
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
    async fn steps(&self, work: &mut Work) -> sqlx::Result<Option<Rest>> {
        reach("order.saga.leased").await?;
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
            work.seen = job.progress.news;
            match &job.state.intent {
                Some(intent) if asks_again(&job.state) => {
                    work.listening.get_or_insert_with(|| self.heard.listen(intent));
                }
                // Somebody else has changed its course.
                _ => self.settle(work.listening.take(), Some(&job.state)).await,
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
    async fn step(&self, work: &mut Work, job: &mut Job) -> sqlx::Result<Next> {
        let lease = work.lease;
        let call = job.state.next_call();
        // The answers to most calls are the news; what is left of it at rest is looked into.
        let unread = job.has_news() && matches!(call, None | Some(Call::Refund));
        if call.is_none() && !unread {
            return Ok(Next::Rest(Rest::DONE));
        }
        let facts = match call.filter(|_| !unread) {
            _ if job.is_overdue() && !unread => vec![Input::Deadline],
            call => self.ask(lease.order_id, job, call).await?,
        };
        let unanswered = facts.contains(&Input::NoAnswer);
        let before = (job.state.clone(), job.progress.clone());
        let (facts, after) = tell_new(&job.state, facts);
        // From here on it may be settled, and is not asked for by itself any more: what is said after its last answer, or
        // was just before, has to be written down first.
        if !asks_again(&after) && after.phase != Phase::Confirmed {
            self.settle(work.listening.take(), None).await;
        }
        if !facts.is_empty() {
            // A look leaves the lease to the load that follows it.
            let report = Report { order: lease.order_id, facts, lease: (!unread).then_some(lease) };
            match self.learn(report).await? {
                Some(Ok(Reported { state, progress })) => (job.state, job.progress) = (state, progress),
                None | Some(Err(_)) => {
                    return Ok(Next::Rest(Rest { pause: LONGEST_PAUSE, in_vain: true }));
                }
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
            store::read_news(&mut *self.pool.acquire().await?, lease.order_id, before.1.news).await?;
            return Ok(Next::Load);
        }
        let attempts = before.1.attempts;
        if refund_failed_again(&before.0, &job.state) {
            return Ok(Next::Rest(Rest { pause: patient_pause(attempts), in_vain: true }));
        }
        if unanswered || job.state == before.0 {
            return Ok(Next::Rest(Rest { pause: pause(attempts), in_vain: true }));
        }
        Ok(Next::Call)
    }

    /// What the call says, or a look where there is none; and what the next says, where it is asked at once.
    async fn ask(&self, order: Uuid, job: &Job, call: Option<Call>) -> sqlx::Result<Vec<Input>> {
        let began = Instant::now();
        let mut facts = self.call(order, job, call).await?;
        // Held money is not written down by itself: the stock is asked for at once, and both are written together.
        // Whoever takes over in between hears both again.
        if let [Input::Intent(Intent::Authorised)] = facts[..]
            && job.state.phase == Phase::Authorising
            && !job.is_overdue()
            && began.elapsed() < self.times.provider_call / 4
        {
            facts.extend(self.call(order, job, Some(Call::CommitStock)).await?);
        }
        Ok(facts)
    }

    async fn call(&self, order: Uuid, job: &Job, call: Option<Call>) -> sqlx::Result<Vec<Input>> {
        let span = tracing::info_span!("saga.call", otel.kind = "client", call = ?call);
        telemetry::continue_traceparent(&span, job.traceparent.as_deref());
        reach(calls::before(call)).await?;
        let calls = async {
            match call {
                Some(call) => self.calls.make(order, job, call).await,
                None => self.calls.look(job).await,
            }
        };
        // It may be several calls; the lease is longer than one deadline.
        let answer = tokio::time::timeout(self.times.provider_call, calls.instrument(span)).await;
        reach(calls::after(call)).await?;
        Ok(answer.unwrap_or_else(|_| vec![Input::NoAnswer]))
    }

    /// Applies facts; tries a few times, not for longer than a lease, as they may be dear to learn again.
    async fn learn(&self, report: Report) -> Applied {
        let until = tokio::time::Instant::now() + self.times.saga_lease;
        let tries = async {
            for pause in [100, 500, 2000] {
                match self.facts.run(report.clone()).await {
                    Ok(Err(error)) if service::db::is_transient(&error) => {}
                    Ok(applied) => return applied,
                    Err(_) => {}
                }
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            self.facts.run(report.clone()).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
        };
        timeout_at(until, tries).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
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
        store::release(&mut connection, lease, rest.pause, rest.in_vain, seen).await
    }
}

/// All reports in one transaction, or a bad one apart from the others.
async fn apply(
    pool: &Pool,
    outbox: &Outbox,
    live: &Live,
    reports: &[Report],
    hold: Duration,
) -> Vec<Applied> {
    let together = |part: Range<usize>| async move {
        let mut transaction = service::db::begin(pool).await?;
        let applied = facts::apply(&mut transaction, &reports[part], hold).await?;
        reach("order.saga.written").await?;
        transaction.commit().await?;
        reach("order.saga.committed").await?;
        outbox.wake();
        live.announce(&applied.moved);
        Ok::<_, sqlx::Error>(applied.answers)
    };
    split(reports.len(), together).await
}

/// Whether a worker will yet ask the provider how the intent is, without being told to: it is not settled, nor on its way there.
fn asks_again(state: &State) -> bool {
    matches!(state.phase, Phase::Authorising | Phase::Committing | Phase::Capturing)
}

/// The facts that change something, and the state after them. A look tells much that is known; what a slow worker takes for
/// known is told again by the next look.
fn tell_new(state: &State, facts: Vec<Input>) -> (Vec<Input>, State) {
    let mut state = state.clone();
    let mut new = Vec::with_capacity(facts.len());
    for fact in facts {
        match state.clone().apply(fact.clone(), Uuid::now_v7()) {
            Ok((told, _)) if matches!(fact, Input::Heard(_) | Input::NoAnswer) && told == state => continue,
            Ok((told, _)) => state = told,
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
