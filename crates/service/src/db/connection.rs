//! A connection on which every wait has a limit, and transactions on it.
//!
//! sqlx sets no limit to how long it waits for an answer. A limit set by the server (`statement_timeout`)
//! does not help when the server is frozen, or its host has vanished. So each statement has a deadline here,
//! in the client. When it passes, or another server has taken over, the connection is closed at once,
//! whatever was under way on it.

use std::time::Duration;

use deadpool::managed::Object;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use sqlx::postgres::{PgConnection, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Connection as _, Describe, Either, Execute, Executor, Postgres, SqlStr};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::errors::{Kind, Unanswered, kind};
use super::pool::{Manager, Pool};

/// For one statement: longer than the server's own limit (`statement_timeout`), whose error says more.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(12);

/// For all statements of a transaction together.
const TRANSACTION_DEADLINE: Duration = Duration::from_secs(60);

/// The longest wait for the answer to COMMIT, which `statement_timeout` does not bound.
const COMMIT_DEADLINE: Duration = Duration::from_secs(8);

/// How long a COMMIT without a waiting caller keeps its place in the pool. With synchronous replication it
/// waits on the server for a standby, and a new connection in its place would soon wait there too.
pub(super) const COMMIT_HELD: Duration = Duration::from_secs(600);

/// How long an answer shows that the connection is alive.
const FRESH: Duration = Duration::from_millis(250);

/// A connection that was unused for this long is closed. A device on the way may have dropped it silently,
/// and a new one takes less time than to find that out.
const STALE: Duration = Duration::from_secs(300);

/// For a ROLLBACK, or a sign of life.
const SHORT_DEADLINE: Duration = Duration::from_secs(2);

/// A connection as queries take it: `query!(...).execute(connection)` with a `&mut Connection`.
#[derive(Debug)]
pub struct Connection {
    /// `None` once it is closed.
    raw: Option<PgConnection>,
    /// Cancelled when another server has taken over.
    retired: CancellationToken,
    /// When it is too old to be used again.
    expires: Instant,
    /// The end of the present transaction's time.
    until: Option<Instant>,
    /// When the last statement was answered; `None` from when one is sent until it is answered.
    answered: Option<Instant>,
    /// A statement of the present transaction failed: PostgreSQL answers its COMMIT with a ROLLBACK and no error.
    aborted: bool,
}

impl Connection {
    pub(super) fn new(raw: PgConnection, retired: CancellationToken, life: Duration) -> Self {
        Self {
            raw: Some(raw),
            retired,
            expires: Instant::now() + life,
            until: None,
            answered: None,
            aborted: false,
        }
    }

    /// The connection to send a statement on, and how long it may take. After that comes [`Self::settle`].
    fn statement(&mut self, limit: Duration) -> sqlx::Result<(&mut PgConnection, Limit)> {
        let until = Instant::now() + limit;
        let until = self.until.map_or(until, |end| end.min(until));
        let limit = Limit { retired: self.retired.clone(), until };
        let raw = self.raw.as_mut().ok_or(Unanswered::Closed)?;
        self.answered = None;
        Ok((raw, limit))
    }

    fn settle<T>(&mut self, outcome: sqlx::Result<T>) -> sqlx::Result<T> {
        self.answered = Some(Instant::now());
        if let Err(error) = &outcome {
            self.aborted |= self.until.is_some() && matches!(error, sqlx::Error::Database(_));
            if kind(error) == Kind::OtherConnection {
                self.raw = None; // which closes it
            }
        }
        outcome
    }

    /// Runs statements that have no values and whose rows nobody wants.
    async fn run(&mut self, sql: &'static str, limit: Duration) -> sqlx::Result<()> {
        let (raw, limit) = self.statement(limit)?;
        let outcome = limit.hold(sqlx::raw_sql(sql).execute(raw)).await;
        self.settle(outcome).map(drop)
    }

    /// Whether it can be lent again: open, of the present server, young enough, and alive.
    pub(super) async fn is_good(&mut self) -> bool {
        if self.until.take().is_some() || self.retired.is_cancelled() || Instant::now() >= self.expires {
            return false;
        }
        match self.answered.map(|at| at.elapsed()) {
            Some(quiet) if quiet < FRESH => return self.raw.is_some(),
            Some(quiet) if quiet > STALE => return false,
            _ => {}
        }
        // This also reads the rest of what a former user has asked for.
        let Ok((raw, limit)) = self.statement(SHORT_DEADLINE) else { return false };
        let outcome = limit.hold(raw.ping()).await;
        self.settle(outcome).is_ok()
    }
}

/// How long something may take.
struct Limit {
    retired: CancellationToken,
    until: Instant,
}

impl Limit {
    async fn hold<T>(self, work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        tokio::select! {
            biased;
            outcome = work => outcome,
            () = self.retired.cancelled() => Err(Unanswered::Retired.into()),
            () = tokio::time::sleep_until(self.until) => Err(Unanswered::Statement.into()),
        }
    }
}

