//! Measures a shop once a second: what waits, and for how long.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::PgPool;

use super::load::Journal;
use crate::Shop;

/// The shop at one moment; what could not be read, as the database was away, is None.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Seconds since the start.
    pub at: f64,
    /// Events that wait in the three outboxes.
    pub events: Option<i64>,
    /// Orders that are not paid yet.
    pub pending: Option<i64>,
    /// Seconds since the oldest of them was placed.
    pub oldest: Option<f64>,
}

#[derive(Clone)]
pub struct Watch {
    database: PgPool,
    pub journal: Arc<Journal>,
    started: Instant,
    samples: Arc<Mutex<Vec<Sample>>>,
    struck: Arc<AtomicU32>,
    /// How long it took to get over the last fault.
    over: Arc<Mutex<Option<Duration>>>,
}

impl Watch {
    pub fn new(shop: &Shop, journal: Arc<Journal>, started: Instant) -> Self {
        let database = shop.database.clone();
        Self {
            database,
            journal,
            started,
            samples: Arc::default(),
            struck: Arc::default(),
            over: Arc::default(),
        }
    }

    pub fn struck(&self) {
        self.struck.fetch_add(1, Ordering::Relaxed);
    }

    /// Faults injected so far.
    pub fn strikes(&self) -> u32 {
        self.struck.load(Ordering::Relaxed)
    }

    pub fn over_it(&self, after: Duration) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = Some(after);
    }

    /// From the end of the last fault that the shop got over until it had.
    pub fn last_recovery(&self) -> Option<Duration> {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub async fn measure(&self) {
        let sql = "SELECT (SELECT count(*) FROM orders.outbox WHERE published_at IS NULL)
                        + (SELECT count(*) FROM products.outbox WHERE published_at IS NULL)
                        + (SELECT count(*) FROM users.outbox WHERE published_at IS NULL),
                          (SELECT count(*) FROM orders.orders WHERE status = 'pending'),
                          (SELECT COALESCE(EXTRACT(epoch FROM now() - min(placed_at)), 0)::float8
                           FROM orders.orders WHERE status = 'pending')";
        let asked = sqlx::query_as::<_, (i64, i64, f64)>(sql).fetch_one(&self.database);
        let asked = tokio::time::timeout(Duration::from_secs(1), asked).await;
        let mut sample = Sample { at: self.started.elapsed().as_secs_f64(), ..Sample::default() };
        if let Ok(Ok((events, pending, oldest))) = asked {
            (sample.events, sample.pending, sample.oldest) = (Some(events), Some(pending), Some(oldest));
        }
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
    }

    pub fn samples(&self) -> Vec<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
