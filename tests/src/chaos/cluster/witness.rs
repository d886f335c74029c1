//! Clients of the harness's own, beside the shop: they write to PostgreSQL through each balancer, and to each server by its own
//! address, as one with a stale address would. Whatever was confirmed to one of them has to be there at the end: a write
//! that two primaries took for their own would not be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::machines::{BALANCED, Cluster, DATABASE};
use crate::Shop;

/// A new connection, and a commit on it.
const DEADLINE: Duration = Duration::from_millis(1500);
const EVERY: Duration = Duration::from_millis(250);
/// A way is open again once so many writes in a row went through.
const STEADY: usize = 3;

/// One attempt.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    begun: Instant,
    ended: Instant,
    good: bool,
}

#[derive(Default)]
struct Seen {
    /// Through each balancer, in order of time.
    attempts: Vec<Vec<Attempt>>,
    /// Writes that were confirmed, and by whom.
    confirmed: BTreeMap<Uuid, String>,
    /// Whether each replica said that it was ready.
    ready: BTreeMap<String, Vec<(Instant, bool)>>,
}

#[derive(Clone, Default)]
pub struct Witness {
    seen: Arc<Mutex<Seen>>,
}

/// When a way to a writable primary was closed, and open again. None: not yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outage {
    pub from: Instant,
    pub until: Option<Instant>,
}

/// How long a replica reported something false.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Delay {
    After(Duration),
    Never,
}

