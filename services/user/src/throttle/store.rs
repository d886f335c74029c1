//! The SQL of failed sign-ins.

use service::db::Connection;

use super::{FREE_FAILURES, LONGEST_PAUSE_SECONDS, Lane};

/// How many seconds are left of the pause, if there is one.
pub(super) async fn pause(connection: &mut Connection, lane: &Lane) -> sqlx::Result<Option<f64>> {
    sqlx::query_scalar!(
        r#"SELECT EXTRACT(epoch FROM blocked_until - clock_timestamp())::float8 AS "seconds!"
           FROM users.sign_in_failures WHERE email_key = $1 AND blocked_until > clock_timestamp()"#,
        &lane.0,
    )
    .fetch_optional(connection)
    .await
}

/// Counts a failure, unless there is a pause: then false.
pub(super) async fn count(connection: &mut Connection, lane: &Lane) -> sqlx::Result<bool> {
    let counted = sqlx::query!(
        "INSERT INTO users.sign_in_failures AS f (email_key, failures, last_failed_at, blocked_until)
         VALUES ($1, 1, clock_timestamp(), '-infinity')
         ON CONFLICT (email_key) DO UPDATE SET
             failures = CASE WHEN f.last_failed_at < clock_timestamp() - interval '15 minutes'
                             THEN 1 ELSE LEAST(f.failures + 1, 1000) END,
             blocked_until = CASE WHEN f.last_failed_at < clock_timestamp() - interval '15 minutes'
                                    OR f.failures + 1 < $2 THEN '-infinity'
                             ELSE clock_timestamp()
                                  + make_interval(secs => LEAST($3::float8, 2 ^ LEAST(f.failures + 1 - $2, 30)))
                             END,
             last_failed_at = clock_timestamp()
         WHERE f.blocked_until <= clock_timestamp()",
        &lane.0,
        FREE_FAILURES,
        LONGEST_PAUSE_SECONDS,
    );
    Ok(counted.execute(connection).await?.rows_affected() == 1)
}

/// Forgets the failures, unless there is a pause.
pub(super) async fn forget(connection: &mut Connection, lane: &Lane) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM users.sign_in_failures WHERE email_key = $1 AND blocked_until <= clock_timestamp()",
        &lane.0,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes what no longer counts; true when there may be more.
pub(super) async fn sweep(connection: &mut Connection) -> sqlx::Result<bool> {
    let failures = sqlx::query!(
        "DELETE FROM users.sign_in_failures WHERE email_key IN (
             SELECT email_key FROM users.sign_in_failures
             WHERE last_failed_at < now() - interval '15 minutes' LIMIT 20000)"
    );
    Ok(failures.execute(connection).await?.rows_affected() == 20_000)
}
