//! `status`: what runs, where, and whether it serves right now.

use std::process::ExitCode;
use std::thread;

use anyhow::Result;
use machine::console::{bold, dim, green, line, red};
use machine::layout::Layout;
use machine::net::Probe;
use machine::state::{Addresses, Process, State};
use machine::url::Url;
use serde_json::{Value, json};

pub fn run(layout: &Layout, as_json: bool) -> Result<ExitCode> {
    let state = State::load(layout);
    let shown = shown(&state);
    if shown.is_empty() {
        match as_json {
            true => line(&json!({"edge": null, "processes": []}).to_string()),
            false => line("Nothing is running here: `cargo dockside up` starts the shop."),
        }
        return Ok(ExitCode::FAILURE);
    }
    let ready: Vec<bool> = thread::scope(|scope| {
        let probes: Vec<_> = shown.iter().map(|p| scope.spawn(|| p.serves())).collect();
        probes.into_iter().map(|p| p.join().unwrap_or(false)).collect()
    });
    if as_json {
        line(&serde_json::to_string_pretty(&document(&state, &shown, &ready))?);
        return Ok(ExitCode::SUCCESS);
    }
    for (s, ready) in shown.iter().zip(ready) {
        let a = &s.process.addresses;
        let addresses: Vec<String> = [("", &a.http), ("grpc ", &a.grpc), ("admin ", &a.admin)]
            .into_iter()
            .filter_map(|(kind, address)| Some(format!("{}{}", dim(kind), address.as_ref()?)))
            .collect();
        let word = if ready { green("ready    ") } else { red("not ready") };
        let name = bold(&format!("{:<16}", s.process.name));
        let pid = match s.pid {
            Some(pid) => format!("pid {pid}"),
            None if s.given => "given".to_owned(),
            None => "restarting".to_owned(),
        };
        line(format!("{name} {word}  {pid:<12} {}", addresses.join("  ")).trim_end());
    }
    if !state.running() {
        line(
            "No supervisor watches these: `cargo dockside up` starts anew, `cargo dockside down` stops them.",
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// A process, or a server that the user gave.
struct Shown {
    process: Process,
    /// `None` while the process is being started again, and of a server that was given.
    pid: Option<u32>,
    given: bool,
}

impl Shown {
    fn serves(&self) -> bool {
        (self.pid.is_some() || self.given) && self.process.probe.ready()
    }
}

/// All that was started while a supervisor cares for it, else what is left of it.
fn shown(state: &State) -> Vec<Shown> {
    let all = state.processes.iter().filter(|p| !p.hidden).cloned();
    let mut shown: Vec<Shown> = all
        .map(|process| Shown { pid: process.live().map(|i| i.pid), given: false, process })
        .filter(|s| s.pid.is_some() || state.running())
        .collect();
    let given = [
        ("postgres", &state.postgres, 5432, (|addr| Probe::Postgres { addr }) as fn(String) -> Probe),
        ("rabbitmq", &state.rabbitmq, 5672, |addr| Probe::Amqp { addr }),
    ];
    for (name, url, port, probe) in given.into_iter().filter(|_| state.running()) {
        let Some(url) = url.as_ref().and_then(|url| Url::parse(url).ok()) else { continue };
        if shown.iter().all(|s| s.process.name != name) {
            let addr = if url.host.contains(':') { url.host } else { format!("{}:{port}", url.host) };
            let process = Process {
                name: name.to_owned(),
                identity: None,
                addresses: Addresses::default(),
                probe: probe(addr),
                hidden: false,
            };
            shown.push(Shown { process, pid: None, given: true });
        }
    }
    shown
}

/// The contract of `--json`; addresses that a process does not have are left out.
fn document(state: &State, shown: &[Shown], ready: &[bool]) -> Value {
    let processes: Vec<Value> = shown
        .iter()
        .zip(ready)
        .map(|(s, ready)| {
            let mut entry = json!({"name": s.process.name, "pid": s.pid});
            let a = &s.process.addresses;
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
    use machine::process::Identity;

    fn order(identity: Option<Identity>) -> Process {
        Process {
            name: "order".into(),
            identity,
            addresses: Addresses { http: Some("http://127.0.0.1:8083".into()), ..Addresses::default() },
            probe: Probe::Tcp { addr: "127.0.0.1:1".into() },
            hidden: false,
        }
    }

    #[test]
    fn the_document_names_each_process_and_leaves_absent_addresses_out() {
        let me = Identity::of(std::process::id());
        let state = State {
            edge: Some("http://localhost:8080".into()),
            processes: vec![order(me)],
            ..State::default()
        };
        let document = document(&state, &shown(&state), &[true]);
        assert_eq!(document["edge"], "http://localhost:8080");
        let pid = std::process::id();
        let entry = json!({"name": "order", "pid": pid, "http": "http://127.0.0.1:8083", "ready": true});
        assert_eq!(document["processes"], json!([entry]));
    }

    #[test]
    fn a_process_that_is_being_restarted_stays_listed_while_a_supervisor_lives() {
        let supervisor = Identity::of(std::process::id());
        let dead = Identity { pid: std::process::id(), started: "1".into() };
        for identity in [None, Some(dead)] {
            let state = State {
                supervisor: supervisor.clone(),
                processes: vec![order(identity)],
                ..State::default()
            };
            let list = shown(&state);
            let document = document(&state, &list, &[list[0].serves()]);
            let entry =
                json!({"name": "order", "pid": null, "http": "http://127.0.0.1:8083", "ready": false});
            assert_eq!(document["processes"], json!([entry]));
            assert!(shown(&State { supervisor: None, ..state }).is_empty());
        }
    }

    #[test]
    fn a_server_that_the_user_gave_is_listed_without_a_process() {
        let supervisor = Identity::of(std::process::id());
        let url = Some("postgres://postgres@db.example/dockside".to_owned());
        let state = State { supervisor, postgres: url, ..State::default() };
        let list = shown(&state);
        assert_eq!(list[0].process.probe, Probe::Postgres { addr: "db.example:5432".into() });
        assert!(list[0].pid.is_none() && list[0].given);
    }
}
