//! A service behind PgBouncer, which lends the server for one transaction at a time; and poolers that it refuses.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use std::borrow::Cow;
use std::time::{Duration, Instant};

use service::config::{Backends, Pooler};
use service::db;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Executor, PgPool, SqlSafeStr};
use testing::pgbouncer::{self, Mode, PgBouncer, PoolMode, Version};
use tokio::task::JoinSet;

const SETTINGS: [&str; 4] = [
    "search_path = shop",
    "statement_timeout = '10s'",
    "lock_timeout = '5s'",
    "idle_in_transaction_session_timeout = '4s'",
];

/// A database whose role has its settings, as `docker/postgres/init.sql` gives them.
async fn database(settings: &[&str]) -> String {
    let url = testing::database("shop").await;
    let observer = PgPool::connect(&url).await.unwrap();
    for setting in settings {
        let alter = format!(
            "DO $$ BEGIN EXECUTE format('ALTER ROLE %I IN DATABASE %I SET {}', current_user, current_database()); END $$",
            setting.replace('\'', "''")
        );
        observer.execute(sqlx::AssertSqlSafe(alter)).await.unwrap();
    }
    observer.close().await;
    url
}

fn backends(direct: &str, pooler: &PgBouncer) -> Backends {
    Backends {
        database_pooler: Pooler::Transaction,
        database_direct_url: Some(direct.to_owned()),
        ..Backends::new(pooler.url(), 4, testing::NO_BROKER.to_owned())
    }
}

/// Why it does not start, which is said within ten seconds.
async fn refused(backends: &Backends) -> String {
    let asked = Instant::now();
    let error = db::open(backends, "shop", &[]).await.expect_err("a refusal");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    format!("{error:#}")
}

fn migrator() -> Migrator {
    let create = "CREATE TABLE numbers (n bigint NOT NULL); SELECT pg_sleep(0.5)".into_sql_str();
    let (name, kind) = (Cow::Borrowed("numbers"), MigrationType::Simple);
    Migrator::with_migrations(vec![Migration::new(1, name, kind, create, false)])
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_behind_pgbouncer_migrate_once_and_keep_their_statements_apart() {
    let url = database(&SETTINGS).await;
    // Fewer servers than clients, so that each statement meets servers that others have prepared theirs on.
    let Some(pooler) = pgbouncer::start(&url, Mode { pool_size: 3, ..Mode::TRANSACTION }) else { return };
    let (backends, migrator) = (backends(&url, &pooler), migrator());
    let migrators = [&migrator];
    let start = || db::open(&backends, "shop", &migrators);
    let (one, two, three) = tokio::try_join!(start(), start(), start()).unwrap();
    let replicas = [one, two, three];

    let mut asking = JoinSet::new();
    for (replica, pool) in replicas.iter().enumerate() {
        for task in 0..4_i64 {
            let pool = pool.clone();
            let first = i64::try_from(replica).unwrap() * 10_000 + task * 1_000;
            asking.spawn(async move {
                for n in first..first + 25 {
                    let mut transaction = db::begin(&pool).await.unwrap();
                    let write = sqlx::query("INSERT INTO numbers VALUES ($1)").bind(n);
                    write.execute(&mut *transaction).await.unwrap();
                    // A shape of its own for each: under another's name it would answer something else.
                    let shape = sqlx::AssertSqlSafe(format!("SELECT $1::bigint + {n}"));
                    let sum: i64 =
                        sqlx::query_scalar(shape).bind(1_i64).fetch_one(&mut *transaction).await.unwrap();
                    assert_eq!(sum, n + 1);
                    transaction.commit().await.unwrap();
                }
            });
        }
    }
    asking.join_all().await;
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM numbers").fetch_one(&replicas[0]).await.unwrap();
    assert_eq!(kept, 3 * 4 * 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_come_by_the_direct_address() {
    let url = database(&SETTINGS).await;
    let Some(pooler) = pgbouncer::start(&url, Mode::TRANSACTION) else { return };
    let pool = db::open(&backends(&url, &pooler), "shop", &[]).await.unwrap();
    let mut listener = pool.listener().await.unwrap();
    listener.listen("changes").await.unwrap();
    sqlx::query("SELECT pg_notify('changes', 'here')").execute(&pool).await.unwrap();
    let received = tokio::time::timeout(Duration::from_secs(10), listener.recv()).await.unwrap().unwrap();
    assert_eq!(received.payload(), "here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_mixes_up_prepared_statements_is_refused() {
    let url = database(&SETTINGS).await;
    let without = Mode { max_prepared_statements: 0, ..Mode::TRANSACTION };
    let old = Mode { version: Version::Old, ..Mode::TRANSACTION };
    for mode in [without, old] {
        let Some(pooler) = pgbouncer::start(&url, mode) else { continue };
        let error = refused(&backends(&url, &pooler)).await;
        assert!(error.contains("max_prepared_statements"), "{mode:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_statement_mode_is_refused() {
    let url = database(&SETTINGS).await;
    let mode = Mode { pool_mode: PoolMode::Statement, ..Mode::TRANSACTION };
    let Some(pooler) = pgbouncer::start(&url, mode) else { return };
    let error = refused(&backends(&url, &pooler)).await;
    assert!(error.contains("pool_mode"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_is_not_in_the_settings_is_named() {
    let url = database(&SETTINGS).await;
    let Some(pooler) = pgbouncer::start(&url, Mode::TRANSACTION) else { return };
    let error = refused(&Backends::new(pooler.url(), 4, testing::NO_BROKER.to_owned())).await;
    assert!(error.contains("set DATABASE_POOLER=transaction"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_its_settings_is_refused_behind_a_pooler() {
    for (settings, missing) in [(&SETTINGS[..1], "statement_timeout"), (&SETTINGS[1..], "search_path")] {
        let url = database(settings).await;
        let Some(pooler) = pgbouncer::start(&url, Mode::TRANSACTION) else { return };
        let backends = backends(&url, &pooler);
        let error = match missing {
            // `public` is in everybody's search path.
            "search_path" => {
                let opened = db::open(&backends, "orders", &[]).await;
                format!("{:#}", opened.expect_err("a refusal"))
            }
            _ => refused(&backends).await,
        };
        assert!(error.contains(&format!("the role has no {missing}")), "{error}");
    }
}

#[tokio::test]
async fn a_pooler_without_a_direct_address_is_refused() {
    let backends = Backends {
        database_pooler: Pooler::Transaction,
        ..Backends::new("postgres://nobody@localhost/none".to_owned(), 4, testing::NO_BROKER.to_owned())
    };
    assert!(refused(&backends).await.contains("needs DATABASE_DIRECT_URL"));
}
