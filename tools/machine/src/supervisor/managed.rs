//! One process that is kept running: started, watched, started again.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::console;
use crate::docker;
use crate::layout::Layout;
use crate::process::{self, Identity};
use crate::spec::Spec;

pub struct Managed {
    pub spec: Spec,
    pub child: Option<Child>,
    pub identity: Option<Identity>,
    pub since: Instant,
    /// Restarts begin once it has served: what fails before that would only fail again.
    pub served: bool,
    pub failures: u32,
    pub restart_at: Option<Instant>,
    /// It is being stopped to be started anew, by [`Supervisor::restart`](super::Supervisor::restart).
    pub replaced: bool,
    pub exit: Option<ExitStatus>,
}

/// The first and the longest wait before a restart.
pub const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Wait before restart number `failures` (from 1), doubling.
fn backoff(failures: u32) -> Duration {
    (WAITS.0 * (1 << failures.saturating_sub(1).min(6))).min(WAITS.1)
}

/// A process that lived this long has recovered: its next death counts as the first.
const RECOVERED: Duration = Duration::from_secs(30);

impl Managed {
    /// A process that has not been started yet.
    pub fn new(spec: Spec) -> Managed {
        Managed {
            spec,
            child: None,
            identity: None,
            since: Instant::now(),
            served: false,
            failures: 0,
            restart_at: None,
            replaced: false,
            exit: None,
        }
    }

    pub fn spawn(&mut self, layout: &Layout) -> Result<()> {
        let spec = &self.spec;
        let log = layout.append_log(&spec.name)?;
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
        if let Some(container) = &spec.container {
            docker::remove(container);
        }
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", spec.program.display()))?;
        self.identity = match &spec.container {
            Some(container) => docker::identity(container, &mut child)?,
            None => Identity::of(child.id()),
        };
        self.child = Some(child);
        self.since = Instant::now();
        self.exit = None;
        self.restart_at = None;
        Ok(())
    }

    /// Notices a death and restarts when it is time, `longest` after it at most. True when the process's id changed.
    pub fn watch(&mut self, layout: &Layout, longest: Duration) -> bool {
        if self.replaced {
            return false;
        }
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
            self.schedule(&format!("ended ({})", said(exit)), longest);
            return true;
        }
        if self.restart_at.is_none_or(|at| Instant::now() < at) {
            return false;
        }
        match self.spawn(layout) {
            Ok(()) => {
                let pid = self.identity.as_ref().map(|i| format!(", pid {}", i.pid)).unwrap_or_default();
                console::event(&self.spec.name, &format!("restarted{pid}"));
            }
            Err(e) => {
                self.failures += 1;
                self.schedule(&format!("{e:#}"), longest);
            }
        }
        true
    }

    /// Starts what was stopped on purpose anew.
    pub fn replace(&mut self, layout: &Layout) -> Result<()> {
        self.reap();
        (self.child, self.identity, self.failures) = (None, None, 0);
        // The program may be missing for a moment only, while it is built.
        self.spawn(layout).inspect_err(|_| self.restart_at = Some(Instant::now() + WAITS.1))
    }

    /// Collects the exit status of what was stopped, so that no zombie stays while this process lives on.
    pub fn reap(&mut self) {
        let Some(child) = &mut self.child else { return };
        // `docker run` ends once the engine has removed the container.
        let deadline = Instant::now() + Duration::from_secs(10);
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
            process::pause(10);
        }
        // Without effect on one that has ended.
        let _ = child.kill();
        let _ = child.wait();
    }

    fn schedule(&mut self, why: &str, longest: Duration) {
        let wait = backoff(self.failures).min(longest);
        self.restart_at = Some(Instant::now() + wait);
        let text = format!("{why}; starting it again in {:.1} s", wait.as_secs_f64());
        console::event(&self.spec.name, &text);
    }
}

/// How a process ended, in words.
pub fn said(exit: ExitStatus) -> String {
    match (exit.code(), exit.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => exit.to_string(),
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
