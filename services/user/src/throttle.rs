//! Sign-in throttling by address, whichever replica is asked and whether or not
//! the address has an account.
//!
//! From the tenth failure on, each starts a pause of 1, 2, 4 ... at most 60
//! seconds in which nothing is checked. Never a lock-out, which would let
//! anybody shut anybody out: after the pause the right password works. A quarter
//! of an hour without failure forgets all. By client address it is the edge's
//! to throttle.

mod store;

use audit::Entry;
use service::Problem;
use service::db::Connection;

use crate::account::{self, Email};

/// Failures before the first pause.
const FREE_FAILURES: i32 = 10;
const LONGEST_PAUSE_SECONDS: f64 = 60.0;

/// 429 `too_many_attempts` during a pause.
pub(crate) async fn check(connection: &mut Connection, email: &Email) -> Result<(), Problem> {
    let Some(seconds) = store::pause(connection, email).await? else { return Ok(()) };
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

/// Counts a failure and records it. 429 when others have started a pause since the check, so
/// that many guesses at once learn no more than one after the other.
pub(crate) async fn failed(connection: &mut Connection, email: &Email) -> Result<(), Problem> {
    if !store::count(connection, email).await? {
        return check(connection, email).await;
    }
    let paused = store::pause(connection, email).await?.is_some();
    let action = if paused { "sign_in.paused" } else { "sign_in.failed" };
    let account = account::credentials(connection, email).await?.map(|known| known.id.to_string());
    Ok(audit::record(connection, Entry::by_nobody(action, "account", account)).await?)
}

/// Forgets the failures of an address that has just shown the right password.
/// 429 when a pause has begun since the check.
pub(crate) async fn succeeded(connection: &mut Connection, email: &Email) -> Result<(), Problem> {
    store::forget(connection, email).await?;
    check(connection, email).await
}

/// Removes what would count as forgotten anyway; true when there may be more.
pub(crate) async fn sweep(connection: &mut Connection) -> sqlx::Result<bool> {
    store::sweep(connection).await
}
