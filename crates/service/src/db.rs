//! PostgreSQL: the pool's limits, and migrations that several replicas may run at once.

mod pool;

use std::time::Duration;

use anyhow::Context;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, Postgres, SqlSafeStr, SqlStr, Transaction};

pub use pool::Pool;

/// A connection of the pool, as queries take it.
pub type Connection = PgConnection;

use crate::config::Backends;
use crate::detached;

/// How long a start waits for the database to come up.
const START_DEADLINE: Duration = Duration::from_secs(60);

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// A pool on `schema` with its migrations applied and, where they can be had, its connections open. Waits up to a minute for
/// the database to come up.
pub async fn open(config: &Backends, schema: &str, migrators: &[&Migrator]) -> anyhow::Result<Pool> {
    let options = options(&config.database_url, schema)?;
    let mut connection = connect_patiently(&options).await?;
    for migrator in migrators {
        // Takes an advisory lock, so that one replica migrates and the others wait.
        of_any_version(migrator).run(&mut connection).await.context("migrating the database failed")?;
    }
    connection.close().await?;

    // Limits for requests only: a migration may take its time.
    let options = options.options([
        ("statement_timeout", "10s"),
        ("lock_timeout", "5s"),
        ("idle_in_transaction_session_timeout", "15s"),
    ]);
    // A request that needs one more connection would wait until it is open, and just when there is much to do: so they
    // are opened ahead, and stay when nobody uses them. Not by `min_connections`, whose openings hold
    // their places in the pool while they wait, for up to a minute, for a database that is away.
    let pool = PgPoolOptions::new()
        .max_connections(config.database_connections)
        .idle_timeout(None)
        .acquire_timeout(CONNECT_DEADLINE)
        .connect_lazy_with(options);
    warm(&pool).await;
    Ok(pool.into())
}

/// Opens all connections. Those that can't be had now are opened when they are needed.
async fn warm(pool: &PgPool) {
    let mut open = Vec::new();
    for _ in 0..pool.options().get_max_connections() {
        match pool.acquire().await {
            Ok(connection) => open.push(connection),
            Err(error) => {
                tracing::warn!(error = %error, "db.not_warmed");
                break;
            }
        }
    }
}

/// Begins a transaction; not by `begin()` of sqlx's pool, whose caller may go away before
/// BEGIN is answered. sqlx 0.9.0 then puts the connection back into the pool
/// inside the transaction, and what its next borrower writes is reported as done
/// and lost (<https://github.com/launchbadge/sqlx/issues/4385>). Here BEGIN is
/// carried to its answer by a task, and rolled back if nobody waits for it any more.
pub async fn begin(pool: &Pool) -> sqlx::Result<Transaction<'static, Postgres>> {
    begin_by(pool, None).await
}

/// As [`begin`], by another statement than BEGIN.
pub async fn begin_with(
    pool: &Pool,
    statement: &'static str,
) -> sqlx::Result<Transaction<'static, Postgres>> {
    begin_by(pool, Some(statement.into_sql_str())).await
}

async fn begin_by(pool: &Pool, statement: Option<SqlStr>) -> sqlx::Result<Transaction<'static, Postgres>> {
    let connection = pool.acquire().await?;
    #[expect(clippy::disallowed_methods, reason = "this is the one place that can't be cancelled")]
    detached(Transaction::begin(connection, statement)).await
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

/// Connection options with `search_path` set to `schema`, so that the tables of
/// `crates/messaging`, which every service has, need no qualified names.
fn options(url: &str, schema: &str) -> anyhow::Result<PgConnectOptions> {
    let options: PgConnectOptions = url.parse().context("DATABASE_URL is not a PostgreSQL URL")?;
    Ok(options.application_name(schema).options([("search_path", schema)]))
}

async fn connect_patiently(options: &PgConnectOptions) -> anyhow::Result<PgConnection> {
    let started = tokio::time::Instant::now();
    loop {
        let connect = tokio::time::timeout(CONNECT_DEADLINE, PgConnection::connect_with(options)).await;
        match connect.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
            Ok(connection) => return Ok(connection),
            Err(error) if is_transient(&error) && started.elapsed() < START_DEADLINE => {
                tracing::warn!(error = %error, "db.waiting");
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            Err(error) => return Err(error).context("can't connect to PostgreSQL"),
        }
    }
}

/// Whether the same call may well succeed later: the database is away, busy,
/// or gave this transaction up in favour of another.
/// Codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
pub fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => true,
        sqlx::Error::WorkerCrashed | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) => true,
        sqlx::Error::Database(database) => database.code().is_some_and(|code| {
            let class = code.get(..2).unwrap_or_default();
            matches!(class, "08" | "40" | "53" | "57") || matches!(&*code, "55P03" | "25P03" | "25P04")
        }),
        _ => false,
    }
}

/// Whether a statement was ended by its time limit.
pub fn timed_out(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|database| database.code()).as_deref() == Some("57014")
}

/// The constraint that a statement broke, by name.
pub fn violated_constraint(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error().and_then(|database| database.constraint())
}
