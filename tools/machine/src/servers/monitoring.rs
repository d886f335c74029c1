//! Prometheus and Alertmanager beside the shop, for `up --observe`, with the rules and settings of `observability/`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::start::METRICS;
use crate::console::{bold, line, seconds, step};
use crate::layout::Layout;
use crate::net::{self, Probe};
use crate::spec::Spec;
use crate::state::{Addresses, State, service_of};
use crate::supervisor::Supervisor;
use crate::system::{User, data_dir, find, given, server_user, write_for};
use crate::url::Url;

const LIMIT: Duration = Duration::from_secs(60);

/// What `observability/prometheus/prometheus.yml` calls Alertmanager, and where its list of whom to ask begins.
const ALERTMANAGER: &str = "alertmanager:9093";
const SCRAPES: &str = "\nscrape_configs:\n";

pub struct Programs {
    prometheus: PathBuf,
    alertmanager: PathBuf,
    exporter: PathBuf,
}

/// By the names that they have where they come from, or Debian's.
pub fn find_programs() -> Option<Programs> {
    Some(Programs {
        prometheus: find("prometheus", &[])?,
        alertmanager: find("alertmanager", &[]).or_else(|| find("prometheus-alertmanager", &[]))?,
        exporter: find("postgres_exporter", &[]).or_else(|| find("prometheus-postgres-exporter", &[]))?,
    })
}

struct Ports {
    prometheus: u16,
    alertmanager: u16,
    exporter: u16,
}

/// Starts them once the shop runs, on their usual ports where those are free, and waits until they serve.
pub fn start(layout: &Layout, supervisor: &Supervisor, database: &Url) -> Result<()> {
    let programs = find_programs().context("Prometheus is not installed")?;
    let state = supervisor.state();
    let mut taken: Vec<u16> = state.ports.values().copied().collect();
    let mut port = |usual: u16| -> Result<u16> {
        let port = net::choose(Some(usual), &taken)?;
        taken.push(port);
        Ok(port)
    };
    let ports = Ports { prometheus: port(9090)?, alertmanager: port(9093)?, exporter: port(9187)? };
    let user = server_user("prometheus")?;
    let home = data_dir(layout, "monitoring", user.as_ref())?;
    configure(&layout.root.join("observability"), &home, user.as_ref(), &state, &ports)?;
    let specs = specs(programs, &home, user.as_ref(), database, &ports);
    let names = specs.each_ref().map(|spec| spec.name.clone());
    specs.into_iter().try_for_each(|spec| supervisor.start(spec))?;
    for name in names {
        let took = supervisor.wait_ready(&name, LIMIT)?;
        step(&name, &format!("ready in {}", seconds(took)));
    }
    Ok(())
}

/// Where people look.
pub fn summary(state: &State) {
    for (name, title) in [("prometheus", "Prometheus:"), ("alertmanager", "Alertmanager:")] {
        let found = state.processes.iter().find(|process| process.name == name);
        if let Some(address) = found.and_then(|process| process.addresses.http.as_ref()) {
            line(&format!("  {}  {address}", bold(title)));
        }
    }
}

