//! `status`: what runs, where, and whether it serves right now.

use std::process::ExitCode;
use std::thread;

use anyhow::Result;
use serde_json::{Value, json};

use crate::console::{bold, dim, green, line, red};
use crate::layout::Layout;
use crate::state::{Process, State};

pub fn run(layout: &Layout, as_json: bool) -> Result<ExitCode> {
    let state = State::load(layout);
    let alive: Vec<Process> =
        state.processes.iter().filter(|p| p.identity.alive() && !p.hidden).cloned().collect();
    if alive.is_empty() {
        match as_json {
            true => line(&json!({"edge": null, "processes": []}).to_string()),
            false => line("Nothing is running here: `cargo dockside up` starts the shop."),
        }
        return Ok(ExitCode::FAILURE);
    }
    let ready: Vec<bool> = thread::scope(|scope| {
        let probes: Vec<_> = alive.iter().map(|p| scope.spawn(|| p.probe.ready())).collect();
        probes.into_iter().map(|p| p.join().unwrap_or(false)).collect()
    });
    if as_json {
        line(&serde_json::to_string_pretty(&document(&state, &alive, &ready))?);
        return Ok(ExitCode::SUCCESS);
    }
    for (p, ready) in alive.iter().zip(ready) {
        let a = &p.addresses;
        let addresses: Vec<String> = [("", &a.http), ("grpc ", &a.grpc), ("admin ", &a.admin)]
            .into_iter()
            .filter_map(|(kind, address)| Some(format!("{}{}", dim(kind), address.as_ref()?)))
            .collect();
        let word = if ready { green("ready    ") } else { red("not ready") };
        let name = bold(&format!("{:<16}", p.name));
        line(format!("{name} {word}  pid {:<8} {}", p.identity.pid, addresses.join("  ")).trim_end());
    }
    if !state.running() {
        line(
            "No supervisor watches these: `cargo dockside up` starts anew, `cargo dockside down` stops them.",
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The contract of `--json`; addresses that a process does not have are left out.
fn document(state: &State, processes: &[Process], ready: &[bool]) -> Value {
    let processes: Vec<Value> = processes
        .iter()
        .zip(ready)
        .map(|(p, ready)| {
            let mut entry = json!({"name": p.name, "pid": p.identity.pid});
            let a = &p.addresses;
            for (key, address) in [("http", &a.http), ("grpc", &a.grpc), ("admin", &a.admin)] {
                if let Some(address) = address {
                    entry[key] = json!(address);
                }
            }
            entry["ready"] = json!(ready);
            entry
        })
        .collect();
    json!({
        "edge": state.edge,
        "processes": processes,
        "postgres": {"url": state.postgres},
        "rabbitmq": {"url": state.rabbitmq},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Probe;
    use crate::process::Identity;
    use crate::state::Addresses;

    #[test]
    fn the_document_names_each_process_and_leaves_absent_addresses_out() {
        let order = Process {
            name: "order".into(),
            identity: Identity { pid: 3, started: "4".into() },
            addresses: Addresses { http: Some("http://127.0.0.1:8083".into()), ..Addresses::default() },
            probe: Probe::Tcp { addr: "127.0.0.1:1".into() },
            hidden: false,
        };
        let state = State { edge: Some("http://localhost:8080".into()), ..State::default() };
        let document = document(&state, &[order], &[true]);
        assert_eq!(document["edge"], "http://localhost:8080");
        let entry = json!({"name": "order", "pid": 3, "http": "http://127.0.0.1:8083", "ready": true});
        assert_eq!(document["processes"], json!([entry]));
    }
}
