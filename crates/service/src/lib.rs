//! What every Dockside service needs to be one, and nothing about any shop.
//!
//! Reading order: a `main` calls [`run`], which loads the settings ([`config`]),
//! starts logs, traces and metrics ([`telemetry`]), and hands the service a
//! [`Lifecycle`]. The service connects and migrates ([`db`]), binds its ports
//! ([`serve`]) and spawns its tasks. A request passes the layers of [`http`],
//! says who it is if it is another service ([`peer`]), and is answered with JSON or a [`Problem`].

mod admission;
pub mod batch;
pub mod config;
pub mod db;
pub mod extract;
pub mod failpoint;
pub mod grpc;
pub mod health;
mod healthcheck;
pub mod http;
pub mod idempotency;
mod lifecycle;
pub mod openapi;
pub mod page;
pub mod parameters;
pub mod peer;
pub mod plaintext;
mod problem;
pub mod serve;
pub mod socket;
pub mod telemetry;
pub mod tls;
pub mod validate;
mod watchdog;

use std::time::Duration;

pub use healthcheck::healthcheck;
pub use lifecycle::{Lifecycle, run};
pub use money::{self, Money};
pub use problem::{FieldError, Problem};
pub use watchdog::Pulse;

/// How long to pause after so many failures in a row: `first`, then twice as long each time, but never longer than
/// `longest`.
pub fn back_off(first: Duration, failures: u32, longest: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(longest)
}

/// Runs `work` to its end even when the caller stops waiting.
///
/// hyper and tonic drop a handler when its client goes away or its deadline
/// passes. A transaction dropped in the middle of `BEGIN` can hand the pool a
/// connection that is still inside it (sqlx issue 4385), so work that writes
/// runs in a task of its own.
pub async fn detached<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    use tracing::Instrument;
    match tokio::spawn(work.in_current_span()).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is ending, and with it whoever asked.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_the_longest() {
        let seconds = |failures| back_off(Duration::from_secs(1), failures, Duration::from_secs(5)).as_secs();
        assert_eq!([0, 1, 2, 3, 4, u32::MAX].map(seconds), [1, 1, 2, 4, 5, 5]);
    }
}
