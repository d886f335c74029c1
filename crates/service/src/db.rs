//! PostgreSQL: connections with a limit for every wait, the server that takes writes, and migrations that
//! several replicas may run at once.

mod address;
mod connection;
mod errors;
mod pool;
mod pooler;
mod server;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub(crate) use address::verifies_the_server;
pub use connection::{Connection, Transaction, begin, begin_with};
pub(crate) use errors::outcome_unknown;
pub use errors::{Defect, Kind, abandoned, is_transient, kind, money, timed_out, violated_constraint};
pub use pool::Pool;

use crate::config::{Backends, Pooler};
use errors::{is_read_only, is_unannounced};
use server::{Server, Session};
use watch::Watch;

/// How long a start waits for the database to come up.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long it waits for one that takes writes, where the only one there is does not: it may be promoted.
const STANDBY_DEADLINE: Duration = Duration::from_secs(4);

/// For the questions to a pooler at the start.
const CHECK_DEADLINE: Duration = Duration::from_secs(4);

/// How long a migration may run, with all its waits for locks.
const MIGRATION_DEADLINE: Duration = Duration::from_secs(3600);

/// Longest pause between two tries of a migration that did not get its lock.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A pool on `schema` with its migrations applied and, where they can be had, its connections open. Waits up to a
/// minute for the database to come up, as long for one of several to take over, and four seconds for an only standby to be
/// promoted.
pub async fn open(config: &Backends, schema: &str, migrators: &[&Migrator]) -> anyhow::Result<Pool> {
    let pooled = config.database_pooler == Pooler::Transaction;
    let (direct_setting, direct_url) = match (&config.database_direct_url, pooled) {
        (Some(url), _) => ("DATABASE_DIRECT_URL", url),
        (None, false) => ("DATABASE_URL", &config.database_url),
        (None, true) => bail!(
            "DATABASE_POOLER=transaction needs DATABASE_DIRECT_URL, PostgreSQL's own address, \
             for migrations and notifications"
        ),
    };
    let session = if pooled { Session::Pooled } else { Session::Direct };
    let server = Arc::new(Server::new("DATABASE_URL", &config.database_url, schema, session)?);
    let migrating = Server::new(direct_setting, direct_url, schema, Session::Migration)?;
    let direct = Server::new(direct_setting, direct_url, schema, Session::Direct)?;

    let (mut connection, _) = connect_patiently(&server).await?;
    if pooled {
        let check = pooler::check(&mut connection, schema);
        timeout(CHECK_DEADLINE, check).await.context("the pooler does not answer")??;
    }
    drop(connection);
    for migrator in migrators {
        migrate(&migrating, migrator).await.context("migrating the database failed")?;
    }
    let watch = Arc::new(Watch::start(server.clone()));
    let pool = Pool::new(server, Arc::new(direct), config.database_connections, Some(watch))?;
    pool.warm().await;
    Ok(pool)
}

