//! Notices a background worker that has stopped moving.
//!
//! Each worker says once a pass that it goes on, whatever came of the pass: a call that ended by its deadline is
//! movement too, so an outage of the database, however long, restarts nothing. A worker that says nothing for
//! the limit makes the process not ready, and after twice as long ends it, so that another
//! process takes over its work.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

const TICK: Duration = Duration::from_secs(1);

/// By which a worker says that it goes on.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Worker>);

impl Pulse {
    /// To be called at least once in each pass of the worker's loop.
    pub fn beat(&self) {
        self.0.silent.store(0, Ordering::Relaxed);
    }

    /// Waits for work. However long that takes, the worker does not hang.
    pub async fn rest<T>(&self, idle: impl Future<Output = T>) -> T {
        struct Resting<'a>(&'a Worker);
        impl Drop for Resting<'_> {
            fn drop(&mut self) {
                self.0.silent.store(0, Ordering::Relaxed);
                self.0.resting.store(false, Ordering::Relaxed);
            }
        }
        self.0.resting.store(true, Ordering::Relaxed);
        self.beat();
        let _resting = Resting(&self.0);
        idle.await
    }

    /// One that nobody looks at: for tests.
    pub fn unwatched() -> Self {
        Self(Arc::new(Worker::new("test")))
    }
}

#[derive(Debug)]
struct Worker {
    name: &'static str,
    /// Ticks since its last beat. Counted here and not read off a clock: a process that was suspended finds
    /// that time has passed, and not that its workers hang.
    silent: AtomicU32,
    /// It waits for work.
    resting: AtomicBool,
}

impl Worker {
    fn new(name: &'static str) -> Self {
        Self { name, silent: AtomicU32::new(0), resting: AtomicBool::new(false) }
    }
}

/// All workers of a process.
#[derive(Debug)]
pub(crate) struct Watchdog {
    workers: Mutex<Vec<Arc<Worker>>>,
    /// In ticks.
    limit: u32,
}

impl Watchdog {
    pub fn new(limit: Duration) -> Self {
        let limit = limit.as_secs().try_into().unwrap_or(u32::MAX);
        Self { workers: Mutex::default(), limit }
    }

    pub fn watch(&self, name: &'static str) -> Pulse {
        let worker = Arc::new(Worker::new(name));
        self.workers().push(worker.clone());
        Pulse(worker)
    }

    /// A worker that has been silent for longer than the limit.
    pub fn stalled(&self) -> Option<&'static str> {
        self.silent_for(self.limit)
    }

    /// Ends, with its name, when a worker has been silent for twice the limit.
    pub async fn bark(&self) -> &'static str {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for worker in self.workers().iter().filter(|worker| !worker.resting.load(Ordering::Relaxed)) {
                worker.silent.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(name) = self.silent_for(self.limit.saturating_mul(2)) {
                return name;
            }
        }
    }

    fn silent_for(&self, limit: u32) -> Option<&'static str> {
        let workers = self.workers();
        let silent = workers.iter().find(|worker| worker.silent.load(Ordering::Relaxed) > limit);
        silent.map(|worker| worker.name)
    }

    fn workers(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Worker>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_that_does_not_move_is_noticed_and_named_and_one_that_moves_is_not() {
        let watchdog = Arc::new(Watchdog::new(Duration::from_secs(1)));
        let (moving, resting) = (watchdog.watch("moving"), watchdog.watch("resting"));
        let stuck = watchdog.watch("stuck");
        assert_eq!(watchdog.stalled(), None);
        let beating = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                moving.beat();
            }
        });
        let idle = tokio::spawn(async move { resting.rest(std::future::pending::<()>()).await });
        assert_eq!(watchdog.bark().await, "stuck");
        assert_eq!(watchdog.stalled(), Some("stuck"));
        stuck.beat();
        assert_eq!(watchdog.stalled(), None);
        beating.abort();
        idle.abort();
    }
}
