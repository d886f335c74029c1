//! How the service starts: beside another version, and when it is told to stop before it is ready.

mod app;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use app::{App, NO_BROKER};
use reqwest::StatusCode;
use sqlx::AssertSqlSafe;

#[tokio::test]
async fn a_replica_starts_on_a_schema_that_a_later_version_has_migrated() {
    let app = App::start().await;
    for table in ["_sqlx_migrations", "_messaging_migrations"] {
        let later = format!(
            "INSERT INTO users.{table} (version, description, success, checksum, execution_time)
             VALUES (9999, 'of a later version', true, '\\x00', 0)"
        );
        sqlx::query(AssertSqlSafe(later)).execute(&app.pool).await.unwrap();
    }
    let older = App::start_with(&app.database_url, NO_BROKER, "dockside", &[]).await;
    assert_eq!(older.register("ada@example.com").await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_service_that_waits_for_its_database_stops_when_it_is_told_to() {
    let admin = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut service = Command::new(env!("CARGO_BIN_EXE_user"))
        .env_clear()
        // Nothing listens there.
        .envs([("DATABASE_URL", "postgres://127.0.0.1:1/none"), ("AMQP_URL", NO_BROKER)])
        .envs([
            ("HTTP_ADDR", "127.0.0.1:0"),
            ("GRPC_ADDR", "127.0.0.1:0"),
            ("ADMIN_ADDR", &admin.to_string()),
        ])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    testing::eventually("it says that it is starting", || async {
        let answer = reqwest::get(format!("http://{admin}/startupz")).await.ok()?;
        (answer.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;

    let asked = Instant::now();
    Command::new("kill").arg(service.id().to_string()).status().unwrap();
    let status = service.wait().unwrap();
    assert!(status.success() && asked.elapsed() < Duration::from_secs(5), "{status}");
}
