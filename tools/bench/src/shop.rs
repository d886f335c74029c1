//! The shop that is measured: it is bought from, and what that costs is read from the machine and from PostgreSQL.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use machine::layout::Layout;
use machine::process::pause;
use machine::servers::postgres::{DATABASE, psql};
use machine::signals;
use machine::supervisor::Supervisor;
use machine::url::Url;
use serde_json::{Value, json};

use crate::work::{self, Work};

/// Of each measurement.
pub const SECONDS: u32 = 10;
/// Products that the orders are spread over.
const PRODUCTS: u32 = 100;
/// Between two measurements of what orders cost.
const SAMPLE_MILLIS: u64 = 1000;
/// Orders that are confirmed, transactions, statements, and bytes of the log. A statement counts each time it is run.
const SAMPLE: &str = "SELECT (SELECT count(*) FROM orders.orders WHERE status = 'confirmed'), xact_commit,
    (SELECT sum(calls) FROM pg_stat_statements s WHERE s.dbid = d.datid),
    pg_current_wal_insert_lsn() - '0/0'::pg_lsn FROM pg_stat_database d WHERE datname = current_database()";
/// What was run most often since the load began: calls, milliseconds of them together, and the statement.
const STATEMENTS: &str = "SELECT calls, total_exec_time, left(regexp_replace(query, '\\s+', ' ', 'g'), 200)
    FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
    WHERE datname = current_database() ORDER BY calls DESC LIMIT 40";
/// After the load, for what was placed to be seen through.
const SETTLE: Duration = Duration::from_secs(120);

/// The shop that is measured.
pub struct Shop<'a> {
    supervisor: &'a Supervisor,
    database: Url,
    edge: String,
    load: PathBuf,
    /// Where `load` writes.
    folder: PathBuf,
}

/// What the shop has done so far.
struct Sample {
    confirmed: f64,
    commits: f64,
    statements: f64,
    log: f64,
    work: Work,
}

/// How shoppers come.
#[derive(Clone, Copy)]
pub enum Pace {
    /// So many at the same time, each as fast as it is served.
    Users(u32),
    /// So many a second, at random times.
    Rate(f64),
}

/// A run of `load` in which everybody buys.
#[derive(Clone, Copy)]
pub struct Buying {
    pub pace: Pace,
    pub seconds: u32,
    pub warm_up: u32,
    /// What the orders are spread over.
    pub products: u32,
    /// Whether shoppers wait until their order reads `confirmed`.
    pub follow: bool,
}

impl Buying {
    pub fn by(pace: Pace) -> Buying {
        Buying { pace, seconds: SECONDS, warm_up: 2, products: PRODUCTS, follow: true }
    }

    fn arguments(&self) -> Vec<String> {
        let pace = match self.pace {
            Pace::Users(users) => ["--users".to_owned(), users.to_string()],
            Pace::Rate(rate) => ["--rate".to_owned(), format!("{rate:.1}")],
        };
        let rest = format!(
            "--think 0 --mix order=1 --seconds {} --warm-up {} --prepare {} --follow {} --noisy --limit-lag 1",
            self.seconds,
            self.warm_up,
            self.products,
            if self.follow { "sse" } else { "none" },
        );
        pace.into_iter().chain(rest.split(' ').map(str::to_owned)).collect()
    }
}

/// What came of a run of `load`.
pub struct Orders {
    pub placed_per_second: f64,
    pub refused: f64,
    pub confirmed_per_second: f64,
    /// Placing an order: median, and what 99 of 100 stay below.
    pub accept_millis: f64,
    pub accept_p99_millis: f64,
    /// From when an order was due until it read `confirmed`, median.
    pub confirm_millis: f64,
    /// What each order cost.
    pub cost: Cost,
    /// The statements that were run most often, for each order that was confirmed: with those that prepare the load.
    statements: Vec<Value>,
}

/// For each order that was confirmed.
pub struct Cost {
    pub cpu_millis: f64,
    pub commits: f64,
    pub statements: f64,
    pub wal_kib: f64,
    /// Milliseconds of CPU by process.
    by_process: Vec<(String, f64)>,
}

