//! Notices a background worker that has stopped moving.
//!
//! Each worker reports once a pass that it goes on, whatever the result of the pass. A call that ended by its
//! deadline is movement too, so an outage of the database, however long, restarts nothing. A worker that is
//! silent for the limit makes the process not ready. After twice as long the watchdog ends the process, so
//! that another one takes over its work. A thread watches whether tasks run at all.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

const TICK: Duration = Duration::from_secs(1);

/// The means by which a worker reports that it goes on.
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

    /// One that nobody watches: for tests.
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
    /// Ticks of the thread since the last of [`Self::bark`].
    unwatched: AtomicU32,
}

impl Watchdog {
    pub fn new(limit: Duration) -> Self {
        let limit = limit.as_secs().try_into().unwrap_or(u32::MAX);
        Self { workers: Mutex::default(), limit, unwatched: AtomicU32::new(0) }
    }

    /// Starts a thread that calls `end` once if no task has run for twice the limit. It ends with `stop`, and with
    /// the watchdog.
    pub fn guard(
        self: &Arc<Self>,
        stop: CancellationToken,
        end: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let watchdog = Arc::downgrade(self);
        let watch = move || {
            loop {
                #[expect(clippy::disallowed_methods, reason = "this thread runs no tasks")]
                std::thread::sleep(TICK);
                let Some(watchdog) = Weak::upgrade(&watchdog).filter(|_| !stop.is_cancelled()) else {
                    return;
                };
                if watchdog.unwatched.fetch_add(1, Ordering::Relaxed) >= watchdog.limit.saturating_mul(2) {
                    return end();
                }
            }
        };
        std::thread::Builder::new().name("watchdog".to_owned()).spawn(watch)?;
        Ok(())
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
            self.unwatched.store(0, Ordering::Relaxed);
            for worker in self.workers().iter().filter(|worker| !worker.resting.load(Ordering::Relaxed)) {
                worker.silent.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(name) = self.silent_for(self.limit.saturating_mul(2)) {
                return name;
            }
        }
    }

    /// Shows the thread that tasks run, though one is stalled. Does not end.
    pub async fn run_on(&self) {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            self.unwatched.store(0, Ordering::Relaxed);
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

    #[test]
    fn a_runtime_that_runs_no_task_is_noticed_and_one_that_does_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let watchdog = Arc::new(Watchdog::new(Duration::from_secs(1)));
        let (ended, end) = std::sync::mpsc::channel();
        watchdog.guard(CancellationToken::new(), move || ended.send(()).unwrap()).unwrap();
        runtime.block_on(async {
            let barking = watchdog.clone();
            tokio::spawn(async move { barking.bark().await });
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert!(end.try_recv().is_err());
            // As a task that never reaches an await.
            assert!(end.recv_timeout(Duration::from_secs(10)).is_ok());
        });
    }
}
