//! How many requests a port works on at once. One more is refused at once, and costs next to nothing. A
//! service that queues more than it can do in time works for clients that have timed out, and in the end for
//! nobody else.

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
        let (taken, labels) = (places.clone(), [telemetry::label("port", port)]);
        let description = "Places that are taken by requests in work; a request with a body takes several.";
        telemetry::observed("requests.in_work", "{place}", description, &labels, move || {
            Some((all as usize).saturating_sub(taken.available_permits()))
        });
        telemetry::observed("requests.limit", "{place}", "Places for requests.", &labels, move || {
            Some(all as usize)
        });
        let description = "Requests refused at once, as all places were taken.";
        let refused = telemetry::counter("requests.refused", "{request}", description);
        refused.add(0, &labels);
        Self { places, all, port, refused }
    }

    /// The wanted number of places, or all if there are fewer, to be kept until the work is done; `None`,
    /// counted, when they are not free.
    pub fn enter(&self, places: u32) -> Option<OwnedSemaphorePermit> {
        let place = self.places.clone().try_acquire_many_owned(places.min(self.all)).ok();
        if place.is_none() {
            self.refused.add(1, &[telemetry::label("port", self.port)]);
        }
        place
    }
}
