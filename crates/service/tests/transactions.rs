//! A BEGIN that is cancelled before its answer does not poison the pool (sqlx issues 4385 and 4393).

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use std::pin::pin;
use std::task::Poll;

use futures_util::poll;
use service::config::Backends;
use service::db::{Pool, Transaction};
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgPool, Postgres};

const ROUNDS: i64 = 20;

/// Further than any BEGIN on a connection that is there goes without waiting.
const POLLS: i64 = 6;

/// Begins transactions and drops them after one poll, two, three ...; after each, the connection's next
/// borrower writes a row. Returns how many of the rows others can see.
async fn rows_kept<'p, P, T, F: Future<Output = sqlx::Result<T>>>(
    pool: &'p P,
    idle: impl Fn(&'p P) -> usize,
    begin: impl Fn(&'p P) -> F,
    roll_back: impl AsyncFn(T) -> sqlx::Result<()>,
    observer: &PgPool,
) -> i64
where
    &'p P: sqlx::Executor<'p, Database = Postgres>,
{
    sqlx::query("DROP TABLE IF EXISTS written").execute(observer).await.unwrap();
    sqlx::query("CREATE TABLE written (n bigint NOT NULL)").execute(observer).await.unwrap();
    sqlx::query("SELECT 1").execute(pool).await.unwrap();
    for round in 0..ROUNDS {
        for polls in 1..=POLLS {
            // The last borrower's connection comes back in its own time.
            testing::eventually("the connection to be free", async || (idle(pool) > 0).then_some(())).await;
            {
                let mut begun = pin!(begin(pool));
                for _ in 0..polls {
                    if let Poll::Ready(transaction) = poll!(&mut begun) {
                        roll_back(transaction.unwrap()).await.unwrap();
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            let n = round * POLLS + polls;
            let write = sqlx::query("INSERT INTO written VALUES ($1)").bind(n);
            assert_eq!(write.execute(pool).await.unwrap().rows_affected(), 1, "reported as done");
        }
    }
    sqlx::query_scalar("SELECT count(*) FROM written").fetch_one(observer).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_begin_costs_the_next_borrower_nothing() {
    let url = testing::database("written").await;
    let observer = PgPool::connect(&url).await.unwrap();
    let backends = Backends::new(url, 1, testing::NO_BROKER.to_owned());
    let pool = service::db::open(&backends, "public", &[]).await.unwrap();
    let idle = |pool: &Pool| pool.open_and_idle().1;
    assert_eq!(
        rows_kept(&pool, idle, service::db::begin, Transaction::rollback, &observer).await,
        ROUNDS * POLLS
    );
    let otherwise = |pool| service::db::begin_with(pool, "BEGIN ISOLATION LEVEL SERIALIZABLE");
    assert_eq!(rows_kept(&pool, idle, otherwise, Transaction::rollback, &observer).await, ROUNDS * POLLS);
    let open = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    let open: i64 = sqlx::query_scalar(open).fetch_one(&observer).await.unwrap();
    assert_eq!(open, 0);
}

/// Once this fails sqlx has mended it: `service::db::begin` can go, and with it the rule in clippy.toml.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "this shows why")]
async fn a_begin_of_sqlx_itself_loses_what_is_written_after_it() {
    let url = testing::database("written").await;
    let observer = PgPool::connect(&url).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(1).connect(&url).await.unwrap();
    let kept =
        rows_kept(&pool, PgPool::num_idle, PgPool::begin, sqlx::Transaction::rollback, &observer).await;
    assert!(kept < ROUNDS * POLLS, "all rows are there");
    println!("{} of {} rows were reported as written and are lost", ROUNDS * POLLS - kept, ROUNDS * POLLS);
}

/// As requests do it: many at once on a pool of several connections, each cancelled at its own moment.
#[tokio::test(flavor = "multi_thread")]
async fn begins_cancelled_by_many_at_once_lose_nothing() {
    const TASKS: i64 = 16;
    const EACH: i64 = 100;
    let url = testing::database("written").await;
    let observer = PgPool::connect(&url).await.unwrap();
    sqlx::query("CREATE TABLE written (n bigint NOT NULL)").execute(&observer).await.unwrap();
    let backends = Backends::new(url, 4, testing::NO_BROKER.to_owned());
    let pool = service::db::open(&backends, "public", &[]).await.unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for n in 0..EACH {
                    let patience = std::time::Duration::from_micros((n * 37 + task * 11) as u64 % 400);
                    let _ = tokio::time::timeout(patience, service::db::begin(&pool)).await;
                    let write = sqlx::query("INSERT INTO written VALUES ($1)").bind(n);
                    write.execute(&pool).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM written").fetch_one(&observer).await.unwrap();
    assert_eq!(kept, TASKS * EACH);
}

/// PostgreSQL answers the COMMIT of a failed transaction with ROLLBACK, which is no error.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_after_a_statement_that_failed_is_not_reported_as_done() {
    let backends = Backends::new(testing::database("written").await, 1, testing::NO_BROKER.to_owned());
    let pool = service::db::open(&backends, "written", &[]).await.unwrap();
    sqlx::query("CREATE TABLE rows (n bigint PRIMARY KEY)").execute(&pool).await.unwrap();
    let mut transaction = service::db::begin(&pool).await.unwrap();
    for n in [1_i64, 1] {
        let _ = sqlx::query("INSERT INTO rows VALUES ($1)").bind(n).execute(&mut *transaction).await;
    }
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(service::db::kind(&error), service::db::Kind::Statement, "{error}");
    let mut transaction = service::db::begin(&pool).await.unwrap();
    sqlx::query("INSERT INTO rows VALUES (2)").execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    let rows: Vec<i64> = sqlx::query_scalar("SELECT n FROM rows").fetch_all(&pool).await.unwrap();
    assert_eq!(rows, [2]);
}
