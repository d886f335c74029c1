//! Sign-in throttling by lane, shared by all replicas. There is a lane for each address, whether or not it
//! has an account, one for each device that an account was signed in from, and one for each session. So
//! guesses from elsewhere don't slow known clients.
//!
//! From the tenth failure on, each starts a pause of 1, 2, 4 ... at most 60 seconds in which nothing is
//! checked. There is no lock-out, as anybody could use it to shut others out: after the pause the right
//! password works. After a quarter of an hour without failure all are forgotten. Throttling by client address
//! is the edge's.

mod store;

use audit::Entry;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use service::Problem;
use service::db::Connection;
use uuid::Uuid;

use crate::account::Email;
use crate::token::Token;

/// The failures that count together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lane(String);

impl Lane {
    /// For all unknown clients.
    pub fn address(email: &Email) -> Self {
        Self(email.key())
    }

    // Neither has the `@` of an address.
    pub fn device(id: Uuid) -> Self {
        Self(format!("device {id}"))
    }

    pub fn session(id: Uuid) -> Self {
        Self(format!("session {id}"))
    }

    /// Of who has this token from a mail: guesses at the address slow them no more.
    pub fn token(token: &Token) -> Self {
        Self(format!("token {}", BASE64_URL_SAFE_NO_PAD.encode(token.hash())))
    }
}

/// Failures before the first pause.
const FREE_FAILURES: i32 = 10;
const LONGEST_PAUSE_SECONDS: f64 = 60.0;

/// 429 `too_many_attempts` during a pause.
pub(crate) async fn check(connection: &mut Connection, lane: &Lane) -> Result<(), Problem> {
    let Some(seconds) = store::pause(connection, lane).await? else { return Ok(()) };
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

/// Counts a failure, and records it if it is of an account. Of addresses without one nothing is recorded: anybody could fill
/// the database with rows that it keeps for a year. 429 when others have started a pause since the check, so that many
/// guesses at once learn no more than one after the other.
pub(crate) async fn failed(
    connection: &mut Connection,
    lane: &Lane,
    account: Option<Uuid>,
) -> Result<(), Problem> {
    if !store::count(connection, lane).await? {
        return check(connection, lane).await;
    }
    let paused = store::pause(connection, lane).await?.is_some();
    let action = if paused { "sign_in.paused" } else { "sign_in.failed" };
    if let Some(account) = account {
        audit::record(connection, Entry::by_nobody(action, "account", Some(account.to_string()))).await?;
    }
    Ok(())
}

/// Forgets the failures of a lane that has just shown the right password.
/// 429 when a pause has begun since the check.
pub(crate) async fn succeeded(connection: &mut Connection, lane: &Lane) -> Result<(), Problem> {
    store::forget(connection, lane).await?;
    check(connection, lane).await
}

/// Removes what no longer counts; true when there may be more.
pub(crate) async fn sweep(connection: &mut Connection) -> sqlx::Result<bool> {
    store::sweep(connection).await
}