impl Orders {
    pub fn json(&self) -> Value {
        let by_process = self.cost.by_process.iter();
        let cpu: serde_json::Map<String, Value> =
            by_process.map(|(name, millis)| (name.clone(), json!(millis))).collect();
        json!({
            "placed_per_second": self.placed_per_second, "refused": self.refused,
            "confirmed_per_second": self.confirmed_per_second, "cpu_millis": self.cost.cpu_millis,
            "cpu_millis_of": cpu, "commits": self.cost.commits, "statements": self.cost.statements,
            "wal_kib": self.cost.wal_kib, "accept_millis": self.accept_millis,
            "accept_p99_millis": self.accept_p99_millis, "confirm_millis": self.confirm_millis,
            "most_statements": self.statements,
        })
    }
}

impl<'a> Shop<'a> {
    pub fn new(
        layout: &Layout,
        supervisor: &'a Supervisor,
        admin: &Url,
        built: &BTreeMap<String, PathBuf>,
    ) -> Result<Shop<'a>> {
        let shop = Shop {
            supervisor,
            database: admin.with_database(DATABASE),
            edge: supervisor.state().edge.context("the shop has no address")?,
            load: built.get("load").context("load was not built")?.clone(),
            folder: layout.dir.join("load"),
        };
        fs::create_dir_all(&shop.folder)?;
        psql(&shop.database, &["-c", "CREATE EXTENSION IF NOT EXISTS pg_stat_statements"])?;
        Ok(shop)
    }

    /// Has customers buy. `tick` is called about once a second meanwhile.
    pub fn buy(&self, buying: Buying, mut tick: impl FnMut()) -> Result<Orders> {
        let mut command = Command::new(&self.load);
        command
            .args(["--url", &self.edge])
            .args(buying.arguments())
            .arg("--report")
            .arg(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        psql(&self.database, &["-c", "SELECT pg_stat_statements_reset()"])?;
        let mut load = command.spawn().context("cannot run load")?;
        let mut samples = Vec::new();
        let sampled = loop {
            match self.sample() {
                Ok(sample) => samples.push(sample),
                Err(error) => break Err(error),
            }
            tick();
            match load.try_wait() {
                Ok(None) => pause(SAMPLE_MILLIS),
                Ok(Some(_)) => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        if sampled.is_err() {
            load.kill().ok();
        }
        let ended = load.wait_with_output().context("load did not end")?;
        sampled?;
        signals::check()?;
        // 1: a limit of its own was passed, which is not held here.
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(matches!(ended.status.code(), Some(0 | 1)), "load failed: {said}");
        let text = fs::read_to_string(self.folder.join("load.json")).context("load wrote no load.json")?;
        let report: Value = serde_json::from_str(&text).context("load.json is not JSON")?;
        let number = |value: &Value| value.as_f64().context("load.json lacks a figure");
        let orders = &report["orders"];
        let placed = report["requests"].as_array().into_iter().flatten().find(|one| one["kind"] == "order");
        let placed = placed.context("no order was placed")?;
        let refused = orders["refused"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_f64());
        Ok(Orders {
            // Those that were answered while shoppers came.
            placed_per_second: placed_within(&report, buying.warm_up, buying.seconds)
                / f64::from(buying.seconds),
            refused: refused.sum(),
            confirmed_per_second: number(&orders["confirmed_per_second"])?,
            accept_millis: number(&placed["p50"])? * 1000.0,
            accept_p99_millis: number(&placed["p99"])? * 1000.0,
            confirm_millis: number(&orders["confirming"]["p50"])? * 1000.0,
            cost: cost(&samples).context("too few orders were confirmed to say what one costs")?,
            statements: self.statements(&samples)?,
        })
    }

    /// Waits until every order that was placed has ended.
    pub fn settle(&self) -> Result<()> {
        let until = Instant::now() + SETTLE;
        while self.ask("SELECT count(*) FROM orders.orders WHERE status = 'pending'")? > 0.0 {
            ensure!(Instant::now() < until, "orders are still pending {} s after the load", SETTLE.as_secs());
            signals::check()?;
            pause(SAMPLE_MILLIS);
        }
        Ok(())
    }

    fn sample(&self) -> Result<Sample> {
        let work = self.work();
        let row = psql(&self.database, &["-tA", "-F", " ", "-c", SAMPLE])?;
        let numbers: Vec<f64> = row.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [confirmed, commits, statements, log] = numbers[..] else { bail!("PostgreSQL says {row:?}") };
        Ok(Sample { confirmed, commits, statements, log, work })
    }

    fn statements(&self, samples: &[Sample]) -> Result<Vec<Value>> {
        let (first, last) = (samples.first(), samples.last());
        let orders = first.zip(last).map_or(1.0, |(first, last)| (last.confirmed - first.confirmed).max(1.0));
        let rows = psql(&self.database, &["-tA", "-F", "\t", "-c", STATEMENTS])?;
        let row = |line: &str| {
            let mut parts = line.splitn(3, '\t');
            let (calls, millis) = (parts.next()?.parse::<f64>().ok()?, parts.next()?.parse::<f64>().ok()?);
            Some(json!({"calls": calls / orders, "millis": millis / orders, "statement": parts.next()?}))
        };
        Ok(rows.lines().filter_map(row).collect())
    }

    /// CPU time of all processes of the shop so far.
    fn work(&self) -> Work {
        let state = self.supervisor.state();
        let live = state.processes.iter().filter_map(|p| Some((p.name.as_str(), p.live()?.pid)));
        Work::of(live)
    }

    pub fn memory(&self, name: &str) -> Option<f64> {
        let state = self.supervisor.state();
        let process = state.processes.iter().find(|process| process.name == name)?;
        work::memory_mib(process.live()?.pid)
    }

    pub fn ask(&self, sql: &str) -> Result<f64> {
        let answer = psql(&self.database, &["-tA", "-c", sql])?;
        answer.trim().parse().with_context(|| format!("{sql}: {answer}"))
    }

    pub fn commits(&self) -> Result<f64> {
        self.ask("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    }
}

/// Orders placed in the seconds that count.
fn placed_within(report: &Value, warm_up: u32, seconds: u32) -> f64 {
    let each = report["seconds"].as_array().into_iter().flatten();
    each.skip(warm_up as usize).take(seconds as usize).filter_map(|second| second["placed"].as_f64()).sum()
}

/// What an order cost while orders were confirmed all the time.
fn cost(samples: &[Sample]) -> Option<Cost> {
    let (first, last) = steady(samples)?;
    let each = |sum: f64| sum / (last.confirmed - first.confirmed);
    let by_process = last.work.since(&first.work).into_iter();
    let by_process: Vec<(String, f64)> =
        by_process.map(|(name, seconds)| (name, each(seconds * 1000.0))).collect();
    Some(Cost {
        cpu_millis: by_process.iter().map(|(_, millis)| millis).sum(),
        commits: each(last.commits - first.commits),
        statements: each(last.statements - first.statements),
        wal_kib: each((last.log - first.log) / 1024.0),
        by_process,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_cost_what_was_used_while_they_were_confirmed() {
        let sample = |confirmed, commits| {
            let work = Work::of([].into_iter());
            Sample { confirmed, commits, statements: 0.0, log: 0.0, work }
        };
        let samples_seen =
            [(5.0, 0.0), (5.0, 900.0), (7.0, 910.0), (20.0, 1000.0), (30.0, 1100.0), (30.0, 1200.0)];
        let samples: Vec<Sample> = samples_seen.map(|(confirmed, commits)| sample(confirmed, commits)).into();
        let (first, last) = steady(&samples).unwrap();
        assert_eq!((first.commits, last.commits), (910.0, 1000.0));
        assert!(steady(&samples[..3]).is_none());
    }
}
