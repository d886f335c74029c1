//! Does to the cluster what the plan says, and undoes it.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use rustix::process::Signal;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr};
use tokio::task::block_in_place;
use tokio::time::sleep;
use uuid::Uuid;

use super::machines::{Cluster, Roles};
use super::plan::{Fault, Harm, Target};
use super::wait;
use crate::{Shop, dockside};

/// How long a new version may take to come up, a dump of a few seconds before it included.
const UPDATE: Duration = Duration::from_secs(90);

pub struct Injector {
    pub shop: Arc<Shop>,
    pub cluster: Arc<Cluster>,
    /// Above those of the services.
    version: AtomicI64,
}

/// What was seen on the way.
#[derive(Default)]
pub struct Found {
    /// Orders that the old primary had, asked before it joined the new one.
    pub old: Option<BTreeSet<Uuid>>,
    /// Promises that were broken.
    pub broken: Vec<String>,
    /// Remarks for the report.
    pub notes: Vec<String>,
}

/// As a service reads them.
#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    backends: service::config::Backends,
}

impl Injector {
    pub fn new(shop: &Arc<Shop>, cluster: &Arc<Cluster>) -> Self {
        Self { shop: shop.clone(), cluster: cluster.clone(), version: AtomicI64::new(900_001) }
    }

    /// Whom a fault strikes, with the roles as they are.
    pub async fn victim(&self, fault: &Fault, roles: &Roles) -> Option<String> {
        let name = |machines: &[super::machines::Machine], number: usize| {
            machines.get(number).map(|machine| machine.name.clone())
        };
        match fault.target {
            Target::Primary => roles.primary.clone(),
            Target::Standby => roles.synchronous.clone(),
            Target::Etcd => self.cluster.leader_of_etcd().await,
            Target::Broker(number) => name(&self.cluster.broker, number),
            Target::Balancer(number) => name(&self.cluster.balancer, number),
            Target::Shop => Some(String::new()),
        }
    }

    /// Strikes, and heals what lasts.
    pub async fn inject(&self, fault: Fault, victim: &str, roles: &Roles) -> anyhow::Result<Found> {
        let cluster = &self.cluster;
        let of_primary = fault.target == Target::Primary;
        let mut found = Found::default();
        match fault.harm {
            Harm::Crash => cluster.crash(victim)?,
            Harm::Kill => {
                cluster.power_off(victim)?;
                sleep(fault.lasts()).await;
                cluster.power_on(victim)?;
            }
            Harm::Freeze => {
                cluster.signal(victim, Signal::STOP)?;
                sleep(fault.lasts()).await;
                if of_primary {
                    // PostgreSQL goes on where it was, still as a primary, until its watchdog resets the machine.
                    cluster.thaw_database(victim)?;
                    sleep(Duration::from_secs(1)).await;
                    found.old = block_in_place(|| cluster.orders_on(victim));
                    // Without one a Patroni before 3.0.3 takes the leader's key from who was promoted meanwhile:
                    // https://github.com/patroni/patroni/pull/2689
                    cluster.power_off(victim)?;
                    cluster.power_on(victim)?;
                } else {
                    cluster.signal(victim, Signal::CONT)?;
                }
            }
            Harm::Blackhole => {
                cluster.cut(&[victim], &[])?;
                sleep(fault.lasts()).await;
                if of_primary {
                    found.old = block_in_place(|| cluster.orders_on(victim));
                }
                cluster.mend(&[victim])?;
            }
            Harm::Split => {
                let balancer = cluster.balancer.last().context("no balancer")?.name.as_str();
                cluster.cut(&[victim, balancer], &[balancer])?;
                sleep(fault.lasts()).await;
                found.old = block_in_place(|| cluster.orders_on(victim));
                cluster.mend(&[victim, balancer])?;
            }
            Harm::Switchover => {
                let to = roles.synchronous.as_deref().context("no standby confirms commits")?;
                cluster.switch_over(victim, to).await?;
            }
            Harm::Switchback => self.over_and_back(victim).await?,
            Harm::FullDisk => {
                cluster.fill(victim)?;
                self.write_much(fault.lasts()).await;
                cluster.clear(victim)?;
            }
            Harm::Backup => self.backup(fault.lasts(), &mut found).await?,
            Harm::Update => self.update(&mut found).await?,
            Harm::Wait => wait::scene(&self.shop, cluster, roles, &mut found).await?,
        }
        Ok(found)
    }

