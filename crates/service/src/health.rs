//! The admin port: probes and metrics, and in a debug build failpoints.
//!
//! Readiness follows the database; liveness depends on nothing, so that a
//! database that is away never gets healthy processes killed.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use sqlx::postgres::{PgPool, PgPoolOptions};

use crate::db::Pool;
use crate::telemetry;

/// Where in its life the process is, and, once it is ready, how to ask its database.
#[derive(Debug, Default)]
pub struct Health {
    state: AtomicU8,
    pool: OnceLock<PgPool>,
}

/// How long the database may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

const STARTING: u8 = 0;
const READY: u8 = 1;
const STOPPING: u8 = 2;

impl Health {
    /// From here on readiness follows the database of `pool`, by a connection of
    /// its own: that requests wait for one doesn't mean that the database is away.
    pub fn ready(&self, pool: &Pool) {
        let own = PgPoolOptions::new().max_connections(1).acquire_timeout(PATIENCE);
        let _ = self.pool.set(own.connect_lazy_with(pool.connect_options()));
        // Never back from stopping.
        let _ = self.state.compare_exchange(STARTING, READY, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub fn stopping(&self) {
        self.state.store(STOPPING, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.state() == STOPPING
    }

    async fn ping(&self) -> Result<(), sqlx::Error> {
        let pool = self.pool.get().ok_or(sqlx::Error::PoolClosed)?;
        sqlx::query("SELECT 1").execute(pool).await?;
        Ok(())
    }

    fn state(&self) -> u8 {
        self.state.load(Ordering::Relaxed)
    }
}

/// `/livez`, `/readyz`, `/startupz` and `/metrics`.
pub fn router(health: Arc<Health>) -> Router {
    let startup = health.clone();
    let ready = move || async move {
        match health.state() {
            STARTING => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
            STOPPING => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            _ => match tokio::time::timeout(PATIENCE, health.ping()).await {
                Ok(Ok(())) => (StatusCode::OK, "ready\n"),
                _ => (StatusCode::SERVICE_UNAVAILABLE, "the database is away\n"),
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
        .route("/metrics", get(|| async { telemetry::metrics_text() }));
    #[cfg(debug_assertions)]
    let router = router.merge(crate::failpoint::router());
    router
}
