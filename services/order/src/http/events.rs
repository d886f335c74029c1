//! `/orders/{id}/events`: an order's changes of status as Server-Sent Events.
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use identity::User;
use order_core::ids::OrderId;
use serde::Deserialize;
use service::Problem;
use service::db::Pool;
use service::extract::{Json, Path, Query};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::examples;
use super::orders::viewer;
use super::{App, Stopping};
use crate::events::stream::{Changes, Listener, OrderStream};
use crate::events::tickets::{self, Ticket};
use crate::order::Viewer;
use crate::order::reads::Reads;

/// How a stream goes.
#[derive(Clone, Copy)]
struct Pace {
    /// A comment this often keeps proxies from cutting a silent connection.
    beat: Duration,
    /// A client that takes nothing for this long is dropped.
    patience: Duration,
    /// Then, or when its access token runs out, the client comes back with a fresh one.
    longest: Duration,
}

const PACE: Pace = Pace {
    beat: Duration::from_secs(15),
    patience: Duration::from_secs(30),
    longest: Duration::from_secs(15 * 60),
};

/// Events on their way to one client.
const QUEUE: usize = 4;

type Queue = mpsc::Sender<Result<Bytes, Infallible>>;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(events)).routes(routes!(ticket))
}

#[derive(Deserialize)]
struct TicketQuery {
    ticket: Option<String>,
}

/// The caller of a stream: known by a ticket, or by an access token as elsewhere.
struct Follower(User);

impl FromRequestParts<App> for Follower {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Query(TicketQuery { ticket }) = Query::from_request_parts(parts, app).await?;
        let Some(ticket) = ticket else { return User::from_request_parts(parts, app).await.map(Self) };
        let Path(id) = Path::<OrderId>::from_request_parts(parts, app).await?;
        let invalid = || {
            Problem::unauthorized(
                "invalid_ticket",
                "The ticket was used, has expired, or is another order's.",
            )
        };
        tickets::redeem(&app.pool, &ticket, id).await?.map(Self).ok_or_else(invalid)
    }
}

/// Get a ticket to follow an order
///
/// A browser's `EventSource` sends no `Authorization` header: it follows the order at
/// `/orders/{id}/events?ticket=...`, once, within a minute, and for as long as the access token is good.
#[utoipa::path(
    post, path = "/api/v1/orders/{id}/event-tickets", operation_id = "create_stream_ticket", tag = "orders",
    params(("id" = inline(OrderId), Path, description = "The order.")),
    responses((status = 201, description = "The ticket.", body = Ticket, example = json!(examples::ticket()))),
    security(("token" = [])),
)]
async fn ticket(
    user: User,
    State(reads): State<Reads>,
    State(pool): State<Pool>,
    Path(id): Path<OrderId>,
) -> Result<Response, Problem> {
    reads.visible(user, id).await?;
    let ticket = tickets::issue(&pool, user, id).await?;
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(ticket)).into_response())
}

/// Follow an order
///
/// Server-Sent Events, one for each change of status: `event: status`, with the order in `data` as it was
/// then. What has happened comes first. The stream ends with the order, or with the access token.
#[utoipa::path(
    get, path = "/api/v1/orders/{id}/events", operation_id = "stream_order_events", tag = "orders",
    params(
        ("id" = inline(OrderId), Path, description = "The order."),
        ("ticket" = Option<String>, Query, description = "In place of an access token: one that `POST /orders/{id}/event-tickets` gave.", nullable = false, min_length = 43, max_length = 43, pattern = "^[A-Za-z0-9_-]+$"),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event seen: only later ones come.", nullable = false),
    ),
    responses(
        (status = 200, description = "The events.", body = String, content_type = "text/event-stream", headers(("Cache-Control" = String, description = "`no-store`.")), example = json!(examples::event())),
        (status = 204, description = "All events were seen and no more will follow."),
    ),
    security(("token" = [])),
    extensions(("x-problems" = json!({"401": ["invalid_ticket"]}))),
)]
async fn events(
    Follower(user): Follower,
    State(reads): State<Reads>,
    State(stream): State<OrderStream>,
    State(Stopping(stop)): State<Stopping>,
    Path(id): Path<OrderId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // Before the order is read, so that no change falls between.
    let listener =
        stream.listen(id).ok_or_else(|| Problem::unavailable("Too many are listening; try again."))?;
    let order = reads.visible(user, id).await?;
    listener.knows(order.version);
    let changes = Changes::of(&order);
    let seen: Option<i64> = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    // An id that no event of this order has had is of another order, or made up.
    let seen = seen.filter(|seen| *seen <= order.version).unwrap_or(0);
    if changes.ended && seen >= changes.version() {
        // Nothing will follow: this status makes an EventSource stop.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let (queue, events) = mpsc::channel(QUEUE);
    let good = user.until.saturating_sub(OffsetDateTime::now_utc().unix_timestamp());
    let pace = Pace { longest: Duration::from_secs(good.try_into().unwrap_or(0)).min(PACE.longest), ..PACE };
    tokio::spawn(feed(listener, Arc::new(changes), viewer(user), seen, queue, pace, stop));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(ReceiverStream::new(events))).into_response())
}

