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
        let named = processes.iter().filter(|p| row.contains(&p.name.as_str()));
        let stopping: Vec<_> = named.filter_map(|p| Some((p, p.live()?))).collect();
        for (p, identity) in &stopping {
            identity.signal(stop_signal(&p.name));
            // A stopped (SIGSTOP) process could not act on it.
            identity.signal(Signal::CONT);
        }
        let mut waited = Duration::ZERO;
        while stopping.iter().any(|(_, identity)| identity.alive()) && waited < GRACE && !at_once() {
            process::pause(20);
            waited += Duration::from_millis(20);
        }
        for (p, identity) in &stopping {
            if identity.alive() {
                if !at_once() {
                    let text = format!("did not end within {} s: killed", GRACE.as_secs());
                    console::event(&p.name, &text);
                }
                process::kill(identity.pid, Signal::KILL);
                process::kill_group(identity.pid);
                identity.wait_gone(Duration::from_secs(5));
            } else if !p.hidden {
                console::step(&p.name, "stopped");
            }
        }
    }
}
