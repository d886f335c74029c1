//! `bench orders`: how many orders the shop sees through, beside what its PostgreSQL could write at most. `bench reads`:
//! how many products are read, beside a bare server's. `bench replicas`: what an order costs with more replicas.
//!
//! The two are measured in turns on the same server, so that a slow or busy machine slows both. Times of one machine say
//! little on another; their ratios say more. `bench/floors.toml` has what each may not fall below, or rise above.

mod floors;
mod limit;
mod reads;
mod replicas;
mod work;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use self::floors::{Figure, Floors};
use self::limit::Limit;
use self::work::Work;
use crate::compile;
use crate::console::{line, step};
use crate::install::{self, Need};
use crate::layout::{Layout, Lock};
use crate::process::{output, pause};
use crate::servers::postgres::psql;
use crate::servers::start;
use crate::state::Secrets;
use crate::supervisor::Supervisor;
use crate::url::Url;
use crate::{down, services, signals, up};

/// Their names among the benches.
pub const ORDERS: &str = "orders";
pub const READS: &str = "reads";
pub const REPLICAS: &str = "replicas";

/// Clients at once, of the shop and of its limit.
const CLIENTS: u32 = 32;
const FEW_CLIENTS: u32 = 8;
/// Times that the shop and its limit are measured, in turns.
const ROUNDS: usize = 5;
/// Of each measurement.
const SECONDS: u32 = 10;
/// Products that the orders are spread over.
const PRODUCTS: u32 = 100;
/// Between two looks at what orders cost.
const SAMPLE_MILLIS: u64 = 1000;
/// Orders that are confirmed, transactions, and bytes of the log.
const SAMPLE: &str = "SELECT (SELECT count(*) FROM orders.orders WHERE status = 'confirmed'), xact_commit,
    pg_current_wal_insert_lsn() - '0/0'::pg_lsn FROM pg_stat_database WHERE datname = current_database()";
/// For the services to come to rest.
const REST_MILLIS: u64 = 10_000;

const SERVICES: [&str; 3] = ["user", "product", "order"];

/// Measures, writes `NAME.json` and `NAME.md` into the folder, and returns whether every figure keeps its floor.
pub fn run(layout: &Layout, name: &str) -> Result<bool> {
    let layout = layout.for_bench();
    layout.prepare()?;
    let Some(_lock) = Lock::acquire(&layout)? else {
        bail!("another `cargo dockside bench` is at work in {}", layout.dir.display());
    };
    let floors = Floors::read(&layout.root.join("bench/floors.toml"), name)?;
    signals::install()?;
    up::stop_stale(&layout);
    down::forget_data(&layout)?;
    let with_shop = |measure: fn(&Layout, &Supervisor) -> Result<Measured>| {
        let supervisor = Supervisor::new(&layout)?;
        let measured = measure(&layout, &supervisor);
        supervisor.stop();
        measured
    };
    let (figures, rounds) = match name {
        READS => with_shop(reads::measure),
        REPLICAS => replicas::measure(&layout),
        _ => with_shop(measure),
    }?;
    report(&layout, name, &floors, &figures, &rounds)
}

/// The figures, and for the JSON what they were made of.
type Measured = (Vec<Figure>, Value);

/// Starts a shop as it runs in production, but without limits for each client. Returns its PostgreSQL's address.
fn start(
    layout: &Layout,
    supervisor: &Supervisor,
    built: &BTreeMap<String, PathBuf>,
    replicas: usize,
    prepare: impl FnOnce(&Url) -> Result<()>,
) -> Result<Url> {
    let secrets = Secrets::load_or_create(layout)?;
    let contained = install::all(layout)?;
    ensure!(
        !contained.contains(&Need::Postgres),
        "the limit is measured with pgbench, beside PostgreSQL's other programs: install PostgreSQL"
    );
    let broker = start::rabbitmq(layout, supervisor, &secrets, None, contained.contains(&Need::RabbitMq))?;
    let admin = start::postgres(layout, supervisor, &secrets, None, false)?;
    start::rabbitmq_ready(supervisor, &broker)?;
    prepare(&admin)?;
    let options = services::Options {
        port: None,
        demo: true,
        contained: contained.contains(&Need::Nginx),
        hasty: false,
        measured: true,
        replicas,
        links: None,
        balancers: Vec::new(),
    };
    services::start(layout, supervisor, &options, &secrets, &admin, built, &broker)?;
    supervisor.update(|s| s.ready = true)?;
    Ok(admin)
}

/// The shop that is measured.
struct Shop<'a> {
    supervisor: &'a Supervisor,
    database: Url,
    edge: String,
    load: PathBuf,
    /// Where `load` writes.
    folder: PathBuf,
}

