//! The SQL of imports' progress.

use service::db::Connection;
use service::idempotency::KEY_LIFE;
use uuid::Uuid;

use super::{Counts, Progress, Status};

/// Begins a row. An earlier import with this id is deleted.
pub async fn begin(connection: &mut Connection, id: Uuid, run: Uuid) -> sqlx::Result<()> {
    let begun = sqlx::query!(
        "INSERT INTO products.imports (id, run) VALUES ($1, $2)
         ON CONFLICT (id) DO UPDATE
         SET run = $2, status = 'running', lines = 0, bytes = 0, created = 0, updated = 0, unchanged = 0,
             failed = 0, started_at = now(), updated_at = now()",
        id,
        run,
    );
    begun.execute(connection).await?;
    Ok(())
}

/// Writes what this run has done, unless a later one has begun.
pub async fn record(
    connection: &mut Connection,
    id: Uuid,
    run: Uuid,
    status: Status,
    counts: Counts,
) -> sqlx::Result<()> {
    let written = sqlx::query!(
        "UPDATE products.imports
         SET status = $3, lines = $4, bytes = $5, created = $6, updated = $7, unchanged = $8, failed = $9,
             updated_at = now()
         WHERE id = $1 AND run = $2",
        id,
        run,
        status as Status,
        counts.lines.cast_signed(),
        counts.bytes.cast_signed(),
        counts.created.cast_signed(),
        counts.updated.cast_signed(),
        counts.unchanged.cast_signed(),
        counts.failed.cast_signed(),
    );
    written.execute(connection).await?;
    Ok(())
}

pub async fn find(connection: &mut Connection, id: Uuid) -> sqlx::Result<Option<Progress>> {
    sqlx::query_as!(
        Progress,
        r#"SELECT id,
                  CASE WHEN status = 'running' AND updated_at < now() - interval '1 minute' THEN 'lost'
                       ELSE status END AS "status!: Status",
                  lines, bytes, created, updated, unchanged, failed, started_at, updated_at
           FROM products.imports WHERE id = $1"#,
        id,
    )
    .fetch_optional(connection)
    .await
}

/// Deletes up to 10,000 rows of imports that began more than a day ago; true when there may be more.
pub async fn forget(connection: &mut Connection) -> sqlx::Result<bool> {
    let forgotten = sqlx::query!(
        "DELETE FROM products.imports WHERE id IN (
             SELECT id FROM products.imports
             WHERE started_at < now() - make_interval(secs => $1) LIMIT 10000)",
        KEY_LIFE.as_secs_f64(),
    );
    Ok(forgotten.execute(connection).await?.rows_affected() == 10_000)
}
