//! Checks of a pooler that lends the server for one transaction at a time.
//!
//! PgBouncer from 1.21 on keeps prepared statements apart when `max_prepared_statements` is above 0
//! (<https://www.pgbouncer.org/config.html#max_prepared_statements>). Without that, one client's statement can be
//! run under another's name. Whatever a session sets is lost or somebody else's, so settings are the role's.

use anyhow::{Context, bail, ensure};
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::errors::{Kind, kind};

/// Refuses a pooler that would mix up statements, and a role without its settings.
pub(super) async fn check(connection: &mut PgConnection, schema: &str) -> anyhow::Result<()> {
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await.context(
        "the pooler allows no transactions: set its pool_mode to transaction, as DATABASE_POOLER says",
    )?;
    // It finds itself, under the name that it has on the server.
    let row = sqlx::query(
        "SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE name LIKE 'PGBOUNCER\\_%'),
                current_setting('search_path'), current_setting('statement_timeout'),
                current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout')",
    )
    .fetch_one(&mut *connection)
    .await;
    let prepared = match &row {
        Ok(row) => row.try_get(0)?,
        // Another's statement ran, or none.
        Err(error) if kind(error) == Kind::Statement => false,
        Err(_) => true,
    };
    ensure!(
        prepared,
        "DATABASE_POOLER=transaction needs PgBouncer 1.21 or later with max_prepared_statements above 0: \
         update or set that, or leave DATABASE_POOLER out and name PostgreSQL itself"
    );
    let row = row?;
    let search_path: String = row.try_get(1)?;
    if !search_path.split(',').any(|name| name.trim().trim_matches('"') == schema) {
        bail!("the role has no search_path behind the pooler: ALTER ROLE ... SET search_path = {schema}");
    }
    for (column, name) in
        [(2, "statement_timeout"), (3, "lock_timeout"), (4, "idle_in_transaction_session_timeout")]
    {
        let value: String = row.try_get(column)?;
        ensure!(value != "0", "the role has no {name} behind the pooler: ALTER ROLE ... SET {name} = '10s'");
    }
    sqlx::raw_sql("COMMIT").execute(connection).await?;
    Ok(())
}