fn measure(layout: &Layout, supervisor: &Supervisor) -> Result<Measured> {
    let built = compile::services(layout, true)?;
    let load = compile::load(layout, "load")?;
    let mut limit = None;
    let admin = start(layout, supervisor, &built, 1, |admin| {
        limit = Some(Limit::prepare(admin)?);
        Ok(())
    })?;
    let limit = limit.context("the limit was not prepared")?;
    let shop = Shop::new(layout, supervisor, &admin, &load)?;

    let mut figures = Vec::new();
    pause(REST_MILLIS);
    let idle: f64 = SERVICES.iter().filter_map(|name| shop.memory(name)).sum();
    figures.push(Figure::one("idle_memory_mib", "the three services at rest, MiB", idle));
    let sizes =
        SERVICES.iter().filter_map(|name| built.get(*name)).filter_map(|file| fs::metadata(file).ok());
    let largest = sizes.map(|meta| meta.len() as f64 / f64::from(1 << 20)).fold(0.0, f64::max);
    figures.push(Figure::one("binary_mib", "the largest service's program, MiB", largest));
    let calls = shop.commits()?;
    pause(REST_MILLIS);
    let idle = (shop.commits()? - calls) / (REST_MILLIS as f64 / 1000.0);
    figures.push(Figure::one("idle_transactions", "transactions a second of a shop that nobody uses", idle));

    let mut rounds = Vec::new();
    for round in 1..=ROUNDS {
        let most = limit.measure(CLIENTS, SECONDS)?;
        let orders = shop.buy(CLIENTS)?;
        step(
            "round",
            &format!(
                "{round} of {ROUNDS}: {:.0} of {most:.0} orders/s confirmed, {:.2} ms of CPU each",
                orders.per_second, orders.cpu_millis
            ),
        );
        rounds.push((most, orders));
    }
    let of = |value: fn(&(f64, Orders)) -> f64| rounds.iter().map(value).collect::<Vec<f64>>();
    figures.extend([
        Figure::of(
            "confirmed_to_limit",
            "orders confirmed a second, 32 clients / the limit",
            of(|(most, orders)| orders.per_second / most),
        ),
        Figure::of(
            "confirmed_per_second",
            "orders confirmed a second, 32 clients",
            of(|(_, o)| o.per_second),
        ),
        Figure::of("limit_per_second", "the limit: transactions a second, 32 clients", of(|(most, _)| *most)),
        Figure::of(
            "cpu_millis_per_order",
            "CPU of all processes for each confirmed order, ms, 32 clients",
            of(|(_, orders)| orders.cpu_millis),
        ),
    ]);
    let few = shop.buy(FEW_CLIENTS)?;
    figures.extend([
        Figure::one("commits_per_order", "commits for each order, 8 clients", few.commits),
        Figure::one("wal_kib_per_order", "log written for each order, 8 clients, KiB", few.wal_kib),
        Figure::one("accept_millis", "placing an order, 8 clients, ms (median)", few.accept_millis),
        Figure::one(
            "confirm_millis",
            "placed until it reads confirmed, 8 clients, ms (median)",
            few.confirm_millis,
        ),
    ]);
    let memory = SERVICES.iter().filter_map(|name| shop.memory(name)).fold(0.0, f64::max);
    figures.push(Figure::one("loaded_memory_mib", "the largest service after the load, MiB", memory));
    let rounds = rounds.iter().map(|(most, orders)| json!({"limit": most, "shop": orders.json()})).collect();
    Ok((figures, json!({"many": Value::Array(rounds), "few": few.json()})))
}

/// What the shop has done so far.
struct Sample {
    confirmed: f64,
    commits: f64,
    log: f64,
    work: Work,
}

/// What came of a run of `load`.
struct Orders {
    per_second: f64,
    cpu_millis: f64,
    commits: f64,
    wal_kib: f64,
    accept_millis: f64,
    confirm_millis: f64,
    /// Milliseconds of CPU for each order, by process.
    by_process: Vec<(String, f64)>,
}

impl Orders {
    fn json(&self) -> Value {
        let cpu: serde_json::Map<String, Value> =
            self.by_process.iter().map(|(name, millis)| (name.clone(), json!(millis))).collect();
        json!({
            "confirmed_per_second": self.per_second, "cpu_millis": self.cpu_millis, "cpu_millis_of": cpu,
            "commits": self.commits, "wal_kib": self.wal_kib,
            "accept_millis": self.accept_millis, "confirm_millis": self.confirm_millis,
        })
    }
}

