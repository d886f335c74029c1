//! Ends processes in the order that lets each finish its work.

use std::time::Duration;

use crate::console;
use crate::process::{self, Identity, Signal};
use crate::state::{Process, service_of};

/// First who only looks on, then what takes requests, last what holds the data; those in one row end together.
const ORDER: &[&[&str]] = &[
    &["prometheus", "alertmanager", "postgres-exporter"],
    // Pages that are under way still need the edge.
    &["storefront"],
    &["edge"],
    &["order"],
    &["product"],
    &["user"],
    &["payment-sandbox"],
    &["links"],
    &["rabbitmq", "postgres"],
    &["epmd"],
];

/// What a process gets to finish its work.
pub const GRACE: Duration = Duration::from_secs(25);

/// Stops all of them; those that outlive their grace, or all once `at_once` says so, are killed.
pub fn stop_in_order(processes: &[Process], at_once: impl Fn() -> bool) {
    for row in ORDER {
        let named = processes.iter().filter(|p| row.contains(&service_of(&p.name)));
        let stopping: Vec<_> = named.filter_map(|p| Some((p, p.live()?))).collect();
        let identities: Vec<_> = stopping.iter().map(|(p, identity)| (p.name.as_str(), *identity)).collect();
        stop(&identities, &at_once);
        for (p, _) in stopping.iter().filter(|(p, identity)| !p.hidden && !identity.alive()) {
            console::step(&p.name, "stopped");
        }
    }
    // The servers of a cluster, whose data goes with them.
    let named = |p: &Process| ORDER.iter().any(|row| row.contains(&service_of(&p.name)));
    for identity in processes.iter().filter(|p| !named(p)).filter_map(Process::live) {
        process::kill(identity.pid, Signal::KILL);
        process::kill_group(identity.pid);
    }
}

/// Stops these together.
pub fn stop(stopping: &[(&str, &Identity)], at_once: impl Fn() -> bool) {
    for (name, identity) in stopping {
        identity.signal(stop_signal(name));
        // A stopped (SIGSTOP) process could not act on it.
        identity.signal(Signal::CONT);
    }
    let mut waited = Duration::ZERO;
    while stopping.iter().any(|(_, identity)| identity.alive()) && waited < GRACE && !at_once() {
        process::pause(20);
        waited += Duration::from_millis(20);
    }
    for (name, identity) in stopping.iter().filter(|(_, identity)| identity.alive()) {
        if !at_once() {
            console::event(name, &format!("did not end within {} s: killed", GRACE.as_secs()));
        }
        process::kill(identity.pid, Signal::KILL);
        process::kill_group(identity.pid);
        identity.wait_gone(Duration::from_secs(5));
    }
}

/// The signal that ends a process the orderly way.
fn stop_signal(name: &str) -> Signal {
    match name {
        // Fast shutdown: sessions are ended, the data is written.
        "postgres" => Signal::INT,
        // Requests under way are answered first.
        "edge" => Signal::QUIT,
        _ => Signal::TERM,
    }
}
