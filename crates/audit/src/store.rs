//! All SQL of the record.

use serde_json::Value;
use service::db::{Connection, Pool};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::entry::Row;
use crate::list::Wanted;

/// Rows that one statement deletes.
const BATCH: i64 = 10_000;

/// Plans for the actual values, as each filter may be absent: the filters that are set decide which index is
/// good.
const BEGIN: &str = "BEGIN READ ONLY;
    SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_seqscan = off; SET LOCAL jit = off";

pub(crate) async fn insert(connection: &mut Connection, row: &Row) -> sqlx::Result<()> {
    let (subject, personal) = row.personal.clone().unzip();
    sqlx::query!(
        "WITH entry AS (
             INSERT INTO audit_log (id, at, actor, role, action, object_kind, object_id, changes, request_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         )
         INSERT INTO audit_personal (entry, subject, changes)
         SELECT $1, $10, $11 WHERE $10::uuid IS NOT NULL",
        row.id,
        row.at,
        row.actor,
        row.role,
        row.action,
        row.kind,
        row.object,
        row.changes,
        row.request,
        subject,
        personal,
    )
    .execute(connection)
    .await?;
    Ok(())
}

pub(crate) async fn forget(connection: &mut Connection, people: &[Uuid]) -> sqlx::Result<()> {
    // Sorted, so that two transactions that erase the same people wait for each other and don't deadlock.
    sqlx::query!(
        "DELETE FROM audit_personal WHERE entry IN (
             SELECT entry FROM audit_personal WHERE subject = ANY($1) ORDER BY entry FOR UPDATE)",
        people,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// An entry as it was stored.
pub(crate) struct Found {
    pub id: Uuid,
    pub at: OffsetDateTime,
    pub actor: Option<Uuid>,
    pub role: Option<String>,
    pub action: String,
    pub object_kind: String,
    pub object_id: Option<String>,
    pub changes: Value,
    pub request_id: Option<String>,
    pub personal: Option<Value>,
}

/// Up to `limit` entries, newest first, older than `before`.
pub(crate) async fn page(
    pool: &Pool,
    wanted: &Wanted,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Found>> {
    let last = wanted.to.map_or(Uuid::max(), first_id);
    let last = before.map_or(last, |before| before.min(last));
    let mut transaction = service::db::begin_with(pool, BEGIN).await?;
    let found = sqlx::query_as!(
        Found,
        r#"SELECT l.id, l.at, l.actor, l.role, l.action, l.object_kind, l.object_id, l.changes, l.request_id,
                  p.changes AS "personal?"
           FROM audit_log l LEFT JOIN audit_personal p ON p.entry = l.id
           WHERE l.id < $1 AND l.id >= $2
             AND ($3::uuid IS NULL OR l.actor = $3)
             AND ($4::text IS NULL OR l.action = $4)
             AND ($5::text IS NULL OR l.object_id = $5)
           ORDER BY l.id DESC LIMIT $6"#,
        last,
        wanted.from.map_or(Uuid::nil(), first_id),
        wanted.actor,
        wanted.action,
        wanted.object,
        limit,
    )
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(found)
}

/// Deletes what is older than this; true when there may be more.
pub(crate) async fn sweep(pool: &Pool, days: i32) -> sqlx::Result<bool> {
    let oldest = first_id(OffsetDateTime::now_utc() - Duration::days(days.into()));
    let mut connection = pool.acquire().await?;
    // Arrays, so that the index is used.
    let entries = sqlx::query!(
        "DELETE FROM audit_log WHERE id = ANY(ARRAY(
             SELECT id FROM audit_log WHERE id < $1 ORDER BY id LIMIT 10000))",
        oldest,
    );
    let entries = entries.execute(&mut *connection).await?.rows_affected();
    let personal = sqlx::query!(
        "DELETE FROM audit_personal WHERE entry = ANY(ARRAY(
             SELECT entry FROM audit_personal WHERE entry < $1 ORDER BY entry LIMIT 10000))",
        oldest,
    );
    let personal = personal.execute(&mut *connection).await?.rows_affected();
    Ok(entries.max(personal) == BATCH.unsigned_abs())
}

/// The least UUIDv7 of a moment.
fn first_id(at: OffsetDateTime) -> Uuid {
    let millis = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0).min((1 << 48) - 1);
    Uuid::from_u128(u128::from(millis) << 80)
}
