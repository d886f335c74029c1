//! Follows the database, so that readiness is true and nobody waits for a server that was replaced.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::COMMIT_HELD;
use super::server::{Server, identify};

/// Between two signs of life.
const EVERY: Duration = Duration::from_millis(500);

/// For a sign of life.
const PATIENCE: Duration = Duration::from_millis(1500);

/// For a commit that shows whether commits wait for a standby.
const PROBE_PATIENCE: Duration = Duration::from_millis(1000);

/// While the database is away another try begins after this, beside those that have not failed yet: of these, one
/// may be on its way to an address that nobody has any more.
const TRY_EVERY: Duration = Duration::from_millis(750);
/// After a failed try the next one comes sooner: a server that refuses is on its way back, or another one is.
const TRY_AFTER_FAILURE: Duration = Duration::from_millis(200);
const TRIES: usize = 8;

/// A task that checks the database twice a second, on a connection of its own.
#[derive(Debug)]
pub(super) struct Watch {
    server: Arc<Server>,
    task: JoinHandle<()>,
}

impl Watch {
    /// `server` has just been reached.
    pub fn start(server: Arc<Server>) -> Self {
        server.set_alive(true);
        Self { task: tokio::spawn(follow(server.clone())), server }
    }

    pub fn is_writable(&self) -> bool {
        self.server.is_writable()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(server: Arc<Server>) {
    loop {
        let (mut connection, retired) = reach(&server).await;
        if !server.set_alive(true) {
            tracing::info!("db.back");
        }
        let (mut present, mut probe) = (None, Probe::Closed);
        let lost = loop {
            sleep(EVERY).await;
            match timeout(PATIENCE, identify(&mut connection)).await {
                // A connection always leads to the same server, except by a pooler.
                Ok(Ok(life)) if *present.get_or_insert_with(|| life.identity.clone()) == life.identity => {
                    let waits = life.synchronous && probe.waits(&server, &retired).await;
                    server.set_commits_wait(life.commits_wait || waits);
                }
                Ok(Ok(_)) => break "another server answers".to_owned(),
                Ok(Err(error)) => break error.to_string(),
                Err(_) => break "no sign of life in time".to_owned(),
            }
            if retired.is_cancelled() {
                break "another server took over".to_owned();
            }
        };
        server.set_alive(false);
        tracing::warn!(error = lost, "db.away");
    }
}

/// A commit with each check, as the process may have none of its own. With synchronous replication it does
/// not return while no standby answers, and that is the only sign: a primary that was cut off answers
/// everything else.
///
/// It has a connection of its own, and is never cancelled: there is one at a time, however long it waits.
enum Probe {
    Closed,
    Opening(JoinHandle<Option<PgConnection>>),
    Writing(JoinHandle<Option<PgConnection>>, Instant),
}

impl Probe {
    /// Goes on with it, without waiting. Whether its commit takes long.
    async fn waits(&mut self, server: &Arc<Server>, retired: &CancellationToken) -> bool {
        *self = match std::mem::replace(self, Probe::Closed) {
            Probe::Closed => {
                let server = server.clone();
                Probe::Opening(tokio::spawn(async move { server.open().await.ok().map(|(raw, _)| raw) }))
            }
            Probe::Opening(task) | Probe::Writing(task, _) if task.is_finished() => match task.await {
                Ok(Some(raw)) => Probe::Writing(tokio::spawn(write(raw, retired.clone())), Instant::now()),
                // The server is checked on another connection, which shows what is wrong.
                _ => Probe::Closed,
            },
            other => other,
        };
        matches!(self, Probe::Writing(_, since) if since.elapsed() >= PROBE_PATIENCE)
    }
}

/// A transaction that writes to the log and to no table. The connection, unless the server was replaced or it took too
/// long.
/// <https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION>
async fn write(mut raw: PgConnection, retired: CancellationToken) -> Option<PgConnection> {
    let written = sqlx::raw_sql("SELECT pg_logical_emit_message(true, 'dockside', '')").execute(&mut raw);
    let written = timeout(COMMIT_HELD, written);
    retired.run_until_cancelled(written).await?.ok()?.ok()?;
    Some(raw)
}

/// A connection to the server, as soon as there can be one.
async fn reach(server: &Arc<Server>) -> (PgConnection, CancellationToken) {
    let mut tries = JoinSet::new();
    loop {
        if tries.len() < TRIES {
            let server = server.clone();
            tries.spawn(async move { server.open().await });
        }
        let mut next = Instant::now() + TRY_EVERY;
        loop {
            let ended = tokio::select! {
                Some(ended) = tries.join_next() => ended,
                () = sleep_until(next) => break,
            };
            match ended {
                Ok(Ok(reached)) => return reached,
                Ok(Err(error)) => {
                    server.set_alive(false);
                    tracing::debug!(%error, "db.not_reached");
                    next = next.min(Instant::now() + TRY_AFTER_FAILURE);
                }
                Err(error) => tracing::error!(%error, "db.not_reached"),
            }
        }
    }
}
