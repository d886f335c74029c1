//! Works on sagas: claims what is due, makes the next call, applies the answer.
//!
//! Any replica may work on any order; a lease keeps two from doing so at once. When a worker dies, its lease
//! runs out, and the order goes on from the last commit.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use messaging::Outbox;
use order_core::ids::OrderId;
use service::Pulse;
use service::db::Pool;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument;

use super::Input;
use super::applier::{Applier, NotApplied};
use super::calls::Calls;
use super::facts::{Report, Reported};
use super::store::{self, Job, Lease};
use super::webhooks::{OF_INTENTS, Reports};
use crate::events::stream::OrderStream;
use crate::order::Placement;
use crate::order::store::FIRST_EPOCH;
use crate::times::Times;

/// Orders worked on at once by one process.
const AT_ONCE: usize = 128;
const POLL_EVERY: Duration = Duration::from_millis(500);

/// With this many orders that wait for a worker, new orders come faster than they can be worked on.
const MOST_WAITING: i64 = 128;
const COUNT_EVERY: Duration = Duration::from_millis(100);
/// An older count is no longer valid.
const COUNT_HOLDS: Duration = Duration::from_secs(2);

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
    pub(super) pool: Pool,
    pub(super) calls: Calls,
    pub(super) times: Times,
    pub(super) applier: Applier,
    wake_up: Notify,
    slots: Arc<Semaphore>,
    workers: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) reports: Reports,
    /// When too many orders were last seen waiting for a worker; nothing if fewer were seen since.
    backlog: Mutex<Option<Instant>>,
    /// Others wait for a worker: they come first.
    queued: AtomicBool,
}

impl Deref for Sagas {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// A panic elsewhere does not make its content wrong.
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

    /// Whether orders come faster than they can be worked on, so that each new one would wait longer than the
    /// one before. All processes share one queue.
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

    /// Wakes the runner, as a saga is due.
    pub fn wake(&self) {
        self.wake_up.notify_one();
    }

    /// A slot for an order that is about to be placed; `None` when it has to wait for its turn.
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

    /// Takes a report of this `kind` by the provider about an intent. It is kept in memory if a worker of
    /// this process will ask about the intent anyway, and in the database otherwise.
    pub async fn report(&self, intent: &str, kind: &str) -> sqlx::Result<()> {
        if kind.starts_with(OF_INTENTS) && self.reports.keep(intent, kind) {
            return Ok(());
        }
        self.write_down(intent, kind).await
    }

    pub(super) async fn write_down(&self, intent: &str, kind: &str) -> sqlx::Result<()> {
        if store::add_report(&mut *self.pool.acquire().await?, intent, kind).await? {
            self.wake();
        }
        Ok(())
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
                // An order that was placed meanwhile may have taken the slot.
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

    /// Takes as many sagas as there are free workers, and counts from time to time how many are left.
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
                // Claimed sagas are worked on even if this fails.
                Err(error) => tracing::warn!(%error, "saga.not_counted"),
            }
        }
        Ok(leases)
    }

    /// Undoes the claim.
    async fn put_back(&self, lease: Lease) {
        let back = async { store::put_back(&mut *self.pool.acquire().await?, lease).await };
        if let Err(error) = back.await {
            tracing::warn!(%error, "saga.not_put_back"); // the lease runs out
        }
    }
}
