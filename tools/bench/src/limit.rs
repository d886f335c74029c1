//! The limit: what this PostgreSQL writes when an order is one statement and nothing else is done.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use machine::process::output;
use machine::servers::postgres::{find_bin, psql};
use machine::system::find;
use machine::url::Url;

const DATABASE: &str = "dockside_limit";

const TABLES: &str = "
    CREATE TABLE orders (id uuid PRIMARY KEY, customer int NOT NULL, total bigint NOT NULL, at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE lines (order_id uuid NOT NULL, position int NOT NULL, product int NOT NULL, quantity int NOT NULL,
                        PRIMARY KEY (order_id, position));
    CREATE TABLE keys (customer int NOT NULL, key uuid NOT NULL, answer text NOT NULL, PRIMARY KEY (customer, key));
    CREATE TABLE outbox (id uuid PRIMARY KEY, type text NOT NULL, payload bytea NOT NULL);";

/// An order, two lines, its idempotency key and its event.
const STATEMENT: &str = "\\set customer random(1, 1000)
\\set product random(1, 1000)
WITH placed AS (
    INSERT INTO orders (id, customer, total) VALUES (gen_random_uuid(), :customer, 4200) RETURNING id
), bought AS (
    INSERT INTO lines SELECT id, position, :product + position, 1 FROM placed, generate_series(1, 2) AS position
), keyed AS (
    INSERT INTO keys SELECT :customer, id, repeat('x', 600) FROM placed
)
INSERT INTO outbox SELECT id, 'order.placed.v1', decode(repeat('ab', 200), 'hex') FROM placed;
";

pub struct Limit {
    pgbench: PathBuf,
    database: Url,
}

impl Limit {
    /// Creates the tables, in a database of their own.
    pub fn prepare(admin: &Url) -> Result<Limit> {
        let beside = find_bin().map(|dir| vec![dir]).unwrap_or_default();
        let pgbench = find("pgbench", &beside)
            .context("pgbench is needed to measure the limit: install it (Debian: postgresql-contrib)")?;
        psql(&admin.with_database("postgres"), &["-c", &format!("CREATE DATABASE {DATABASE}")])?;
        let database = admin.with_database(DATABASE);
        psql(&database, &["-c", TABLES])?;
        Ok(Limit { pgbench, database })
    }

    /// Transactions a second.
    pub fn measure(&self, clients: u32, seconds: u32) -> Result<f64> {
        let scratch = Scratch::new()?;
        let said = self.run(&scratch, clients, seconds, &[])?;
        rate(&said).with_context(|| format!("pgbench said no rate: {said}"))
    }

    /// How long transactions take that come at random times, so many a second. Counted from when each was due.
    pub fn paced(&self, rate: f64, clients: u32, seconds: u32) -> Result<Latency> {
        let scratch = Scratch::new()?;
        let log = scratch.0.join("log").display().to_string();
        let pace = ["-R".to_owned(), format!("{rate:.1}"), "-l".to_owned(), format!("--log-prefix={log}")];
        self.run(&scratch, clients, seconds, &pace)?;
        let mut lines = String::new();
        for file in fs::read_dir(&scratch.0)?.flatten() {
            if file.file_name().to_string_lossy().starts_with("log") {
                lines.push_str(&fs::read_to_string(file.path())?);
            }
        }
        latency(&lines).context("pgbench logged no transaction")
    }

    fn run(&self, scratch: &Scratch, clients: u32, seconds: u32, more: &[String]) -> Result<String> {
        let script = scratch.0.join("statement.sql");
        fs::write(&script, STATEMENT).context("cannot write the limit's statement")?;
        let mut command = Command::new(&self.pgbench);
        command
            .args(["-n", "-M", "prepared", "-j", "2", "-c"])
            .args([&clients.to_string(), "-T", &seconds.to_string(), "-f"])
            .arg(&script)
            .args(more)
            .args(["-d", &self.database.without_password()])
            .env("PGPASSWORD", &self.database.password)
            .stdin(Stdio::null());
        output(&mut command)
    }
}

/// A folder of this process that goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch> {
        let dir = std::env::temp_dir().join(format!("dockside-limit-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Scratch(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Milliseconds.
#[derive(Debug, PartialEq)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
}

/// From pgbench's log, whose third column has microseconds.
/// <https://www.postgresql.org/docs/current/pgbench.html>
fn latency(log: &str) -> Option<Latency> {
    let mut micros: Vec<f64> = log.lines().filter_map(|line| line.split(' ').nth(2)?.parse().ok()).collect();
    micros.sort_by(f64::total_cmp);
    let at = |share: f64| micros.get((micros.len() as f64 * share) as usize).map(|micros| micros / 1000.0);
    Some(Latency { p50: at(0.5)?, p99: at(0.99)? })
}

/// The number in `tps = 5570.123456 (without initial connection time)`.
fn rate(said: &str) -> Option<f64> {
    said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_what_pgbench_says() {
        let said = "latency average = 5.7 ms\ntps = 5570.5 (without initial connection time)\n";
        assert_eq!(rate(said), Some(5570.5));
        assert_eq!(rate("pgbench: error"), None);
    }

    #[test]
    fn latency_is_read_from_pgbenchs_log() {
        let log: String = (1..=100).map(|n| format!("0 {n} {n}000 0 1780000000 1 12\n")).collect();
        assert_eq!(latency(&log), Some(Latency { p50: 51.0, p99: 100.0 }));
        assert_eq!(latency(""), None);
    }
}