/// History first, then each change, until the order has ended.
async fn feed(
    mut listener: Listener,
    history: Arc<Changes>,
    viewer: Viewer,
    mut seen: i64,
    queue: Queue,
    pace: Pace,
    stop: CancellationToken,
) {
    let mut beat = interval_at(Instant::now() + pace.beat, pace.beat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = tokio::time::sleep(pace.longest);
    tokio::pin!(end);
    let deliver = async |event| {
        tokio::select! {
            () = stop.cancelled() => false,
            sent = timeout(pace.patience, queue.send(Ok(event))) => matches!(sent, Ok(Ok(()))),
        }
    };
    let mut unsent = Some(history);
    loop {
        // Moved out, so that a listener that waits for hours does not keep the whole history in memory.
        if let Some(changes) = unsent.take() {
            for (version, event) in changes.after(seen, viewer) {
                if !deliver(event).await {
                    return;
                }
                seen = version;
            }
            if changes.ended {
                return;
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = queue.closed() => return,
            () = &mut end => return,
            newest = listener.changed() => match newest {
                Some(newest) => unsent = Some(newest),
                None => return,
            },
            _ = beat.tick() => if !deliver(Bytes::from_static(b":\n\n")).await {
                return;
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use service::db::Pool;
    use uuid::Uuid;

    use super::*;

    const NEVER: Duration = Duration::from_secs(3600);
    const SOON: Duration = Duration::from_millis(10);

    /// A stream of an order that does not change, on the only place there is.
    fn events(stream: &OrderStream, pace: Pace) -> mpsc::Receiver<Result<Bytes, Infallible>> {
        let (queue, events) = mpsc::channel(QUEUE);
        let listener = stream.listen(Uuid::nil().into()).expect("a place is free");
        let stop = CancellationToken::new();
        tokio::spawn(feed(listener, Arc::default(), Viewer::Owner, 0, queue, pace, stop));
        events
    }

    fn open() -> OrderStream {
        let nowhere = Pool::lazy("postgres://127.0.0.1:1/none", "orders", 1).expect("an address");
        OrderStream::new(nowhere, 1, Duration::from_secs(5)).0
    }

    /// Waits until the stream has freed its place.
    async fn place_freed(stream: &OrderStream) {
        let free = async {
            while stream.listen(Uuid::nil().into()).is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(10), free).await.expect("the stream ends");
    }

    #[tokio::test]
    async fn a_silent_stream_has_a_heartbeat() {
        let mut events = events(&open(), Pace { beat: SOON, patience: NEVER, longest: NEVER });
        for _ in 0..3 {
            assert_eq!(events.recv().await, Some(Ok(Bytes::from_static(b":\n\n"))));
        }
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_dropped() {
        let stream = open();
        let mut events = events(&stream, Pace { beat: SOON, patience: SOON, longest: NEVER });
        place_freed(&stream).await;
        let mut left = 0;
        while events.recv().await.is_some() {
            left += 1;
        }
        assert_eq!(left, QUEUE);
    }

    #[tokio::test]
    async fn a_stream_ends_when_its_client_is_gone_or_its_time_is_up() {
        let stream = open();
        drop(events(&stream, Pace { beat: NEVER, patience: NEVER, longest: NEVER }));
        place_freed(&stream).await;
        let mut events = events(&stream, Pace { beat: NEVER, patience: NEVER, longest: SOON });
        assert_eq!(events.recv().await, None);
        place_freed(&stream).await;
    }
}
