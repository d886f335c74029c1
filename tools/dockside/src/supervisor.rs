//! Keeps processes running: starts them, waits until they serve, restarts what dies, ends them in order.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::console;
use crate::layout::Layout;
use crate::net::Probe;
use crate::process::{self, Identity, Signal};
use crate::servers::User;
use crate::state::{Addresses, Process, State};
use crate::{shutdown, signals};

/// How a process is started, asked and stopped.
#[derive(Clone)]
pub struct Spec {
    pub name: &'static str,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub run_as: Option<User>,
    pub addresses: Addresses,
    pub probe: Probe,
    pub hidden: bool,
}

struct Managed {
    spec: Spec,
    child: Option<Child>,
    identity: Option<Identity>,
    since: Instant,
    /// Restarts begin once it has served: what fails before that would only fail again.
    served: bool,
    failures: u32,
    restart_at: Option<Instant>,
    exit: Option<ExitStatus>,
}

pub struct Supervisor {
    layout: Layout,
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    managed: Vec<Managed>,
    stopping: bool,
}

/// Wait before restart number `failures` (from 1): 0.2 s doubling to 10 s.
fn backoff(failures: u32) -> Duration {
    Duration::from_millis(200 << failures.saturating_sub(1).min(6)).min(Duration::from_secs(10))
}

/// A process that lived this long has recovered: its next death counts as the first.
const RECOVERED: Duration = Duration::from_secs(30);

impl Supervisor {
    /// Watches from now on, in a thread that ends with [`Supervisor::stop`].
    pub fn new(layout: &Layout) -> Result<Arc<Supervisor>> {
        let mut state = State::load(layout);
        state.supervisor = Identity::of(std::process::id());
        state.ready = false;
        state.edge = None;
        state.processes.clear();
        state.save(layout)?;
        let inner = Mutex::new(Inner { state, managed: Vec::new(), stopping: false });
        let supervisor = Arc::new(Supervisor { layout: layout.clone(), inner });
        let watched = Arc::clone(&supervisor);
        thread::spawn(move || {
            while watched.tick() {
                process::pause(100);
            }
        });
        Ok(supervisor)
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
    pub fn start(&self, spec: Spec) -> Result<()> {
        self.layout.rotate_log(spec.name)?;
        let mut inner = self.lock();
        if inner.stopping {
            return Err(signals::Interrupted.into());
        }
        let mut managed = Managed {
            spec,
            child: None,
            identity: None,
            since: Instant::now(),
            served: false,
            failures: 0,
            restart_at: None,
            exit: None,
        };
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

    /// One look at every process. False once the supervisor stops.
    fn tick(&self) -> bool {
        let mut inner = self.lock();
        if inner.stopping {
            return false;
        }
        let mut changed = false;
        for managed in &mut inner.managed {
            changed |= managed.watch(&self.layout);
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
            // Collects the exit status, so that no zombie stays while this process lives on.
            if let Some(child) = &mut managed.child {
                let _ = child.wait();
            }
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
            .filter_map(|m| {
                Some(Process {
                    name: m.spec.name.to_owned(),
                    identity: m.identity.clone()?,
                    addresses: m.spec.addresses.clone(),
                    probe: m.spec.probe.clone(),
                    hidden: m.spec.hidden,
                })
            })
            .collect();
        self.state.save(layout)
    }
}

impl Managed {
    fn spawn(&mut self, layout: &Layout) -> Result<()> {
        let spec = &self.spec;
        let log = layout.append_log(spec.name)?;
        if let Some(user) = &spec.run_as {
            // nginx opens its standard output anew, by name.
            std::os::unix::fs::fchown(&log, Some(user.uid), Some(user.gid))?;
        }
        let mut command = Command::new(&spec.program);
        command
            .args(&spec.args)
            .envs(spec.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A group of its own: Ctrl-C reaches this process only, which then ends the others in order.
            .process_group(0);
        for (name, _) in &spec.env {
            // The services refuse a setting that is given both ways.
            command.env_remove(format!("{name}_FILE"));
        }
        if let Some(user) = &spec.run_as {
            // That account may not be able to enter the folder where this was typed.
            command.uid(user.uid).gid(user.gid).current_dir("/");
        }
        let child = command.spawn().with_context(|| format!("cannot start {}", spec.program.display()))?;
        self.identity = Identity::of(child.id());
        self.child = Some(child);
        self.since = Instant::now();
        self.exit = None;
        self.restart_at = None;
        Ok(())
    }

    /// Notices a death and restarts when it is time. True when the process's id changed.
    fn watch(&mut self, layout: &Layout) -> bool {
        if let Some(child) = &mut self.child {
            let Ok(Some(exit)) = child.try_wait() else {
                return false;
            };
            // nginx's workers outlive a killed master and keep its port.
            process::kill_group(child.id());
            self.child = None;
            self.identity = None;
            self.exit = Some(exit);
            if !self.served {
                return true;
            }
            self.failures = if self.since.elapsed() > RECOVERED { 1 } else { self.failures + 1 };
            self.schedule(&format!("ended ({})", said(exit)));
            return true;
        }
        if self.restart_at.is_none_or(|at| Instant::now() < at) {
            return false;
        }
        match self.spawn(layout) {
            Ok(()) => {
                let pid = self.identity.as_ref().map_or(0, |i| i.pid);
                console::event(self.spec.name, &format!("restarted, pid {pid}"));
            }
            Err(e) => {
                self.failures += 1;
                self.schedule(&format!("{e:#}"));
            }
        }
        true
    }

    fn schedule(&mut self, why: &str) {
        let wait = backoff(self.failures);
        self.restart_at = Some(Instant::now() + wait);
        let text = format!("{why}; starting it again in {:.1} s", wait.as_secs_f64());
        console::event(self.spec.name, &text);
    }
}

fn said(exit: ExitStatus) -> String {
    match (exit.code(), exit.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => exit.to_string(),
    }
}

/// The signal that ends a process the orderly way.
pub fn stop_signal(name: &str) -> Signal {
    match name {
        // Fast shutdown: sessions are ended, the data is written.
        "postgres" => Signal::INT,
        // Requests under way are answered first.
        "edge" => Signal::QUIT,
        _ => Signal::TERM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_before_a_restart_doubles_up_to_ten_seconds() {
        let waits: Vec<_> = (1..=8).map(|n| backoff(n).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff(u32::MAX), Duration::from_secs(10));
    }
}
