//! The rows of `users.password_reset_callers`. Times are the clock's, since a transaction's `now()` is from before it
//! waited for a lock.

use service::db::Connection;

/// Counts a request; returns how many there were in the caller's hour, and the seconds until that is over.
pub(super) async fn count(connection: &mut Connection, caller: &str) -> sqlx::Result<(i32, f64)> {
    let row = sqlx::query!(
        r#"INSERT INTO users.password_reset_callers AS c (caller, asked, since) VALUES ($1, 1, clock_timestamp())
           ON CONFLICT (caller) DO UPDATE SET
               asked = CASE WHEN c.since < clock_timestamp() - interval '1 hour'
                            THEN 1 ELSE LEAST(c.asked, 1000000000) + 1 END,
               since = CASE WHEN c.since < clock_timestamp() - interval '1 hour'
                            THEN clock_timestamp() ELSE c.since END
           RETURNING asked, EXTRACT(epoch FROM since + interval '1 hour' - clock_timestamp())::float8 AS "left!""#,
        caller,
    );
    let row = row.fetch_one(connection).await?;
    Ok((row.asked, row.left))
}

/// Removes what is an hour old; true when there may be more.
pub(crate) async fn sweep(connection: &mut Connection) -> sqlx::Result<bool> {
    let callers = sqlx::query!(
        "DELETE FROM users.password_reset_callers WHERE caller IN (
             SELECT caller FROM users.password_reset_callers
             WHERE since < now() - interval '1 hour' LIMIT 10000)"
    );
    Ok(callers.execute(connection).await?.rows_affected() == 10_000)
}