/// Takes an advisory lock, so that one replica migrates and the others wait.
///
/// A statement that does not get its lock at once fails and is tried again later. While it waits, for example
/// for a backup to end, everybody who came after it would wait too.
async fn migrate(server: &Server, migrator: &Migrator) -> anyhow::Result<()> {
    let migrator = of_any_version(migrator);
    let started = Instant::now();
    let mut pause = Duration::from_millis(500);
    loop {
        let (mut connection, retired) = connect_patiently(server).await?;
        let left = MIGRATION_DEADLINE.saturating_sub(started.elapsed());
        let migrated = tokio::select! {
            migrated = timeout(left, migrator.run(&mut connection)) => migrated.context("it took an hour")?,
            () = lost(server, &retired) => {
                tracing::warn!("db.migration_lost_its_server");
                continue;
            }
        };
        match migrated {
            Ok(()) => return Ok(()),
            Err(error) if may_come_again(&error) => {
                // Logged each time: a migration that waits for hours must be visible.
                tracing::warn!(%error, again_in = ?pause, "db.migration_waits");
            }
            Err(error) => return Err(error.into()),
        }
        drop(connection);
        sleep(pause.mul_f64(0.5 + rand::random::<f64>())).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn may_come_again(error: &MigrateError) -> bool {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => is_transient(error),
        _ => false,
    }
}

/// Ends when another server has taken over, or when none was reached three times in a row.
async fn lost(server: &Server, retired: &CancellationToken) {
    let mut failures = 0;
    while failures < 3 && !retired.is_cancelled() {
        sleep(Duration::from_secs(3)).await;
        failures = match server.open().await {
            Err(error) if kind(&error) == Kind::OtherConnection => failures + 1,
            _ => 0,
        };
    }
}

/// The same migrations, but content with a schema that a later version has
/// migrated further: replicas of this one are still started during an update,
/// and by a rollback. Keeps the table's name; ours have the defaults of all else.
fn of_any_version(migrator: &Migrator) -> Migrator {
    let mut patient = Migrator::with_migrations(migrator.iter().cloned().collect());
    patient.dangerous_set_table_name(migrator.table_name.clone());
    patient.set_ignore_missing(true);
    patient
}

/// A connection, and what is cancelled when its server is replaced. Of several hosts one may be about to take
/// over from a primary that is gone. It waits for that as for a database that starts.
async fn connect_patiently(server: &Server) -> anyhow::Result<(PgConnection, CancellationToken)> {
    let started = Instant::now();
    let mut standby_met: Option<Instant> = None;
    loop {
        match server.open().await {
            Ok(opened) => return Ok(opened),
            Err(error) if is_read_only(&error) => {
                let waited = standby_met.get_or_insert_with(Instant::now).elapsed();
                let patience = if server.has_several_hosts() { START_DEADLINE } else { STANDBY_DEADLINE };
                ensure!(
                    waited < patience,
                    "the database server is a standby or read-only: name the primary, or list all servers as in \
                     postgres://role:password@one,two/dockside?target_session_attrs=read-write"
                );
                tracing::warn!(%error, "db.waiting");
            }
            Err(error) if is_unannounced(&error) => {
                return Err(error).with_context(|| match server.setting() {
                    "DATABASE_URL" => "DATABASE_URL leads to a pooler: set DATABASE_POOLER=transaction and \
                                       DATABASE_DIRECT_URL, or name PostgreSQL itself"
                        .to_owned(),
                    direct => format!("{direct} leads to a pooler: it has to name PostgreSQL itself"),
                });
            }
            Err(error) if is_transient(&error) && started.elapsed() < START_DEADLINE => {
                tracing::warn!(%error, "db.waiting");
            }
            Err(error) => return Err(error).context("can't connect to PostgreSQL"),
        }
        sleep(Duration::from_millis(250)).await;
    }
}

/// How the server that takes writes is reached, of those that `url` lists. For programs of operators, whose statements may
/// take longer than [`Connection`] lets them: who uses it sets limits of their own. `setting` is named in errors.
pub async fn primary(setting: &'static str, url: &str) -> anyhow::Result<PgConnectOptions> {
    let mut hosts = address::parse(setting, url)?;
    if hosts.len() > 1 {
        let server = Server::new(setting, url, "operator", Session::Direct)?;
        let (connection, _) = server.open().await.context("none of the database servers takes writes")?;
        drop(connection);
        return Ok(hosts.swap_remove(server.last()));
    }
    hosts.pop().context("no database server is named")
}

impl Pool {
    /// A connection of its own for LISTEN, to the server itself: no pooler passes notifications on. Opening
    /// it may take five seconds, and its user checks that it is alive.
    pub async fn listener(&self) -> sqlx::Result<PgListener> {
        let (connection, _) = self.direct().open().await?;
        drop(connection);
        let own = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(5));
        PgListener::connect_with(&own.connect_lazy_with(self.direct().options())).await
    }
}
