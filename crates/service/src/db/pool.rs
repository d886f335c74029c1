//! A pool whose callers wait a second, and whose connections may take longer to open.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool::managed::{self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult};
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, BoxStream, StreamExt};
use opentelemetry::metrics::{Counter, Histogram};
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Describe, Either, Execute, Executor, Postgres, SqlStr};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use super::connection::Connection;
use super::errors::Unanswered;
use super::server::{Server, Session};
use super::watch::Watch;
use crate::{detached, telemetry};

/// How long anybody waits for a connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// Between two checks whether a server that was away is back.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Opens connections, and checks them before they are lent again.
#[derive(Debug)]
pub struct Manager(Arc<Server>);

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = sqlx::Error;

    async fn create(&self) -> sqlx::Result<Connection> {
        // While the server is away only the watch tries to reach it. Otherwise a balancer or a server that
        // comes back would find a queue of connections, and serve them first, though nobody waits for them
        // any more.
        let until = Instant::now() + PATIENCE;
        while self.0.is_away() && Instant::now() < until {
            sleep(LOOK_EVERY).await;
        }
        if self.0.commits_wait() || self.0.is_away() {
            return Err(Unanswered::Unreachable(sqlx::Error::PoolTimedOut).into());
        }
        self.0.connect().await.map_err(|error| Unanswered::Unreachable(error).into())
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<sqlx::Error> {
        match connection.is_good().await {
            true => Ok(()),
            false => Err(RecycleError::message("closed, of another server, too old or dead")),
        }
    }
}

/// Connections to the primary. An opening that has begun goes on when its caller has timed out. On a machine
/// too busy to open a connection within that time, every caller would otherwise begin a new opening, and none
/// would ever end.
///
/// As many callers as there may be connections have their turn at the pool itself, and stay to the end. The
/// others wait in front of it, where they can still leave.
#[derive(Debug, Clone)]
pub struct Pool {
    connections: managed::Pool<Manager>,
    turns: Arc<Semaphore>,
    measured: Arc<Measured>,
    direct: Arc<Server>,
    /// Follows the server as long as there is a pool.
    watch: Option<Arc<Watch>>,
}

/// The metrics of the pool's callers.
#[derive(Debug)]
struct Measured {
    waiting: AtomicUsize,
    waits: Histogram<f64>,
    timeouts: Counter<u64>,
}

impl Measured {
    fn start(connections: &managed::Pool<Manager>) -> Arc<Self> {
        let description = "Time that callers waited for a connection to the database.";
        let waits = telemetry::duration_histogram("db.client.connection.wait_time", description);
        let description = "Callers that got no connection in time.";
        let timeouts = telemetry::counter("db.client.connection.timeouts", "{timeout}", description);
        timeouts.add(0, &[]);
        let measured = Arc::new(Self { waiting: AtomicUsize::new(0), waits, timeouts });
        // Not the pool itself, which would then never end.
        let (pool, waiting) = (Arc::new(connections.weak()), Arc::downgrade(&measured));
        let status = move || Some(pool.upgrade()?.status());
        let description = "Connections to the database.";
        for (state, is_used) in [("used", true), ("idle", false)] {
            let labels = [telemetry::label("db.client.connection.state", state)];
            let status = status.clone();
            telemetry::observed(
                "db.client.connection.count",
                "{connection}",
                description,
                &labels,
                move || {
                    let status = status()?;
                    Some(if is_used {
                        status.size.saturating_sub(status.available)
                    } else {
                        status.available
                    })
                },
            );
        }
        let description = "Most connections to the database.";
        telemetry::observed("db.client.connection.max", "{connection}", description, &[], move || {
            Some(status()?.max_size)
        });
        let (name, description) =
            ("db.client.connection.pending_requests", "Callers that wait for a connection to the database.");
        telemetry::observed(name, "{request}", description, &[], move || {
            Some(waiting.upgrade()?.waiting.load(Ordering::Relaxed))
        });
        measured
    }
}