    /// Until the first primary is it again; only who confirms commits may take over.
    async fn over_and_back(&self, first: &str) -> anyhow::Result<()> {
        for _ in 0..6 {
            let whole = self.cluster.whole(Duration::from_secs(60)).await;
            let roles = whole.map_err(|away| anyhow::anyhow!("not whole between switchovers: {away}"))?;
            let (Some(from), Some(to)) = (&roles.primary, &roles.synchronous) else { continue };
            self.cluster.switch_over(from, to).await?;
            if to == first {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Has the log go on to new files all the time, each of which takes 16 MB of every disk.
    async fn write_much(&self, lasts: Duration) {
        let begun = std::time::Instant::now();
        while begun.elapsed() < lasts {
            // By who is the primary then; one that waits for the full standby says so late, or not at all.
            let write = sqlx::raw_sql(
                "INSERT INTO chaos.writes (id, way) VALUES (gen_random_uuid(), 'log'); SELECT pg_switch_wal()",
            );
            let _ = tokio::time::timeout(Duration::from_secs(2), write.execute(&self.shop.database)).await;
            sleep(Duration::from_millis(300)).await;
        }
    }

    /// A replica with one more migration starts while a dump holds its locks, as long as somebody is slow to read it.
    async fn backup(&self, lasts: Duration, found: &mut Found) -> anyhow::Result<()> {
        let balancer = self.cluster.balancer.first().context("no balancer")?;
        let mut dump = self.cluster.dump(&balancer.address);
        let mut dump = dump.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        sleep(Duration::from_secs(1)).await;
        if let Some(status) = dump.try_wait()? {
            found.notes.push(format!("the dump ended before the migration began ({status})"));
        }
        let migration = async {
            let begun = std::time::Instant::now();
            (self.migrate().await, begun.elapsed())
        };
        let hold = async {
            sleep(lasts).await;
            dump.kill()?;
            dump.wait().map(drop)
        };
        let ((migrated, took), held) = tokio::join!(migration, hold);
        held?;
        match migrated {
            Ok(()) => found.notes.push(format!("migrated after {:.1} s", took.as_secs_f64())),
            Err(error) => found.broken.push(format!("a migration beside a dump failed: {error:#}")),
        }
        Ok(())
    }

    /// A newer schema is brought in by the first replica of its version, and all others are replaced in turn.
    async fn update(&self, found: &mut Found) -> anyhow::Result<()> {
        self.migrate().await.context("the newer schema")?;
        for service in ["product", "user", "order"] {
            let done = block_in_place(|| dockside(&self.shop.dir, &["restart", service]));
            if !done.status.success() {
                let said = String::from_utf8_lossy(&done.stderr);
                found.broken.push(format!("{service} was not replaced: {}", said.trim()));
            }
        }
        Ok(())
    }

    /// Starts as a service does that has one more migration.
    async fn migrate(&self) -> anyhow::Result<()> {
        let version = self.version.fetch_add(1, Ordering::Relaxed);
        let sql = format!("ALTER TABLE orders.orders ADD COLUMN chaos_{version} text");
        let sql = AssertSqlSafe(sql).into_sql_str();
        let migration = Migration::new(version, "one more".into(), MigrationType::Simple, sql, false);
        let migrator = Migrator::with_migrations(vec![migration]);
        let balancer = self.cluster.balancer.last().context("no balancer")?;
        let secrets: serde_json::Value = serde_json::from_str(&self.shop.file("secrets.json"))?;
        let password = secrets["order"].as_str().context("order's password")?;
        let url = format!("postgres://order_service:{password}@{}:5000/dockside", balancer.address);
        let typed =
            ["migration", "--database-url", &url, "--database-connections", "1", "--amqp-url", "amqp://none"];
        let settings = Settings::try_parse_from(typed)?;
        let migrators = [&migrator];
        let open = service::db::open(&settings.backends, "orders", &migrators);
        tokio::time::timeout(UPDATE, open).await.context("it took too long")?.map(drop)
    }
}