fn configure(from: &Path, home: &Path, user: Option<&User>, state: &State, ports: &Ports) -> Result<()> {
    let read = |name: &str| {
        let path = from.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    for name in ["rules", "metrics", "alerts"] {
        let dir = home.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        if let Some(user) = user {
            chown(&dir, Some(user.uid), Some(user.gid))?;
        }
    }
    let rules = from.join("prometheus/rules");
    for entry in fs::read_dir(&rules).with_context(|| format!("cannot read {}", rules.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        write_for(user, &home.join("rules").join(&name), &read(&format!("prometheus/rules/{name}"))?)?;
    }
    let settings = settings(&read("prometheus/prometheus.yml")?, state, ports)?;
    write_for(user, &home.join("prometheus.yml"), &settings)?;
    write_for(user, &home.join("alertmanager.yml"), &read("alertmanager/alertmanager.yml")?)
}

/// The settings of the containers, except the addresses to read from and to send alerts to.
fn settings(text: &str, state: &State, ports: &Ports) -> Result<String> {
    let (head, _) = text.split_once(SCRAPES).context("prometheus.yml has no scrape_configs")?;
    ensure!(head.contains(ALERTMANAGER), "prometheus.yml does not name {ALERTMANAGER}");
    let head = head.replace(ALERTMANAGER, &loopback(ports.alertmanager));
    // JSON is YAML too.
    Ok(format!("{head}\nscrape_configs: {}\n", jobs(state, ports)))
}

/// A job for each service with all its replicas, and one for each server that shows metrics.
fn jobs(state: &State, ports: &Ports) -> Value {
    let mut jobs: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for process in &state.processes {
        let admin = process.addresses.admin.as_ref().and_then(|address| address.strip_prefix("http://"));
        if let Some(admin) = admin {
            jobs.entry(service_of(&process.name)).or_default().push(admin.to_owned());
        }
    }
    jobs.insert("postgres", vec![loopback(ports.exporter)]);
    jobs.insert("prometheus", vec![loopback(ports.prometheus)]);
    // A broker that the user gave may show none.
    if let Some(port) = state.ports.get(METRICS).filter(|_| given("AMQP_URL").is_none()) {
        jobs.insert("rabbitmq", vec![loopback(*port)]);
    }
    let job = |(name, targets): (&str, Vec<String>)| json!({"job_name": name, "static_configs": [{"targets": targets}]});
    jobs.into_iter().map(job).collect()
}

fn specs(programs: Programs, home: &Path, user: Option<&User>, database: &Url, ports: &Ports) -> [Spec; 3] {
    let file = |name: &str| home.join(name).display().to_string();
    let spec = |name: &str, program: PathBuf, port: u16, ready: &str, args: Vec<String>| {
        let url = format!("http://{}", loopback(port));
        Spec {
            name: name.to_owned(),
            program,
            args: args.into_iter().chain([format!("--web.listen-address={}", loopback(port))]).collect(),
            env: Vec::new(),
            run_as: user.cloned(),
            probe: Probe::Http { url: format!("{url}{ready}") },
            addresses: Addresses { http: Some(url), ..Addresses::default() },
            hidden: false,
            container: None,
        }
    };
    // The private server has no certificate.
    let plain = given("DATABASE_URL").is_none().then(|| ("PGSSLMODE".to_owned(), "disable".to_owned()));
    let source = ("DATA_SOURCE_NAME".to_owned(), database.to_string());
    let exporter = Spec {
        env: [source].into_iter().chain(plain).collect(),
        ..spec("postgres-exporter", programs.exporter, ports.exporter, "/metrics", Vec::new())
    };
    let alertmanager = vec![
        format!("--config.file={}", file("alertmanager.yml")),
        format!("--storage.path={}", file("alerts")),
        // Alone: no port for others of its kind.
        "--cluster.listen-address=".to_owned(),
    ];
    let prometheus = vec![
        format!("--config.file={}", file("prometheus.yml")),
        format!("--storage.tsdb.path={}", file("metrics")),
        "--storage.tsdb.retention.time=15d".to_owned(),
        "--storage.tsdb.retention.size=1GB".to_owned(),
        "--enable-feature=exemplar-storage".to_owned(),
    ];
    [
        exporter,
        spec("alertmanager", programs.alertmanager, ports.alertmanager, "/-/ready", alertmanager),
        spec("prometheus", programs.prometheus, ports.prometheus, "/-/ready", prometheus),
    ]
}

fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Process;

    #[test]
    fn each_service_is_a_job_with_all_its_replicas() {
        let process = |name: &str, port: u16| Process {
            name: name.to_owned(),
            identity: None,
            addresses: Addresses {
                admin: Some(format!("http://{}", loopback(port))),
                ..Addresses::default()
            },
            probe: Probe::Tcp { addr: loopback(port) },
            hidden: false,
        };
        let state =
            State { processes: vec![process("order", 7083), process("order-2", 1)], ..State::default() };
        let committed = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../observability/prometheus/prometheus.yml"
        ));
        let ports = Ports { prometheus: 2, alertmanager: 3, exporter: 4 };
        let text = settings(committed, &state, &ports).unwrap();
        assert!(!text.contains(ALERTMANAGER) && text.contains("127.0.0.1:3"), "{text}");
        let (_, jobs) = text.split_once("scrape_configs: ").unwrap();
        let jobs: Value = serde_json::from_str(jobs).unwrap();
        let names: Vec<_> = jobs.as_array().unwrap().iter().map(|job| job["job_name"].clone()).collect();
        assert_eq!(names, ["order", "postgres", "prometheus"]);
        assert_eq!(jobs[0]["static_configs"][0]["targets"], json!(["127.0.0.1:7083", "127.0.0.1:1"]));
    }
}
