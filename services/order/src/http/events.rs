//! `/orders/{id}/events`: an order's changes of status as Server-Sent Events.
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use service::Problem;
use service::auth::User;
use service::extract::Path;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::examples;
use super::orders::{viewer, visible};
use crate::app::{App, Stopping};
use crate::live::{Changes, Listener, Live};
use crate::order::Viewer;

/// A comment this often keeps proxies from cutting a silent connection.
const BEAT: Duration = Duration::from_secs(15);

/// A client that takes nothing for this long is dropped.
const PATIENCE: Duration = Duration::from_secs(30);

/// Then the client comes back with a fresh access token: a stream outlives none.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Events on their way to one client.
const QUEUE: usize = 4;

type Queue = mpsc::Sender<Result<Bytes, Infallible>>;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(events))
}

/// Follow an order
///
/// Server-Sent Events, one for each change of status: `event: status`, with the order in `data` as it was
/// then. What has happened comes first. The stream ends with the order, or after a quarter of an hour.
#[utoipa::path(
    get, path = "/api/v1/orders/{id}/events", operation_id = "stream_order_events", tag = "orders",
    params(
        ("id" = Uuid, Path, description = "The order."),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event seen: only later ones come.", nullable = false),
    ),
    responses(
        (status = 200, description = "The events.", body = String, content_type = "text/event-stream", headers(("Cache-Control" = String, description = "`no-store`.")), example = json!(examples::event())),
        (status = 204, description = "All events were seen and no more will follow."),
    ),
    security(("token" = [])),
)]
async fn events(
    user: User,
    State(pool): State<PgPool>,
    State(live): State<Live>,
    State(Stopping(stop)): State<Stopping>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // Before the order is read, so that no change falls between.
    let listener =
        live.listen(id).ok_or_else(|| Problem::unavailable("Too many are listening; try again."))?;
    let order = visible(&pool, user, id).await?;
    listener.knows(order.version);
    let changes = Changes::of(&order);
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok()).unwrap_or(0);
    if changes.ended && seen >= changes.version() {
        // Nothing will ever follow: this tells an EventSource not to come back.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let (queue, events) = mpsc::channel(QUEUE);
    tokio::spawn(feed(listener, Arc::new(changes), viewer(user), seen, queue, stop));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(ReceiverStream::new(events))).into_response())
}

/// History first, then what happens, until the order has ended.
async fn feed(
    mut listener: Listener,
    mut changes: Arc<Changes>,
    viewer: Viewer,
    mut seen: i64,
    queue: Queue,
    stop: CancellationToken,
) {
    let mut beat = interval_at(Instant::now() + BEAT, BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = tokio::time::sleep(LONGEST);
    tokio::pin!(end);
    loop {
        for (version, event) in changes.after(seen, viewer) {
            if !deliver(&queue, event, &stop).await {
                return;
            }
            seen = version;
        }
        if changes.ended {
            return;
        }
        let beats = tokio::select! {
            () = stop.cancelled() => return,
            () = queue.closed() => return,
            () = &mut end => return,
            newest = listener.changed() => match newest {
                Some(newest) => { changes = newest; false }
                None => return,
            },
            _ = beat.tick() => true,
        };
        if beats && !deliver(&queue, Bytes::from_static(b":\n\n"), &stop).await {
            return;
        }
    }
}

/// False when the client is gone or takes nothing, or the service stops.
async fn deliver(queue: &Queue, event: Bytes, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        sent = timeout(PATIENCE, queue.send(Ok(event))) => matches!(sent, Ok(Ok(()))),
    }
}
