//! Two versions on one database, as during an update or after a rollback.

mod app;

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
