//! `/orders/{id}/events`: the API's stream of an order's changes, on the page's own origin and with its session.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use uuid::Uuid;

use crate::api::Refused;
use crate::visitor::Visitor;

/// Longest wait for the stream's beginning.
const BEGIN: Duration = Duration::from_secs(5);
/// Then the browser comes back, by a connection that may lead to another replica.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// An `EventSource` comes back by itself after a stream's end, and not after 204 or an error.
pub async fn follow(visitor: Visitor, Path(id): Path<Uuid>, headers: HeaderMap) -> Response {
    let app = visitor.app().clone();
    let Ok(place) = app.listeners.clone().try_acquire_owned() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
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
