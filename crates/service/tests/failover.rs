//! A database that answers nothing, takes no writes, or is locked by a backup while a service starts.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use service::config::Backends;
use service::db::{self, Kind, Pool};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Executor, PgPool, SqlSafeStr};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tonic_types::StatusExt;

fn backends(database_url: String, connections: u32) -> Backends {
    Backends::new(database_url, connections, testing::NO_BROKER.to_owned())
}

/// A way to the server that can fall silent: connections stay, new ones are taken, and nothing comes through any
/// more, as with a frozen server.
#[derive(Clone)]
struct Way {
    address: SocketAddr,
    silent: Arc<AtomicBool>,
}

impl Way {
    async fn to(url: &str) -> (Self, String) {
        let mut url: reqwest::Url = url.parse().unwrap();
        let there = url.socket_addrs(|| Some(5432)).unwrap()[0];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let way = Self { address: listener.local_addr().unwrap(), silent: Arc::default() };
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(way.address.port())).unwrap();
        let silent = way.silent.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let silent = silent.clone();
                tokio::spawn(async move {
                    if silent.load(Ordering::Relaxed) {
                        return std::future::pending().await;
                    }
                    let server = TcpStream::connect(there).await?;
                    let (mut from_server, mut to_server) = server.into_split();
                    let (mut from_client, mut to_client) = client.into_split();
                    tokio::select! {
                        ended = pass(&mut from_server, &mut to_client, &silent) => ended,
                        ended = pass(&mut from_client, &mut to_server, &silent) => ended,
                    }
                });
            }
        });
        (way, url.to_string())
    }
}

async fn pass(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    silent: &AtomicBool,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 0x10000];
    loop {
        let length = tokio::io::AsyncReadExt::read(from, &mut buffer).await?;
        if silent.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        if length == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
    }
}