impl Witness {
    /// Begins to write and to ask. Ends with the returned tasks.
    pub async fn begin(shop: &Shop, cluster: &Cluster) -> anyhow::Result<(Self, JoinSet<()>)> {
        let schema = "CREATE SCHEMA IF NOT EXISTS chaos;
             CREATE TABLE IF NOT EXISTS chaos.cancelled (id uuid PRIMARY KEY);
             CREATE TABLE IF NOT EXISTS chaos.writes (
                 id uuid PRIMARY KEY, way text NOT NULL, at timestamptz NOT NULL DEFAULT now())";
        sqlx::raw_sql(schema).execute(&shop.database).await?;
        let witness = Self::default();
        witness.lock().attempts = vec![Vec::new(); cluster.balancer.len()];
        let mut tasks = JoinSet::new();
        for (number, balancer) in cluster.balancer.iter().enumerate() {
            let url = cluster.url(&balancer.address, BALANCED);
            tasks.spawn(witness.clone().through(number, balancer.name.clone(), url));
        }
        for server in &cluster.database {
            let url = cluster.url(&server.address, DATABASE);
            tasks.spawn(witness.clone().directly(server.name.clone(), url));
        }
        for (name, admin) in replicas(shop) {
            tasks.spawn(witness.clone().readiness(name, format!("{admin}/readyz")));
        }
        Ok((witness, tasks))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn through(self, number: usize, way: String, url: String) {
        loop {
            let begun = Instant::now();
            let write = async {
                let mut connection = PgConnection::connect(&url).await?;
                let id = write(&mut connection, &way).await?;
                connection.close().await.ok();
                Ok::<_, sqlx::Error>(id)
            };
            let good = match tokio::time::timeout(DEADLINE, write).await {
                Ok(Ok(id)) => {
                    self.lock().confirmed.insert(id, way.clone());
                    true
                }
                _ => false,
            };
            self.lock().attempts[number].push(Attempt { begun, ended: Instant::now(), good });
            tokio::time::sleep_until((begun + EVERY).into()).await;
        }
    }

    /// On one connection as long as it lasts.
    async fn directly(self, way: String, url: String) {
        loop {
            let connecting = tokio::time::timeout(DEADLINE, PgConnection::connect(&url)).await;
            if let Ok(Ok(mut connection)) = connecting {
                while let Ok(Ok(done)) =
                    tokio::time::timeout(DEADLINE, write_to_primary(&mut connection, &way)).await
                {
                    if let Some(id) = done {
                        self.lock().confirmed.insert(id, way.clone());
                    }
                    tokio::time::sleep(EVERY).await;
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn readiness(self, name: String, url: String) {
        let Ok(client) = reqwest::Client::builder().timeout(Duration::from_secs(1)).build() else { return };
        loop {
            let ready = client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success());
            self.lock().ready.entry(name.clone()).or_default().push((Instant::now(), ready));
            tokio::time::sleep(EVERY).await;
        }
    }

    /// The first time since then that a balancer's way was closed.
    pub fn outage(&self, balancer: usize, since: Instant) -> Option<Outage> {
        outage(&self.lock().attempts[balancer], since)
    }

    /// Since when a writable primary can be reached by some way: that long ago if one was open all the time. None: by none.
    pub fn reachable(&self, since: Instant) -> Option<Instant> {
        let ways = self.lock().attempts.len();
        let outages: Option<Vec<Outage>> = (0..ways).map(|way| self.outage(way, since)).collect();
        match outages {
            None => Some(since),
            Some(outages) => outages.iter().filter_map(|outage| outage.until).min(),
        }
    }

    /// How long after the truth had changed the slowest replica reported it: that it can't write, and that it
    /// can. Only ways that were closed for longer than `patience` count.
    pub fn readiness_delay(&self, since: Instant, patience: Duration) -> (Option<Delay>, Option<Delay>) {
        let seen = self.lock();
        let (mut away, mut back) = (Vec::new(), Vec::new());
        for (name, said) in &seen.ready {
            let number = name.rsplit_once('-').and_then(|(_, n)| n.parse::<usize>().ok()).unwrap_or(1) - 1;
            let way = &seen.attempts[number % seen.attempts.len()];
            let Some(Outage { from, until }) = outage(way, since) else { continue };
            let end = until.unwrap_or_else(Instant::now);
            if end - from < patience {
                continue;
            }
            away.push(match said.iter().find(|(at, ready)| *at >= from && !ready) {
                Some((at, _)) if *at < end + patience => Delay::After(*at - from),
                _ => Delay::Never,
            });
            if let Some(until) = until {
                back.push(match said.iter().find(|(at, ready)| *at >= until && *ready) {
                    Some((at, _)) => Delay::After(*at - until),
                    None => Delay::Never,
                });
            }
        }
        (slowest(away), slowest(back))
    }

    /// Writes that were confirmed and are not there.
    pub async fn missing(&self, shop: &Shop) -> anyhow::Result<Vec<String>> {
        let confirmed = self.lock().confirmed.clone();
        let query = "SELECT id FROM chaos.writes";
        let there: Vec<Uuid> =
            super::answer(async || sqlx::query_scalar(query).fetch_all(&shop.database).await).await?;
        let there: std::collections::BTreeSet<Uuid> = there.into_iter().collect();
        let lost = confirmed.iter().filter(|(id, _)| !there.contains(id));
        Ok(lost.map(|(id, way)| format!("a write that {way} confirmed is not there: {id}")).collect())
    }

    pub fn confirmed(&self) -> usize {
        self.lock().confirmed.len()
    }
}

fn outage(attempts: &[Attempt], since: Instant) -> Option<Outage> {
    let first = attempts.iter().position(|attempt| attempt.ended >= since && !attempt.good)?;
    let from = attempts[first].begun.max(since);
    let steady = attempts[first..].windows(STEADY).find(|some| some.iter().all(|attempt| attempt.good));
    Some(Outage { from, until: steady.map(|some| some[0].ended) })
}

fn slowest(all: Vec<Delay>) -> Option<Delay> {
    all.into_iter().max_by_key(|delay| match delay {
        Delay::After(took) => *took,
        Delay::Never => Duration::MAX,
    })
}

async fn write(connection: &mut PgConnection, way: &str) -> sqlx::Result<Uuid> {
    let id = Uuid::now_v7();
    let sql = "INSERT INTO chaos.writes (id, way) VALUES ($1, $2)";
    sqlx::query(sql).bind(id).bind(way).execute(connection).await?;
    Ok(id)
}

/// Nothing on a standby, which may be the primary soon.
async fn write_to_primary(connection: &mut PgConnection, way: &str) -> sqlx::Result<Option<Uuid>> {
    let standby: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut *connection).await?;
    if standby { Ok(None) } else { write(connection, way).await.map(Some) }
}

/// The services' replicas, and their admin addresses.
fn replicas(shop: &Shop) -> Vec<(String, String)> {
    let state: serde_json::Value = serde_json::from_str(&shop.file("state.json")).unwrap_or_default();
    let listed = state["processes"].as_array().cloned().unwrap_or_default();
    let named = |process: &serde_json::Value| {
        Some((process["name"].as_str()?.to_owned(), process["admin"].as_str()?.to_owned()))
    };
    listed.iter().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(start: Instant, good: &[bool]) -> Vec<Attempt> {
        let attempt = |(n, good): (usize, &bool)| {
            let begun = start + Duration::from_secs(n as u64);
            Attempt { begun, ended: begun + Duration::from_millis(100), good: *good }
        };
        good.iter().enumerate().map(attempt).collect()
    }

    #[test]
    fn a_way_is_open_again_once_it_stays_open() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let some = attempts(start, &[true, false, true, false, true, true, true]);
        assert_eq!(outage(&some, start), Some(Outage { from: at(1.0), until: Some(at(4.1)) }));
        assert_eq!(outage(&some[..6], start), Some(Outage { from: at(1.0), until: None }));
        assert_eq!(outage(&some, at(4.0)), None);
    }

    #[test]
    fn a_replica_that_never_reported_the_truth_was_the_slowest() {
        let second = Delay::After(Duration::from_secs(1));
        assert_eq!(slowest(vec![second, Delay::Never]), Some(Delay::Never));
        assert_eq!(slowest(vec![second]), Some(second));
        assert_eq!(slowest(vec![]), None);
    }
}
