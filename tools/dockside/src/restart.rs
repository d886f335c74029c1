//! `restart`: replaces the running processes of a service, one after the other.
//!
//! The supervisor does it, as it is who keeps them running; see `machine::supervisor::restart`.

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use machine::console::{self, bold, line, seconds, step};
use machine::layout::{Layout, Lock, write_private};
use machine::process::pause;
use machine::signals;
use machine::state::{State, random_hex, service_of};
use machine::supervisor::restart::{ANSWER, LIMIT, LOCK, REQUEST, forget};
use machine::supervisor::shutdown::GRACE;
use serde_json::{Value, json};

pub fn run(layout: &Layout, service: &str) -> Result<ExitCode> {
    let state = State::load(layout);
    ensure!(state.running(), "the shop does not run here: `cargo dockside up` starts it");
    ensure!(state.ready, "the shop is not ready yet: try again once it is");
    let names = processes_of(&state, service)?;
    let Some(_lock) = Lock::named(layout, LOCK)? else {
        bail!("another `cargo dockside restart` is at work")
    };
    if let ([_], "user" | "product" | "order" | "storefront") = (&names[..], service) {
        step(service, "refuses requests until it is back; `up --replicas 2` has another one answer them");
    }
    let id = random_hex()?;
    signals::install()?;
    write_private(&layout.dir.join(REQUEST), &serde_json::to_vec(&json!({"id": id, "names": names}))?)?;
    let answered = answered(layout, &state, &id, &names);
    forget(layout);
    answered?;
    line(&format!(
        "{} in {}",
        bold(&format!("{} restarted", names.join(", "))),
        seconds(console::since_start())
    ));
    Ok(ExitCode::SUCCESS)
}

/// The service's replicas, or the one process of that name.
fn processes_of(state: &State, service: &str) -> Result<Vec<String>> {
    let shown = || state.processes.iter().filter(|p| !p.hidden).map(|p| p.name.as_str());
    let names: Vec<_> =
        shown().filter(|name| *name == service || service_of(name) == service).map(str::to_owned).collect();
    ensure!(
        !names.is_empty(),
        "no {service} is kept running here; there are: {}",
        shown().collect::<Vec<_>>().join(", ")
    );
    Ok(names)
}

/// Waits until the supervisor has restarted all of them.
fn answered(layout: &Layout, state: &State, id: &str, names: &[String]) -> Result<()> {
    let deadline = Instant::now() + (GRACE + LIMIT + Duration::from_secs(5)) * names.len() as u32;
    let mut shown = 0;
    loop {
        let bytes = fs::read(layout.dir.join(ANSWER)).unwrap_or_default();
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if answer["id"] == id {
            let done = answer["restarted"].as_array().map_or(&[][..], Vec::as_slice);
            for one in done.iter().skip(shown) {
                let took = Duration::from_millis(one["millis"].as_u64().unwrap_or_default());
                step(
                    one["name"].as_str().unwrap_or_default(),
                    &format!("restarted, ready in {}", seconds(took)),
                );
            }
            shown = done.len();
            if let Some(error) = answer["error"].as_str() {
                bail!("{error}");
            }
            if shown == names.len() {
                return Ok(());
            }
        }
        ensure!(state.running(), "the shop was stopped meanwhile");
        ensure!(Instant::now() < deadline, "no answer by the shop's supervisor: see `cargo dockside status`");
        signals::check().context("the supervisor goes on with it")?;
        pause(50);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::net::Probe;
    use machine::state::{Addresses, Process};

    #[test]
    fn a_service_means_all_of_its_replicas() {
        let process = |name: &str, hidden| Process {
            name: name.to_owned(),
            identity: None,
            addresses: Addresses::default(),
            probe: Probe::Tcp { addr: "127.0.0.1:1".into() },
            hidden,
        };
        let processes = ["order", "order-2", "edge", "epmd"].map(|name| process(name, name == "epmd"));
        let state = State { processes: processes.to_vec(), ..State::default() };
        assert_eq!(processes_of(&state, "order").unwrap(), ["order", "order-2"]);
        assert_eq!(processes_of(&state, "order-2").unwrap(), ["order-2"]);
        let unknown = processes_of(&state, "epmd").unwrap_err().to_string();
        assert_eq!(unknown, "no epmd is kept running here; there are: order, order-2, edge");
    }
}