async fn writable(pool: &Pool, wanted: bool) {
    let is = async || (pool.is_writable() == wanted).then_some(());
    testing::eventually(&format!("the pool to know that it is writable: {wanted}"), is).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_holds_nobody_for_ever_and_its_place_is_found_again() {
    let (way, url) = Way::to(&testing::database("shop").await).await;
    let pool = db::open(&backends(url, 2), "shop", &[]).await.unwrap();
    let mut transaction = db::begin(&pool).await.unwrap();
    way.silent.store(true, Ordering::Relaxed);
    writable(&pool, false).await;

    let asked = Instant::now();
    let error = sqlx::query("SELECT 1").execute(&mut *transaction).await.unwrap_err();
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}: {error}", asked.elapsed());
    assert_eq!(db::kind(&error), Kind::OtherConnection, "{error}");
    // The connection is closed: the transaction has nothing more to say, and ends at once.
    assert_eq!(db::kind(&transaction.commit().await.unwrap_err()), Kind::OutcomeUnknown);

    way.silent.store(false, Ordering::Relaxed);
    writable(&pool, true).await;
    let both = async || Some((pool.acquire().await.ok()?, pool.acquire().await.ok()?));
    let (mut one, mut other) = testing::eventually("both connections to be had again", both).await;
    sqlx::query("SELECT 1").execute(&mut *one).await.unwrap();
    sqlx::query("SELECT 1").execute(&mut *other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_host_of_several_is_passed_over() {
    let direct = testing::database("shop").await;
    let (first, url) = Way::to(&direct).await;
    let (second, _) = Way::to(&direct).await;
    let url = url.replace(
        &format!("127.0.0.1:{}", first.address.port()),
        &format!("127.0.0.1:{},127.0.0.1:{}", first.address.port(), second.address.port()),
    );
    let pool = db::open(&backends(url, 2), "shop", &[]).await.unwrap();
    first.silent.store(true, Ordering::Relaxed);
    let answered = async || sqlx::query("SELECT 1").execute(&pool).await.ok();
    testing::eventually("the other host to answer", answered).await;
    writable(&pool, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_is_refused_at_the_start_and_never_lent() {
    let url = testing::database("shop").await;
    let observer = PgPool::connect(&url).await.unwrap();
    let name: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&observer).await.unwrap();
    let read_only = async |on: bool| {
        let alter = format!("ALTER DATABASE {name} SET default_transaction_read_only = {on}");
        observer.execute(AssertSqlSafe(alter)).await.unwrap();
    };
    let pool = db::open(&backends(url.clone(), 2), "shop", &[]).await.unwrap();
    read_only(true).await;
    let asked = Instant::now();
    let error = db::open(&backends(url.clone(), 2), "shop", &[]).await.expect_err("a refusal");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert!(error.to_string().contains("target_session_attrs=read-write"), "{error:#}");
    // One of several takes over when the cluster has decided on it: later than an only server is waited for.
    let mut two: reqwest::Url = url.parse().unwrap();
    let (host, port) = (two.host_str().unwrap().to_owned(), two.port().unwrap_or(5432));
    two.set_query(Some("target_session_attrs=read-write"));
    let two = two.as_str().replacen(&format!("{host}:{port}"), &format!("{host}:{port},{host}:{port}"), 1);
    let two = backends(two, 2);
    let promoted = async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        read_only(false).await;
    };
    let (opened, ()) = tokio::join!(db::open(&two, "shop", &[]), promoted);
    drop(opened.unwrap());
    read_only(true).await;

    // A session from before that meets its error gets no other session to the same server.
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'shop'";
    sqlx::query(kill).execute(&observer).await.unwrap();
    writable(&pool, false).await;
    let error = sqlx::query("SELECT 1").execute(&pool).await.unwrap_err();
    assert!(db::is_transient(&error), "{error}");
    read_only(false).await;
    writable(&pool, true).await;
    let answered = async || sqlx::query("SELECT 1").execute(&pool).await.ok();
    testing::eventually("the pool to lend a connection again", answered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_a_read_only_server_refuses_costs_its_connection() {
    let pool = db::open(&backends(testing::database("shop").await, 1), "shop", &[]).await.unwrap();
    let mut connection = pool.acquire().await.unwrap();
    sqlx::query("SET default_transaction_read_only = on").execute(&mut *connection).await.unwrap();
    let error = sqlx::query("CREATE TABLE t ()").execute(&mut *connection).await.unwrap_err();
    assert_eq!(db::kind(&error), Kind::OtherConnection, "{error}");
    drop(connection);
    // The session that was read-only is not lent again.
    let made = async || sqlx::query("CREATE TABLE IF NOT EXISTS t ()").execute(&pool).await.ok();
    testing::eventually("another connection to write", made).await;
}

/// The server process behind a connection.
async fn backend(connection: &mut db::Connection) -> i32 {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_used_last_is_lent_first_and_one_that_died_at_rest_never() {
    let url = testing::database("shop").await;
    let observer = PgPool::connect(&url).await.unwrap();
    let pool = db::open(&backends(url, 2), "shop", &[]).await.unwrap();
    let (mut one, mut other) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    let (first, last) = (backend(&mut one).await, backend(&mut other).await);
    drop(one);
    drop(other);
    let mut again = pool.acquire().await.unwrap();
    assert_eq!(backend(&mut again).await, last);
    drop(again);
    sqlx::query("SELECT pg_terminate_backend($1)").bind(last).execute(&observer).await.unwrap();
    // Longer than an answer counts as a sign of life.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut alive = pool.acquire().await.unwrap();
    assert_eq!(backend(&mut alive).await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_takes_long_is_of_unknown_outcome_and_keeps_its_connection() {
    let pool = db::open(&backends(testing::database("shop").await, 1), "shop", &[]).await.unwrap();
    // As a standby that does not answer would: COMMIT takes longer than a statement may.
    let slow = "CREATE TABLE t (n int);
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(11); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION wait()";
    sqlx::raw_sql(slow).execute(&pool).await.unwrap();
    let mut transaction = db::begin(&pool).await.unwrap();
    sqlx::query("INSERT INTO t VALUES (1)").execute(&mut *transaction).await.unwrap();
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(db::kind(&error), Kind::OutcomeUnknown, "{error}");
    // The client learns that it may have been done, and not that it was not.
    let details = service::grpc::from_sqlx(&error).get_details_error_info().unwrap();
    assert_eq!(details.reason, "outcome_unknown");
    let problem = service::Problem::from(error);
    assert_eq!((problem.status.as_u16(), problem.code.as_str()), (503, "outcome_unknown"));
    // Its place in the pool is not given to another, who would soon wait there too.
    assert!(matches!(pool.acquire().await, Err(sqlx::Error::PoolTimedOut)));
    let written = async || {
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(&pool).await.ok()?;
        (rows == 1).then_some(())
    };
    testing::eventually("the row to be committed after all", written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_waits_for_a_backup_holds_up_nobody() {
    let url = testing::database("shop").await;
    let observer = PgPool::connect(&url).await.unwrap();
    sqlx::query("CREATE TABLE shop.sold (n int)").execute(&observer).await.unwrap();
    // pg_dump reads all tables in one transaction.
    let mut backup = testing::begin(&observer).await;
    sqlx::query("SELECT FROM shop.sold").execute(&mut *backup).await.unwrap();

    let alter = "ALTER TABLE shop.sold ADD COLUMN more int".into_sql_str();
    let (name, kind) = (Cow::Borrowed("more"), MigrationType::Simple);
    let migrator = Migrator::with_migrations(vec![Migration::new(1, name, kind, alter, false)]);
    let config = backends(url, 2);
    let migrators = [&migrator];
    let starting = db::open(&config, "shop", &migrators);
    // By itself: a check between two sales misses a try that holds up the sale.
    let three_tries = async {
        let waits = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'ALTER TABLE%'";
        let (mut tries, mut waiting) = (0, false);
        while tries < 3 {
            let now: i64 = sqlx::query_scalar(waits).fetch_one(&observer).await.unwrap();
            tries += i32::from(waiting && now == 0);
            waiting = now > 0;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // A customer, who would wait behind the migration for as long as the backup takes.
    let sales = async {
        for _ in 0..u32::MAX {
            let sale = "SET lock_timeout = '5s'; INSERT INTO shop.sold VALUES (1)";
            sqlx::raw_sql(sale).execute(&observer).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let backing_up = async {
        tokio::select! {
            () = three_tries => {}
            () = sales => {}
        }
        backup.rollback().await.unwrap();
    };
    let started = async { tokio::join!(starting, backing_up).0 };
    tokio::time::timeout(Duration::from_secs(60), started)
        .await
        .expect("three tries of the migration")
        .unwrap();
    sqlx::query("SELECT more FROM shop.sold").fetch_optional(&observer).await.unwrap();
}