impl<'c> Executor<'c> for &'c mut Connection {
    type Database = Postgres;

    /// The whole answer is read before the first part of it is handed on.
    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        async move {
            let (raw, limit) = self.statement(STATEMENT_DEADLINE)?;
            let outcome = limit.hold(raw.fetch_many(query).try_collect::<Vec<_>>()).await;
            self.settle(outcome)
        }
        .map(|outcome| match outcome {
            Ok(items) => stream::iter(items.into_iter().map(Ok)).left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        })
        .flatten_stream()
        .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        async move {
            let (raw, limit) = self.statement(STATEMENT_DEADLINE)?;
            let outcome = limit.hold(raw.fetch_optional(query)).await;
            self.settle(outcome)
        }
        .boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'c: 'e,
    {
        async move {
            let (raw, limit) = self.statement(STATEMENT_DEADLINE)?;
            let outcome = limit.hold(raw.prepare_with(sql, parameters)).await;
            self.settle(outcome)
        }
        .boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<Postgres>>>
    where
        'c: 'e,
    {
        async move {
            let (raw, limit) = self.statement(STATEMENT_DEADLINE)?;
            let outcome = limit.hold(raw.describe(sql)).await;
            self.settle(outcome)
        }
        .boxed()
    }
}

/// A transaction, which is rolled back unless it is committed. Statements take `&mut Connection`, to which
/// a `&mut Transaction` turns by itself.
#[derive(Debug)]
pub struct Transaction {
    /// `None` once it has ended.
    connection: Option<Object<Manager>>,
}

/// Begins a transaction. A caller that stops waiting leaves no trace: the connection is rolled back before
/// anybody else gets it. With sqlx 0.9.0's own `begin` it may go back into the pool inside the transaction.
/// What its next user writes is then reported as done and is lost
/// (<https://github.com/launchbadge/sqlx/issues/4385>).
pub async fn begin(pool: &Pool) -> sqlx::Result<Transaction> {
    begin_with(pool, "BEGIN").await
}

/// As [`begin`], by another statement than BEGIN.
pub async fn begin_with(pool: &Pool, statement: &'static str) -> sqlx::Result<Transaction> {
    let connection = pool.acquire().await?;
    // From here on it is rolled back when it is dropped, whether or not BEGIN has been answered.
    let mut transaction = Transaction { connection: Some(connection) };
    transaction.until = Some(Instant::now() + TRANSACTION_DEADLINE);
    transaction.aborted = false;
    transaction.run(statement, STATEMENT_DEADLINE).await?;
    Ok(transaction)
}

impl Transaction {
    /// Commits. An error of [`Kind::OutcomeUnknown`] leaves open whether it is committed, now or later; any other
    /// means that it is rolled back.
    pub async fn commit(mut self) -> sqlx::Result<()> {
        if self.aborted {
            self.rollback().await?;
            return Err(sqlx::Error::Decode(
                "a statement of the transaction had failed: nothing is committed".into(),
            ));
        }
        // By a task, so that a caller that goes away does not free its place: see COMMIT_HELD.
        let commit = tokio::spawn(async move {
            self.until = None;
            self.run("COMMIT", COMMIT_HELD).await?;
            drop(self.connection.take());
            Ok(())
        });
        match tokio::time::timeout(COMMIT_DEADLINE, commit).await {
            Ok(Ok(Err(error))) if kind(&error) != Kind::OtherConnection => Err(error),
            Ok(Ok(Ok(()))) => Ok(()),
            _ => Err(Unanswered::Commit.into()),
        }
    }

    pub async fn rollback(mut self) -> sqlx::Result<()> {
        match self.connection.take() {
            Some(connection) => roll_back(connection).await,
            None => Ok(()),
        }
    }
}

async fn roll_back(mut connection: Object<Manager>) -> sqlx::Result<()> {
    // A caller that is dropped here leaves `until`, by which the pool knows that the transaction may be open
    // yet.
    connection.until = Some(Instant::now() + SHORT_DEADLINE);
    let outcome = connection.run("ROLLBACK", SHORT_DEADLINE).await;
    match &outcome {
        Ok(()) => connection.until = None,
        Err(_) => connection.raw = None,
    }
    outcome
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take_if(|connection| connection.raw.is_some()) {
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn(roll_back(connection))),
                Err(_) => connection.raw = None,
            }
        }
    }
}

const ENDED: &str = "a transaction has a connection until it ends";

impl std::ops::Deref for Transaction {
    type Target = Connection;

    #[expect(clippy::expect_used, reason = "commit and rollback take the transaction away from its user")]
    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect(ENDED)
    }
}

impl std::ops::DerefMut for Transaction {
    #[expect(clippy::expect_used, reason = "as above")]
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect(ENDED)
    }
}
