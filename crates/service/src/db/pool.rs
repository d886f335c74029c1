//! A pool whose callers wait a second, and whose connections may take longer to open.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, BoxStream};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Describe, Either, Execute, Executor, Postgres, SqlStr};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::detached;

/// How long anybody waits for a connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// sqlx's pool, but that an opening which has begun goes on when its caller has waited long enough.
///
/// sqlx gives it up. On a machine too busy to open a connection within that time everybody
/// then begins anew, again and again, and no connection is ever opened.
///
/// As many callers as there may be connections have their turn at sqlx's pool, and see it through;
/// the others wait in front of it, where they can still leave.
#[derive(Debug, Clone)]
pub struct Pool {
    connections: PgPool,
    turns: Arc<Semaphore>,
}

impl From<PgPool> for Pool {
    /// The acquire time-out of `connections` becomes the limit for opening one.
    fn from(connections: PgPool) -> Self {
        let turns = connections.options().get_max_connections() as usize;
        Self { connections, turns: Arc::new(Semaphore::new(turns)) }
    }
}

impl Pool {
    /// A connection, or after a second [`sqlx::Error::PoolTimedOut`].
    pub async fn acquire(&self) -> sqlx::Result<PoolConnection<Postgres>> {
        let deadline = Instant::now() + PATIENCE;
        let acquired = async {
            let turn = self.turns.clone().acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
            let connections = self.connections.clone();
            detached(async move {
                let connection = connections.acquire().await;
                drop(turn);
                connection
            })
            .await
        };
        timeout_at(deadline, acquired).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// How its connections are opened.
    pub fn connect_options(&self) -> PgConnectOptions {
        (*self.connections.connect_options()).clone()
    }

    /// How many connections are open, and how many of them nobody uses.
    pub fn open_and_idle(&self) -> (u32, usize) {
        (self.connections.size(), self.connections.num_idle())
    }
}

impl<'p> Executor<'p> for &'p Pool {
    type Database = Postgres;

    /// All that comes back is taken in before the first of it is handed on: a statement whose rows
    /// are too many for that is run on a connection from [`Pool::acquire`].
    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        async move {
            match self.acquire().await {
                Ok(mut connection) => connection.fetch_many(query).collect().await,
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
        async move { self.acquire().await?.fetch_optional(query).await }.boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'p: 'e,
    {
        async move { self.acquire().await?.prepare_with(sql, parameters).await }.boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<Postgres>>>
    where
        'p: 'e,
    {
        async move { self.acquire().await?.describe(sql).await }.boxed()
    }
}
