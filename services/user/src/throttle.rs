//! Sign-in throttling by address, whichever replica is asked and whether or not
//! the address has an account.
//!
//! From the tenth failure on, each starts a pause of 1, 2, 4 ... at most 60
//! seconds in which nothing is checked. Never a lock-out, which would let
//! anybody shut anybody out: after the pause the right password works. A quarter
//! of an hour without failure forgets all. By client address it is the edge's
//! to throttle.

use service::Problem;
use service::db::Connection;

use crate::account::Email;

/// Failures before the first pause.
const FREE_FAILURES: i32 = 10;
const LONGEST_PAUSE_SECONDS: f64 = 60.0;

/// 429 `too_many_attempts` during a pause.
pub(crate) async fn check(connection: &mut Connection, email: &Email) -> Result<(), Problem> {
    let seconds = sqlx::query_scalar!(
        r#"SELECT EXTRACT(epoch FROM blocked_until - clock_timestamp())::float8 AS "seconds!"
           FROM users.sign_in_failures WHERE email_key = $1 AND blocked_until > clock_timestamp()"#,
        email.key(),
    );
    match seconds.fetch_optional(connection).await? {
        None => Ok(()),
        Some(seconds) => {
            #[expect(clippy::cast_possible_truncation, reason = "at most a minute")]
            #[expect(clippy::cast_sign_loss, reason = "at least one second")]
            let seconds = seconds.ceil().clamp(1.0, LONGEST_PAUSE_SECONDS) as u32;
            let problem = Problem::new(
                axum::http::StatusCode::TOO_MANY_REQUESTS,
                "too_many_attempts",
                "Too many failed sign-ins; wait a little.",
            );
            Err(problem.with_retry_after(seconds))
        }
    }
}

/// Counts a failure. 429 when others have started a pause since the check, so
/// that many guesses at once learn no more than one after the other.
pub(crate) async fn failed(connection: &mut Connection, email: &Email) -> Result<(), Problem> {
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
        email.key(),
        FREE_FAILURES,
        LONGEST_PAUSE_SECONDS,
    );
    if counted.execute(&mut *connection).await?.rows_affected() == 0 {
        check(connection, email).await?;
    }
    Ok(())
}

/// Forgets the failures of an address that has just shown the right password.
/// 429 when a pause has begun since the check.
pub(crate) async fn succeeded(connection: &mut Connection, email: &Email) -> Result<(), Problem> {
    sqlx::query!(
        "DELETE FROM users.sign_in_failures WHERE email_key = $1 AND blocked_until <= clock_timestamp()",
        email.key(),
    )
    .execute(&mut *connection)
    .await?;
    check(connection, email).await
}

/// Removes what would count as forgotten anyway; true when there may be more.
pub(crate) async fn sweep(connection: &mut Connection) -> sqlx::Result<bool> {
    let failures = sqlx::query!(
        "DELETE FROM users.sign_in_failures WHERE email_key IN (
             SELECT email_key FROM users.sign_in_failures
             WHERE last_failed_at < now() - interval '15 minutes' LIMIT 20000)"
    );
    Ok(failures.execute(connection).await?.rows_affected() == 20_000)
}
