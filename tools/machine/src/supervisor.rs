//! Keeps processes running: starts them, waits until they serve, restarts what dies, ends them in order.

mod managed;
pub mod restart;
pub mod shutdown;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::managed::{Managed, WAITS, said};
use crate::clocks::Clocks;
use crate::console::{self, step};
use crate::layout::Layout;
use crate::process::{self, Identity};
use crate::signals;
use crate::spec::Spec;
use crate::state::{Process, State};

pub struct Supervisor {
    layout: Layout,
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    managed: Vec<Managed>,
    stopping: bool,
    /// Nobody dead is left so for longer.
    longest_wait: Duration,
    /// In runs whose clocks jump.
    clocks: Option<Clocks>,
}

impl Supervisor {
    /// Watches from now on, in a thread that ends with [`Supervisor::stop`].
    pub fn new(layout: &Layout) -> Result<Arc<Supervisor>> {
        let mut state = State::load(layout);
        state.supervisor = Identity::of(std::process::id());
        state.ready = false;
        (state.edge, state.postgres, state.rabbitmq) = (None, None, None);
        state.processes.clear();
        state.save(layout)?;
        restart::forget(layout);
        let inner = Mutex::new(Inner {
            state,
            managed: Vec::new(),
            stopping: false,
            longest_wait: WAITS.1,
            clocks: None,
        });
        let supervisor = Arc::new(Supervisor { layout: layout.clone(), inner });
        let watched = Arc::clone(&supervisor);
        let asked = Arc::clone(&supervisor);
        let restart = Arc::new(move |name: &str| asked.restart(name, restart::LIMIT));
        thread::spawn(move || {
            while watched.tick() {
                restart::serve(&watched.layout, &restart);
                process::pause(100);
            }
        });
        Ok(supervisor)
    }

    /// For runs that kill processes on purpose: whoever dies is started again after the shortest wait, however often.
    pub fn expect_deaths(&self) {
        self.lock().longest_wait = WAITS.0;
    }

    /// For runs with faults: processes that are started from now on have clocks that can jump.
    pub fn with_clocks(&self, clocks: Clocks) {
        self.lock().clocks = Some(clocks);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere must not keep the processes from being stopped.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn state(&self) -> State {
        self.lock().state.clone()
    }

    /// Changes the state and writes it.
    pub fn update(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        let mut inner = self.lock();
        change(&mut inner.state);
        inner.state.save(&self.layout)
    }

    /// Starts a process with a fresh log; it is restarted when it dies after having served.
    pub fn start(&self, mut spec: Spec) -> Result<()> {
        self.layout.rotate_log(&spec.name)?;
        let mut inner = self.lock();
        if inner.stopping {
            return Err(signals::Interrupted.into());
        }
        if let Some(clocks) = &inner.clocks {
            clocks.attach(&mut spec)?;
        }
        let mut managed = Managed::new(spec);
        managed.spawn(&self.layout)?;
        inner.managed.push(managed);
        inner.publish(&self.layout)
    }

    /// Waits until the process serves; returns how long it took since its start.
    ///
    /// # Errors
    /// when it ends or the limit passes first, with the end of its log.
    pub fn wait_ready(&self, name: &str, limit: Duration) -> Result<Duration> {
        let deadline = Instant::now() + limit;
        loop {
            signals::check()?;
            let (probe, exit, since) = {
                let inner = self.lock();
                let managed = inner.managed.iter().find(|m| m.spec.name == name).context("not started")?;
                (managed.spec.probe.clone(), managed.exit, managed.since)
            };
            if let Some(exit) = exit {
                bail!("{}", self.failure(name, &format!("ended before it was ready ({})", said(exit))));
            }
            if probe.ready() {
                let mut inner = self.lock();
                if let Some(managed) = inner.managed.iter_mut().find(|m| m.spec.name == name) {
                    managed.served = true;
                }
                return Ok(since.elapsed());
            }
            if Instant::now() >= deadline {
                bail!("{}", self.failure(name, &format!("is not ready after {} s", limit.as_secs())));
            }
            process::pause(25);
        }
    }

    /// Ends a process the orderly way and starts it from its program as it is now; returns how long it took to serve.
    ///
    /// # Errors
    /// when it does not serve within `limit` of its start, with the end of its log. It is kept running all the same.
    pub fn restart(&self, name: &str, limit: Duration) -> Result<Duration> {
        let running = {
            let mut inner = self.lock();
            let managed = inner.managed.iter_mut().find(|m| m.spec.name == name).context("not started")?;
            managed.replaced = true;
            managed.identity.clone()
        };
        if let Some(identity) = running {
            shutdown::stop(&[(name, &identity)], signals::stop_at_once);
        }
        let mut inner = self.lock();
        let stopping = inner.stopping;
        let managed = inner.managed.iter_mut().find(|m| m.spec.name == name).context("not started")?;
        managed.replaced = false;
        if stopping {
            return Err(signals::Interrupted.into());
        }
        let spawned = managed.replace(&self.layout);
        inner.publish(&self.layout)?;
        drop(inner);
        spawned?;
        self.wait_ready(name, limit)
    }

    fn failure(&self, name: &str, what: &str) -> String {
        let lines = process::tail(&self.layout.log(name), 20);
        let mut text = format!("{name} {what}\n");
        for line in &lines {
            text.push_str(&format!("    {line}\n"));
        }
        if lines.iter().any(|l| l.contains("No space left on device")) {
            text.push_str("The disk is full: free some space and try again.\n");
        }
        text.push_str(&format!(
            "The whole log: {}. Fix what it says and run the command again",
            self.layout.log(name).display()
        ));
        text
    }

    /// One check of every process. False once the supervisor stops.
    fn tick(&self) -> bool {
        let mut inner = self.lock();
        if inner.stopping {
            return false;
        }
        let mut changed = false;
        let longest = inner.longest_wait;
        for managed in &mut inner.managed {
            changed |= managed.watch(&self.layout, longest);
        }
        if changed && let Err(e) = inner.publish(&self.layout) {
            console::event("dockside", &format!("cannot write the state: {e:#}"));
        }
        true
    }

    /// Ends everything in order; kills it at once when a second signal comes.
    pub fn stop(&self) {
        let processes = {
            let mut inner = self.lock();
            inner.stopping = true;
            inner.state.processes.clone()
        };
        shutdown::stop_in_order(&processes, signals::stop_at_once);
        let mut inner = self.lock();
        for managed in &mut inner.managed {
            managed.reap();
        }
        inner.managed.clear();
        inner.state.processes.clear();
        inner.state.supervisor = None;
        inner.state.ready = false;
        inner.state.edge = None;
        if let Err(e) = inner.state.save(&self.layout) {
            console::error(&format!("{e:#}"));
        }
    }
}

impl Inner {
    fn publish(&mut self, layout: &Layout) -> Result<()> {
        self.state.processes = self
            .managed
            .iter()
            .map(|m| Process {
                name: m.spec.name.clone(),
                identity: m.identity.clone(),
                addresses: m.spec.addresses.clone(),
                probe: m.spec.probe.clone(),
                hidden: m.spec.hidden,
            })
            .collect();
        self.state.save(layout)
    }
}

/// Ends what a supervisor that was killed left running.
pub fn stop_stale(layout: &Layout) {
    let stale: Vec<_> = State::load(layout).processes.into_iter().filter(|p| p.live().is_some()).collect();
    if !stale.is_empty() {
        step("dockside", "stopping what an earlier run left");
        shutdown::stop_in_order(&stale, signals::stop_at_once);
    }
}
