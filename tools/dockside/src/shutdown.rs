//! Ends processes in the order that lets each finish its work.

use std::time::Duration;

use crate::console;
use crate::process::{self, Signal};
use crate::state::Process;
use crate::supervisor::stop_signal;

/// First what takes requests, last what holds the data; those in one row end together.
const ORDER: &[&[&str]] = &[
    &["edge"],
    &["order"],
    &["product"],
    &["user"],
    &["payment-sandbox"],
    &["rabbitmq", "postgres"],
    &["epmd"],
];

/// What a process gets to finish its work.
const GRACE: Duration = Duration::from_secs(25);

/// Stops all of them; those that outlive their grace, or all once `at_once` says so, are killed.
pub fn stop_in_order(processes: &[Process], at_once: impl Fn() -> bool) {
    for row in ORDER {
        let stopping: Vec<&Process> =
            processes.iter().filter(|p| row.contains(&p.name.as_str()) && p.identity.alive()).collect();
        for p in &stopping {
            p.identity.signal(stop_signal(&p.name));
            // A stopped (SIGSTOP) process could not act on it.
            p.identity.signal(Signal::CONT);
        }
        let mut waited = Duration::ZERO;
        while stopping.iter().any(|p| p.identity.alive()) && waited < GRACE && !at_once() {
            process::pause(20);
            waited += Duration::from_millis(20);
        }
        for p in &stopping {
            if p.identity.alive() {
                if !at_once() {
                    let text = format!("did not end within {} s: killed", GRACE.as_secs());
                    console::event(&p.name, &text);
                }
                process::kill(p.identity.pid, Signal::KILL);
                process::kill_group(p.identity.pid);
                p.identity.wait_gone(Duration::from_secs(5));
            } else if !p.hidden {
                console::step(&p.name, "stopped");
            }
        }
    }
}
