//! The admin port: probes, metrics and what is logged, and in a debug build failpoints.
//!
//! Readiness follows the database, and whether it takes writes; liveness depends on nothing, so that a
//! database that is away never gets healthy processes killed.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;

use crate::db::Pool;
use crate::telemetry;
use crate::watchdog::Watchdog;

/// Where in its life the process is, and, once it is ready, how to ask its database.
#[derive(Debug)]
pub struct Health {
    state: AtomicU8,
    pool: OnceLock<Option<Pool>>,
    watchdog: Arc<Watchdog>,
}

const STARTING: u8 = 0;
const READY: u8 = 1;
const STOPPING: u8 = 2;

impl Health {
    pub(crate) fn new(watchdog: Arc<Watchdog>) -> Self {
        Self { state: AtomicU8::new(STARTING), pool: OnceLock::new(), watchdog }
    }

    /// From here on readiness follows the database of `pool`, not whether there is a free connection:
    /// requests that wait for one don't mean that the database is away.
    pub fn ready(&self, pool: &Pool) {
        self.set_ready(Some(pool.clone()));
    }

    /// For a process without a database.
    pub(crate) fn ready_alone(&self) {
        self.set_ready(None);
    }

    fn set_ready(&self, pool: Option<Pool>) {
        let _ = self.pool.set(pool);
        // Never back from stopping.
        let _ = self.state.compare_exchange(STARTING, READY, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub fn stopping(&self) {
        self.state.store(STOPPING, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.state() == STOPPING
    }

    fn is_writable(&self) -> bool {
        self.pool.get().is_some_and(|pool| pool.as_ref().is_none_or(Pool::is_writable))
    }

    fn state(&self) -> u8 {
        self.state.load(Ordering::Relaxed)
    }
}

/// `/livez`, `/readyz`, `/startupz`, `/metrics` and `/log-level`.
pub fn router(health: Arc<Health>) -> Router {
    let startup = health.clone();
    let ready = move || async move {
        let not = |why: String| (StatusCode::SERVICE_UNAVAILABLE, why);
        match health.state() {
            STARTING => not("starting\n".into()),
            STOPPING => not("stopping\n".into()),
            _ if !health.is_writable() => not("the database is away or takes no writes\n".into()),
            _ => match health.watchdog.stalled() {
                Some(name) => not(format!("the worker {name} does not move\n")),
                None => (StatusCode::OK, "ready\n".into()),
            },
        }
    };
    let started = move || async move {
        if startup.state() == STARTING {
            (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
        } else {
            (StatusCode::OK, "started\n")
        }
    };
    let router = Router::new()
        .route("/livez", get(|| async { "live\n" }))
        .route("/readyz", get(ready))
        .route("/startupz", get(started))
        .route("/metrics", get(|headers: HeaderMap| async move { telemetry::metrics_answer(&headers) }))
        .merge(telemetry::log_level());
    #[cfg(debug_assertions)]
    let router = router.merge(crate::failpoint::router());
    router
}
