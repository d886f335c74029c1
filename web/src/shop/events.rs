//! `/orders/{id}/events`: the API's stream of an order's changes, on the page's own origin and with its session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use crate::api::Refused;
use crate::visitor::Visitor;

/// Longest wait for the stream's beginning.
const BEGIN: Duration = Duration::from_secs(5);
/// Then the browser comes back, by a connection that may lead to another replica.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Streams of one customer at the same time, so that nobody takes all of them. A browser without HTTP/2 has no more
/// connections either.
const EACH: usize = 6;

/// Who follows an order by this process.
#[derive(Clone)]
pub struct Listeners {
    places: Arc<Semaphore>,
    each: Arc<Mutex<HashMap<String, usize>>>,
}

/// Held as long as a stream is.
pub struct Place {
    _one: OwnedSemaphorePermit,
    account: String,
    each: Arc<Mutex<HashMap<String, usize>>>,
}

impl Listeners {
    pub fn new(at_once: u16) -> Self {
        Self { places: Arc::new(Semaphore::new(at_once.into())), each: Arc::default() }
    }

    /// A place for one more stream of this account, or why there is none.
    fn place(&self, account: String) -> Result<Place, StatusCode> {
        let one = self.places.clone().try_acquire_owned().map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = each.entry(account.clone()).or_default();
        if *streams >= EACH {
            return Err(StatusCode::TOO_MANY_REQUESTS);
        }
        *streams += 1;
        Ok(Place { _one: one, account, each: self.each.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(streams) = each.get_mut(&self.account) {
            *streams -= 1;
            if *streams == 0 {
                each.remove(&self.account);
            }
        }
    }
}

/// An `EventSource` comes back by itself after a stream's end, and not after 204 or an error.
pub async fn follow(visitor: Visitor, Path(id): Path<Uuid>, headers: HeaderMap) -> Response {
    let app = visitor.app().clone();
    let Some(account) = visitor.session().and_then(|session| session.account()) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let place = match app.listeners.place(account) {
        Ok(place) => place,
        Err(full) => return full.into_response(),
    };
    let mut call = visitor.stream(&["orders", &id.to_string(), "events"]);
    if let Some(seen) = headers.get("last-event-id").and_then(|id| id.to_str().ok()) {
        call = call.header("last-event-id", seen);
    }
    let answer = match tokio::time::timeout(BEGIN, call.answer()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(Refused::SignedOut)) => return StatusCode::UNAUTHORIZED.into_response(),
        Ok(Err(_)) | Err(_) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    };
    match answer.status() {
        StatusCode::OK => {}
        status @ (StatusCode::NO_CONTENT | StatusCode::NOT_FOUND) => return status.into_response(),
        _ => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
    let stopping = app.lifecycle.stopping();
    let end = async move {
        tokio::select! {
            () = stopping.cancelled_owned() => {}
            () = tokio::time::sleep(LONGEST) => {}
        }
    };
    let events = answer.bytes_stream().take_until(Box::pin(end)).map(move |part| {
        // Held as long as the stream is.
        let _place = &place;
        part
    });
    let headers = [
        ("content-type", "text/event-stream"),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        ("x-accel-buffering", "no"),
    ];
    (headers, Body::from_stream(events)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_takes_the_places_of_all() {
        let listeners = Listeners::new(10);
        let place = |account: &str| listeners.place(account.to_owned());
        let mut held: Vec<_> = (0..EACH).map(|_| place("ada").unwrap()).collect();
        assert_eq!(place("ada").err(), Some(StatusCode::TOO_MANY_REQUESTS));
        held.extend((0..4).map(|_| place("bob").unwrap()));
        assert_eq!(place("eve").err(), Some(StatusCode::SERVICE_UNAVAILABLE));
        held.remove(0);
        held.push(place("ada").unwrap());
        held.clear();
        assert!(listeners.each.lock().unwrap().is_empty());
    }
}