/// A caller that waits, however that ends.
struct Wait<'a> {
    measured: &'a Measured,
    begun: Instant,
}

impl<'a> Wait<'a> {
    fn begin(measured: &'a Measured) -> Self {
        measured.waiting.fetch_add(1, Ordering::Relaxed);
        Self { measured, begun: Instant::now() }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.measured.waiting.fetch_sub(1, Ordering::Relaxed);
        self.measured.waits.record(self.begun.elapsed().as_secs_f64(), &[]);
    }
}

impl Pool {
    /// `direct` leads to `server` without a pooler.
    pub(super) fn new(
        server: Arc<Server>,
        direct: Arc<Server>,
        size: u32,
        watch: Option<Arc<Watch>>,
    ) -> anyhow::Result<Self> {
        let size = size.try_into()?;
        // The connection that was used last comes first: its server process is awake, and it is known to be
        // alive.
        let connections =
            managed::Pool::builder(Manager(server)).max_size(size).queue_mode(QueueMode::Lifo).build()?;
        let measured = Measured::start(&connections);
        Ok(Self { connections, turns: Arc::new(Semaphore::new(size)), measured, direct, watch })
    }

    /// A pool on any address, whose connections are opened when they are needed and which nobody watches: for tests.
    pub fn lazy(url: &str, schema: &str, size: u32) -> anyhow::Result<Self> {
        let server = Arc::new(Server::new("the address", url, schema, Session::Direct)?);
        Self::new(server.clone(), server, size, None)
    }

    /// A connection, or after a second [`sqlx::Error::PoolTimedOut`].
    pub async fn acquire(&self) -> sqlx::Result<Object<Manager>> {
        let wait = Wait::begin(&self.measured);
        let deadline = wait.begun + PATIENCE;
        let acquired = async {
            let turn = self.turns.clone().acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
            let connections = self.connections.clone();
            detached(async move {
                let connection = connections.get().await;
                drop(turn);
                connection.map_err(|error| match error {
                    PoolError::Backend(error) => error,
                    _ => sqlx::Error::PoolTimedOut,
                })
            })
            .await
        };
        let acquired = timeout_at(deadline, acquired).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        if matches!(acquired, Err(sqlx::Error::PoolTimedOut)) {
            self.measured.timeouts.add(1, &[]);
        }
        acquired
    }

    /// Opens all connections. Those that can't be had now are opened when they are needed.
    pub(super) async fn warm(&self) {
        let mut open = Vec::new();
        while open.len() < self.connections.status().max_size {
            match self.connections.get().await {
                Ok(connection) => open.push(connection),
                Err(error) => {
                    tracing::warn!(%error, "db.not_warmed");
                    break;
                }
            }
        }
    }

    /// Whether the database can be written to, as far as is known: false when a sign of life is overdue.
    pub fn is_writable(&self) -> bool {
        self.watch.as_ref().is_none_or(|watch| watch.is_writable())
    }

    pub(super) fn direct(&self) -> &Server {
        &self.direct
    }

    /// How many connections are open, and how many of them nobody uses.
    pub fn open_and_idle(&self) -> (usize, usize) {
        let status = self.connections.status();
        (status.size, status.available)
    }
}

impl<'p> Executor<'p> for &'p Pool {
    type Database = Postgres;

    /// The whole answer is read before the first part of it is handed on.
    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        async move {
            match self.acquire().await {
                Ok(mut connection) => (&mut *connection).fetch_many(query).collect().await,
                Err(error) => vec![Err(error)],
            }
        }
        .map(stream::iter)
        .flatten_stream()
        .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        async move { (&mut *self.acquire().await?).fetch_optional(query).await }.boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'p: 'e,
    {
        async move { (&mut *self.acquire().await?).prepare_with(sql, parameters).await }.boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<Postgres>>>
    where
        'p: 'e,
    {
        async move { (&mut *self.acquire().await?).describe(sql).await }.boxed()
    }
}
