//! From start to drained end.
//!
//! SIGTERM: not ready -> wait until load balancers have noticed -> let no new
//! connection in -> stop taking work -> let tasks finish -> end. A second signal,
//! or the end of the grace time, ends the process at once. A task that ends by
//! itself ends the process with an error: a service never runs on with half of
//! itself missing.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::config::{self, Process};
use crate::health::Health;
use crate::healthcheck;
use crate::telemetry;
use crate::watchdog::{Pulse, Watchdog};

/// Between letting no new connection in and stopping: time for the last client to complete its handshake and
/// to send its request. It is under one second: then a client that was not let in tries again, and should
/// find the port closed.
const LAST_ARRIVALS: Duration = Duration::from_millis(750);

/// How long a worker may be without movement: several times its longest step.
const WATCHDOG: Duration = Duration::from_secs(60);

/// A running service's tasks, and how they are stopped.
#[derive(Clone)]
pub struct Lifecycle {
    closing: CancellationToken,
    stop: CancellationToken,
    failed: CancellationToken,
    tasks: TaskTracker,
    health: Arc<Health>,
    watchdog: Arc<Watchdog>,
}

/// Writes to standard error, unless that would block: whoever reads it may be what everything waits for.
fn say(text: &'static str) {
    let (done, written) = std::sync::mpsc::channel();
    let write = move || {
        let _ = std::io::stderr().write_all(text.as_bytes());
        let _ = done.send(());
    };
    let _ = std::thread::Builder::new().spawn(write);
    let _ = written.recv_timeout(Duration::from_secs(1));
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// With the default limit of the watchdog.
    pub fn new() -> Self {
        Self::watched(WATCHDOG)
    }

    /// A worker may be without movement for `limit` before the process is not ready, and for twice as long before
    /// it ends.
    pub fn watched(limit: Duration) -> Self {
        let watchdog = Arc::new(Watchdog::new(limit));
        let this = Self {
            closing: CancellationToken::new(),
            stop: CancellationToken::new(),
            failed: CancellationToken::new(),
            tasks: TaskTracker::new(),
            health: Arc::new(Health::new(watchdog.clone())),
            watchdog,
        };
        // No task runs, so none can end the process in order.
        let guarded = this.watchdog.guard(this.stop.clone(), || {
            say("runtime.stalled: no task has run for long: the process ends\n");
            std::process::abort();
        });
        if let Err(error) = guarded {
            tracing::warn!(%error, "watchdog.no_thread");
        }
        let (watchdog, stop, failed) = (this.watchdog.clone(), this.stop.clone(), this.failed.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                name = watchdog.bark() => {
                    tracing::error!(task.name = name, "task.stalled");
                    failed.cancel();
                    stop.run_until_cancelled(watchdog.run_on()).await;
                }
            }
        });
        this
    }

    /// Whether a task has ended by itself or stopped moving, so that the process has to end.
    pub fn has_failed(&self) -> bool {
        self.failed.is_cancelled()
    }

    /// As [`Self::spawn`], for a loop that shows by its [`Pulse`] that it goes on.
    pub fn spawn_worker<F>(&self, name: &'static str, worker: impl FnOnce(Pulse) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let worker = worker(self.watchdog.watch(name));
        self.spawn(name, async move {
            worker.await;
            Ok(())
        });
    }

    /// A worker that runs `step` once in `every`, and again at once while `step` says that there may be more.
    pub fn spawn_every<F>(&self, name: &'static str, every: Duration, step: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let stop = self.stopping();
        self.spawn_worker(name, |pulse| async move {
            loop {
                let mut more = true;
                while more && !stop.is_cancelled() {
                    pulse.beat();
                    more = step().await;
                }
                if pulse.rest(stop.run_until_cancelled(tokio::time::sleep(every))).await.is_none() {
                    return;
                }
            }
        });
    }

    /// Cancelled when ports are to let no new connection in, a moment before [`Self::stopping`].
    pub(crate) fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// Cancelled when the service is to take no more work.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    pub fn health(&self) -> Arc<Health> {
        self.health.clone()
    }

    /// Runs a task that lives until [`Self::stopping`].
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let (stop, failed) = (self.stop.clone(), self.failed.clone());
        let task = tokio::spawn(task.instrument(tracing::info_span!("task", task.name = name)));
        self.tasks.spawn(async move {
            let outcome = match task.await {
                Ok(Ok(())) if stop.is_cancelled() => return,
                Ok(Ok(())) => "it ended".to_owned(),
                Ok(Err(error)) => format!("{error:#}"),
                Err(panic) => panic.to_string(),
            };
            tracing::error!(task.name = name, error = outcome, "task.failed");
            failed.cancel();
        });
    }

    /// Stops taking work and waits for the tasks; false when they took longer than `grace`.
    pub async fn shutdown(&self, grace: Duration) -> bool {
        self.health.stopping();
        self.closing.cancel();
        tokio::time::sleep(LAST_ARRIVALS).await;
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(grace, self.tasks.wait()).await.is_ok()
    }

    async fn until_stopped(&self, process: &Process, signals: &mut Signals) -> anyhow::Result<()> {
        let delay = tokio::select! {
            name = signals.next() => {
                tracing::info!(signal = name, "service.stopping");
                process.shutdown_delay()
            }
            () = self.failed.cancelled() => Duration::ZERO,
        };
        self.health.stopping();
        tokio::select! {
            finished = async {
                tokio::time::sleep(delay).await;
                self.shutdown(process.shutdown_grace()).await
            } => anyhow::ensure!(finished, "not everything finished within the grace time"),
            _ = signals.next() => anyhow::bail!("a second signal"),
        }
        anyhow::ensure!(!self.failed.is_cancelled(), "a task ended unexpectedly");
        Ok(())
    }
}

/// The signals that end a service.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on they no longer end the process by themselves; the first process of a container would
    /// otherwise ignore them.
    fn listen() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// A service's `main`: settings, telemetry, `start`, then run until a signal.
/// `<service> healthcheck` asks the running one whether it is ready instead.
pub fn run<C, S, F>(name: &'static str, process: impl Fn(&C) -> &Process, start: S) -> ExitCode
where
    C: Parser,
    S: FnOnce(C, Lifecycle) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    if let Some(asked) = healthcheck::<C>("ADMIN_ADDR", "/readyz") {
        return asked;
    }
    let serve = || -> anyhow::Result<()> {
        let config: C = config::load()?;
        let process = process(&config).clone();
        let runtime = tokio::runtime::Runtime::new().context("can't start the async runtime")?;
        let result = runtime.block_on(async {
            let telemetry = telemetry::start(name, &process)?;
            let lifecycle = Lifecycle::watched(process.watchdog());
            let served = async {
                let mut signals = Signals::listen()?;
                tokio::select! {
                    started = start(config, lifecycle.clone()) => started?,
                    // Nobody has been served yet, and a migration rolls back with its connection.
                    name = signals.next() => {
                        tracing::info!(signal = name, "service.stopping_before_ready");
                        return Ok(());
                    }
                }
                lifecycle.until_stopped(&process, &mut signals).await
            };
            let result = served.await;
            match &result {
                Ok(()) => tracing::info!("service.stopped"),
                Err(error) => tracing::error!(error = format!("{error:#}"), "service.failed"),
            }
            telemetry.flush();
            result
        });
        // Blocking tasks (password hashing) are not waited for.
        runtime.shutdown_background();
        result
    };
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
