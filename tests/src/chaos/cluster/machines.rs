//! The machines of the cluster, as `cargo dockside` lists them in `cluster.json`, and what can be done to one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use uuid::Uuid;

/// Of Patroni's REST API.
const API: u16 = 8008;
pub const DATABASE: u16 = 5432;
/// HAProxy's, for whoever is the primary.
pub const BALANCED: u16 = 5000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub name: String,
    pub address: String,
}

pub struct Cluster {
    dir: PathBuf,
    pub etcd: Vec<Machine>,
    pub database: Vec<Machine>,
    pub broker: Vec<Machine>,
    pub balancer: Vec<Machine>,
    disks: PathBuf,
    pub password: String,
    bin: PathBuf,
    client: reqwest::Client,
}

/// Who is what, as Patroni sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    pub primary: Option<String>,
    /// The standby that confirms commits.
    pub synchronous: Option<String>,
    /// All members run and stream.
    pub whole: bool,
    pub timeline: i64,
}

impl Cluster {
    pub fn load(dir: &Path) -> anyhow::Result<Self> {
        let file = dir.join("cluster.json");
        let text = std::fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        let known: Value = serde_json::from_slice(&text)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let machines = |kind: &str| {
            let listed = known[kind].as_array().cloned().unwrap_or_default();
            listed.iter().map(|m| Machine { name: text(&m["name"]), address: text(&m["address"]) }).collect()
        };
        Ok(Self {
            dir: dir.to_owned(),
            etcd: machines("etcd"),
            database: machines("database"),
            broker: machines("broker"),
            balancer: machines("balancer"),
            disks: text(&known["disks"]).into(),
            password: text(&known["postgres_admin"]),
            bin: text(&known["bin"]).into(),
            client: reqwest::Client::builder().timeout(Duration::from_secs(2)).build()?,
        })
    }

    pub fn machine(&self, name: &str) -> Option<&Machine> {
        let all = [&self.etcd, &self.database, &self.broker, &self.balancer];
        all.into_iter().flatten().find(|machine| machine.name == name)
    }

    /// The administrator's address of the shop's database at that address.
    pub fn url(&self, address: &str, port: u16) -> String {
        format!("postgres://postgres:{}@{address}:{port}/dockside", self.password)
    }

    /// As a member that answers sees it.
    pub async fn roles(&self) -> Roles {
        for machine in &self.database {
            let url = format!("http://{}:{API}/cluster", machine.address);
            let Ok(answer) = self.client.get(url).send().await else { continue };
            let Ok(seen) = answer.json::<Value>().await else { continue };
            let roles = roles(&seen);
            if roles.primary.is_some() {
                return roles;
            }
        }
        Roles::default()
    }