impl<'a> Shop<'a> {
    fn new(layout: &Layout, supervisor: &'a Supervisor, admin: &Url, load: &Path) -> Result<Shop<'a>> {
        let shop = Shop {
            supervisor,
            database: admin.with_database(crate::servers::postgres::DATABASE),
            edge: supervisor.state().edge.context("the shop has no address")?,
            load: load.to_path_buf(),
            folder: layout.dir.join("load"),
        };
        fs::create_dir_all(&shop.folder)?;
        Ok(shop)
    }

    /// Has customers buy as fast as they are served.
    fn buy(&self, clients: u32) -> Result<Orders> {
        let mut command = Command::new(&self.load);
        command
            .args(["--url", &self.edge, "--users", &clients.to_string(), "--think", "0", "--mix", "order=1"])
            .args(["--seconds", &SECONDS.to_string(), "--warm-up", "2", "--prepare", &PRODUCTS.to_string()])
            .args(["--noisy", "--report"])
            .arg(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut load = command.spawn().context("cannot run load")?;
        let mut samples = Vec::new();
        let looked = loop {
            match self.sample() {
                Ok(sample) => samples.push(sample),
                Err(error) => break Err(error),
            }
            match load.try_wait() {
                Ok(None) => pause(SAMPLE_MILLIS),
                Ok(Some(_)) => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        if looked.is_err() {
            load.kill().ok();
        }
        let ended = load.wait_with_output().context("load did not end")?;
        looked?;
        signals::check()?;
        // 1: a limit of its own was passed, which is not held here.
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(matches!(ended.status.code(), Some(0 | 1)), "load failed: {said}");
        let text = fs::read_to_string(self.folder.join("load.json")).context("load wrote no load.json")?;
        let report: Value = serde_json::from_str(&text).context("load.json is not JSON")?;
        let number = |value: &Value| value.as_f64().context("load.json lacks a figure");
        let orders = &report["orders"];
        let placed = report["requests"].as_array().into_iter().flatten().find(|one| one["kind"] == "order");
        let (first, last) =
            steady(&samples).context("too few orders were confirmed to say what one costs")?;
        let each = |sum: f64| sum / (last.confirmed - first.confirmed);
        let by_process = last.work.since(&first.work).into_iter();
        let by_process: Vec<(String, f64)> =
            by_process.map(|(name, seconds)| (name, each(seconds * 1000.0))).collect();
        Ok(Orders {
            per_second: number(&orders["confirmed_per_second"])?,
            cpu_millis: by_process.iter().map(|(_, millis)| millis).sum(),
            commits: each(last.commits - first.commits),
            wal_kib: each((last.log - first.log) / 1024.0),
            accept_millis: number(&placed.context("no order was placed")?["p50"])? * 1000.0,
            confirm_millis: number(&orders["confirming"]["p50"])? * 1000.0,
            by_process,
        })
    }

    fn sample(&self) -> Result<Sample> {
        let work = self.work();
        let row = psql(&self.database, &["-tA", "-F", " ", "-c", SAMPLE])?;
        let numbers: Vec<f64> = row.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [confirmed, commits, log] = numbers[..] else { bail!("PostgreSQL says {row:?}") };
        Ok(Sample { confirmed, commits, log, work })
    }

    /// CPU time of all processes of the shop so far.
    fn work(&self) -> Work {
        let state = self.supervisor.state();
        let live = state.processes.iter().filter_map(|p| Some((p.name.as_str(), p.live()?.pid)));
        Work::of(live)
    }

    fn memory(&self, name: &str) -> Option<f64> {
        let state = self.supervisor.state();
        let process = state.processes.iter().find(|process| process.name == name)?;
        work::memory_mib(process.live()?.pid)
    }

    fn ask(&self, sql: &str) -> Result<f64> {
        let answer = psql(&self.database, &["-tA", "-c", sql])?;
        answer.trim().parse().with_context(|| format!("{sql}: {answer}"))
    }

    fn commits(&self) -> Result<f64> {
        self.ask("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    }
}

/// The first and the last of the samples between which orders were confirmed all the time: accounts are made before, and
/// what comes after is not load.
fn steady(samples: &[Sample]) -> Option<(&Sample, &Sample)> {
    let flows = |pair: &[Sample]| pair[1].confirmed > pair[0].confirmed;
    let inside: Vec<&Sample> = samples
        .windows(3)
        .filter(|three| flows(&three[..2]) && flows(&three[1..]))
        .map(|three| &three[1])
        .collect();
    let (first, last) = (*inside.first()?, *inside.last()?);
    (last.confirmed > first.confirmed).then_some((first, last))
}

fn report(layout: &Layout, name: &str, floors: &Floors, figures: &[Figure], rounds: &Value) -> Result<bool> {
    let table = floors.table(figures);
    let machine = output(Command::new("uname").arg("-sm").stdin(Stdio::null())).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let head = format!("{cores} cores, {}; medians (spread)\n\n", machine.trim());
    write(&layout.dir.join(format!("{name}.md")), &format!("{head}{table}"))?;
    let figures_json: Vec<Value> = figures.iter().map(Figure::json).collect();
    let json = json!({"version": 1, "cores": cores, "figures": figures_json, "rounds": rounds});
    write(&layout.dir.join(format!("{name}.json")), &format!("{json:#}\n"))?;
    line("");
    line(&format!("{head}{table}"));
    line(&format!("in {} as {name}.md and {name}.json", layout.dir.display()));
    Ok(floors.broken(figures).is_empty())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_cost_what_was_used_while_they_were_confirmed() {
        let sample =
            |confirmed, commits| Sample { confirmed, commits, log: 0.0, work: Work::of([].into_iter()) };
        let looks = [(5.0, 0.0), (5.0, 900.0), (7.0, 910.0), (20.0, 1000.0), (30.0, 1100.0), (30.0, 1200.0)];
        let samples: Vec<Sample> = looks.map(|(confirmed, commits)| sample(confirmed, commits)).into();
        let (first, last) = steady(&samples).unwrap();
        assert_eq!((first.commits, last.commits), (910.0, 1000.0));
        assert!(steady(&samples[..3]).is_none());
    }
}
