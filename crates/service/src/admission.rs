//! How many requests a port works on at once. One more is refused at once, and
//! costs next to nothing: a service that queues what it can't do in time does
//! work for clients that have given up, and in the end nothing else.

use std::num::NonZeroU16;
use std::sync::Arc;

use opentelemetry::metrics::Counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::telemetry;

/// The places of one port.
#[derive(Clone)]
pub(crate) struct Admission {
    places: Arc<Semaphore>,
    all: u32,
    port: &'static str,
    refused: Counter<u64>,
}

impl Admission {
    pub fn new(port: &'static str, at_once: NonZeroU16) -> Self {
        let all = u32::from(at_once.get());
        let places = Arc::new(Semaphore::new(all as usize));
        Self { places, all, port, refused: telemetry::counter("requests.refused") }
    }

    /// So many places, or all there are, to be kept until the work is done; `None`, counted, when they are not free.
    pub fn enter(&self, places: u32) -> Option<OwnedSemaphorePermit> {
        let place = self.places.clone().try_acquire_many_owned(places.min(self.all)).ok();
        if place.is_none() {
            self.refused.add(1, &[telemetry::label("port", self.port)]);
        }
        place
    }
}