    /// Waits until every server does its part again.
    pub async fn whole(&self, limit: Duration) -> Result<Roles, String> {
        let begun = Instant::now();
        loop {
            let roles = self.roles().await;
            let mut away = Vec::new();
            if !(roles.whole && roles.synchronous.is_some()) {
                away.push(format!("PostgreSQL ({roles:?})"));
            }
            for machine in &self.etcd {
                let url = format!("http://{}:2379/health", machine.address);
                let answer = self.client.get(url).send().await;
                if !answer.is_ok_and(|answer| answer.status().is_success()) {
                    away.push(machine.name.clone());
                }
            }
            for machine in self.broker.iter().chain(&self.balancer) {
                if !greets(&machine.address).await {
                    away.push(machine.name.clone());
                }
            }
            if away.is_empty() {
                return Ok(roles);
            }
            if begun.elapsed() > limit {
                return Err(away.join(", "));
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// The member that leads etcd.
    pub async fn leader_of_etcd(&self) -> Option<String> {
        for machine in &self.etcd {
            let url = format!("http://{}:2379/v3/maintenance/status", machine.address);
            let Ok(answer) = self.client.post(url).json(&json!({})).send().await else { continue };
            let Ok(status) = answer.json::<Value>().await else { continue };
            if status["leader"].is_string() && status["leader"] == status["header"]["member_id"] {
                return Some(machine.name.clone());
            }
        }
        None
    }

    /// Hands the primary's part to a standby, and back another time.
    pub async fn switch_over(&self, from: &str, to: &str) -> anyhow::Result<()> {
        let leader = self.machine(from).context("no such machine")?;
        let url = format!("http://{}:{API}/switchover", leader.address);
        let body = json!({"leader": from, "candidate": to});
        let answer = self.client.post(url).timeout(Duration::from_secs(60)).json(&body).send().await?;
        let status = answer.status();
        let said = answer.text().await.unwrap_or_default();
        anyhow::ensure!(status.is_success(), "Patroni refused: {status} {said}");
        Ok(())
    }

    /// All processes on a machine.
    pub fn processes(&self, machine: &str) -> anyhow::Result<Vec<Pid>> {
        let listed = run("ip", &["netns", "pids", machine])?;
        Ok(listed.lines().filter_map(|pid| Pid::from_raw(pid.trim().parse().ok()?)).collect())
    }

    /// Signals all processes on a machine, those too that are made meanwhile.
    pub fn signal(&self, machine: &str, signal: Signal) -> anyhow::Result<()> {
        let mut known = BTreeSet::new();
        for _ in 0..20 {
            let all = self.processes(machine)?;
            let new: Vec<Pid> = all.into_iter().filter(|pid| known.insert(pid.as_raw_nonzero())).collect();
            if new.is_empty() {
                return Ok(());
            }
            for pid in new {
                let _ = kill_process(pid, signal);
            }
        }
        Ok(())
    }

    /// Thaws PostgreSQL, and leaves Patroni beside it as it is.
    pub fn thaw_database(&self, machine: &str) -> anyhow::Result<()> {
        for pid in self.processes(machine)? {
            let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
            if !String::from_utf8_lossy(&line).contains("patroni") {
                let _ = kill_process(pid, Signal::CONT);
            }
        }
        Ok(())
    }

    /// Takes the machine's power away; it stays off until [`Cluster::power_on`].
    pub fn power_off(&self, machine: &str) -> anyhow::Result<()> {
        std::fs::write(self.held(machine), "")?;
        self.signal(machine, Signal::KILL)
    }

    pub fn power_on(&self, machine: &str) -> anyhow::Result<()> {
        match std::fs::remove_file(self.held(machine)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn held(&self, machine: &str) -> PathBuf {
        self.dir.join("held").join(machine)
    }

    /// Kills PostgreSQL's own process, as a fault of its own would, and leaves all else on the machine.
    pub fn crash(&self, machine: &str) -> anyhow::Result<()> {
        let file = self.disks.join(machine).join("data/postmaster.pid");
        let text = std::fs::read_to_string(&file)?;
        let pid = text.lines().next().and_then(|pid| Pid::from_raw(pid.trim().parse().ok()?));
        Ok(kill_process(pid.context("no process in postmaster.pid")?, Signal::KILL)?)
    }

    /// Drops every packet between these machines and all others but this process, silently. This process still reaches
    /// those in `reached`.
    pub fn cut(&self, machines: &[&str], reached: &[&str]) -> anyhow::Result<()> {
        for name in machines {
            let mut own: Vec<&str> =
                machines.iter().filter_map(|name| Some(self.machine(name)?.address.as_str())).collect();
            if reached.contains(name) {
                own.push("198.18.0.1");
            }
            let own = own.join(", ");
            let rules = format!(
                "add table ip fault; \
                 add chain ip fault in {{ type filter hook input priority 0; }}; \
                 add chain ip fault out {{ type filter hook output priority 0; }}; \
                 add rule ip fault in iifname eth0 ip saddr != {{ {own} }} drop; \
                 add rule ip fault out oifname eth0 ip daddr != {{ {own} }} drop"
            );
            run("ip", &["netns", "exec", name, "nft", &rules])?;
        }
        Ok(())
    }

    /// The same between two machines alone.
    pub fn part(&self, one: &str, other: &str) -> anyhow::Result<()> {
        let other = &self.machine(other).context("no such machine")?.address;
        let rules = format!(
            "add table ip fault; \
             add chain ip fault in {{ type filter hook input priority 0; }}; \
             add chain ip fault out {{ type filter hook output priority 0; }}; \
             add rule ip fault in ip saddr {other} drop; \
             add rule ip fault out ip daddr {other} drop"
        );
        run("ip", &["netns", "exec", one, "nft", &rules]).map(drop)
    }

    pub fn mend(&self, machines: &[&str]) -> anyhow::Result<()> {
        for name in machines {
            run("ip", &["netns", "exec", name, "nft", "delete table ip fault"])?;
        }
        Ok(())
    }

    /// Fills a machine's disk.
    pub fn fill(&self, machine: &str) -> anyhow::Result<()> {
        let file = std::fs::File::create(self.disks.join(machine).join("ballast"))?;
        // Piece by piece: the server writes meanwhile, and a piece that has no room any more gets a smaller one.
        let (mut length, mut piece) = (0, 64 << 20);
        while piece >= 64 << 10 {
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), length, piece) {
                Ok(()) => length += piece,
                Err(rustix::io::Errno::NOSPC) => piece /= 2,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub fn clear(&self, machine: &str) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.disks.join(machine).join("ballast"))?)
    }

    /// Undoes whatever was done to any machine.
    pub fn undo(&self) {
        for machine in [&self.etcd, &self.database, &self.broker, &self.balancer].into_iter().flatten() {
            // What was not done cannot be undone.
            let _ = self.mend(&[&machine.name]);
            let _ = self.clear(&machine.name);
            let _ = self.power_on(&machine.name);
            let _ = self.signal(&machine.name, Signal::CONT);
        }
    }

    /// The orders of the last minutes that a server has committed, asked on its own machine: no network is needed, and it need
    /// not be the primary. None: it does not answer.
    pub fn orders_on(&self, machine: &str) -> Option<BTreeSet<Uuid>> {
        let psql = self.bin.join("psql").display().to_string();
        let url = self.url("127.0.0.1", DATABASE);
        let sql = "SELECT id FROM orders.orders WHERE placed_at > now() - interval '3 minutes'";
        let seconds = "4";
        let args = ["netns", "exec", machine, "timeout", seconds, &psql, "-XAtq", "-d", &url, "-c", sql];
        let listed = run("ip", &args).ok()?;
        Some(listed.lines().filter_map(|id| id.parse().ok()).collect())
    }

    /// `pg_dump` of the shop's database, through the balancer at that address.
    pub fn dump(&self, address: &str) -> Command {
        let mut command = Command::new(self.bin.join("pg_dump"));
        command.arg("-d").arg(self.url(address, BALANCED));
        command
    }
}

fn roles(seen: &Value) -> Roles {
    let members = seen["members"].as_array().cloned().unwrap_or_default();
    let named = |role: &str| {
        let member = members.iter().find(|member| member["role"] == role);
        member.and_then(|member| member["name"].as_str().map(str::to_owned))
    };
    let primary = members.iter().find(|member| member["role"] == "leader" && member["state"] == "running");
    let timeline = primary.and_then(|primary| primary["timeline"].as_i64()).unwrap_or_default();
    let whole = members.len() == 3
        && members.iter().all(|member| {
            let state = member["state"].as_str().unwrap_or_default();
            ["running", "streaming"].contains(&state) && member["timeline"] == timeline
        });
    Roles {
        primary: primary.and_then(|primary| primary["name"].as_str().map(str::to_owned)),
        synchronous: named("sync_standby"),
        whole,
        timeline,
    }
}

/// Whether a broker answers there: a process that is stopped takes connections, and says nothing.
async fn greets(address: &str) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect((address, 5672)).await?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
        stream.read_u8().await
    };
    matches!(tokio::time::timeout(Duration::from_secs(2), ask).await, Ok(Ok(1)))
}

fn run(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let output =
        Command::new(program).args(args).output().with_context(|| format!("{program} cannot be run"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{program} {}: {}", args.first().unwrap_or(&""), said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_and_a_member_on_an_old_timeline_is_not_whole() {
        let mut seen = json!({"members": [
            {"name": "db1", "role": "leader", "state": "running", "timeline": 2},
            {"name": "db2", "role": "sync_standby", "state": "running", "timeline": 2},
            {"name": "db3", "role": "replica", "state": "streaming", "timeline": 2}]});
        let found = roles(&seen);
        assert_eq!((found.primary.as_deref(), found.synchronous.as_deref()), (Some("db1"), Some("db2")));
        assert!(found.whole);
        seen["members"][2]["timeline"] = json!(1);
        assert!(!roles(&seen).whole);
        assert_eq!(roles(&json!({})), Roles::default());
    }
}
