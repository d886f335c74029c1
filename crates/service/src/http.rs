//! The layers that every HTTP request passes, outermost first: the connection's
//! end when the service stops, the limit of requests in work, writes that outlive their client, request id, span and
//! metrics, problem documents' finish, panics, body limit.
//!
//! Slow clients are cut off by the edge: hyper's header time-out is not set here.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use opentelemetry::propagation::Extractor;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;
use uuid::Uuid;

use crate::admission::Admission;
use crate::health::Health;
use crate::{Problem, detached, telemetry};

/// JSON bodies may be this long, in bytes.
pub const BODY_LIMIT: usize = 1024 * 1024;

/// Bytes of a body that one place among the requests in work pays for.
const PLACE_BYTES: usize = 64 * 1024;

/// Characters of a path that are logged: it is the client's.
const LONGEST_PATH: usize = 200;

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

tokio::task_local! {
    static REQUEST_ID: String;
}

/// The id of the request that this task answers, if it answers one.
pub fn request_id() -> Option<String> {
    REQUEST_ID.try_with(String::clone).ok()
}

/// For answers to somebody who is signed in.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Adds the shared layers and fallbacks. Call it last, with all routes merged:
/// a router merged later would lose them.
pub(crate) fn finish(router: Router, health: Arc<Health>, admission: Admission) -> Router {
    let router = router
        .fallback(|| async { Problem::not_found("There is nothing at this address.") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Not with this method.")
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(CatchPanicLayer::custom(panicked));
    observed(router)
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let admission = admission.clone();
            async move { admit(request, next, &admission).await }
        }))
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let health = health.clone();
            async move { let_go(request, next, &health).await }
        }))
}

/// The layers of a site, whose errors are pages of its own: request id, span and metrics, the connection's end.
pub(crate) fn finish_site(router: Router, health: Arc<Health>) -> Router {
    observed(router).layer(middleware::from_fn(move |request: Request, next: Next| {
        let health = health.clone();
        async move { let_go(request, next, &health).await }
    }))
}

fn observed(router: Router) -> Router {
    let duration = telemetry::duration_histogram(
        "http.server.request.duration",
        "Requests answered, but for those refused at once.",
    );
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let duration = duration.clone();
        async move { observe(request, next, duration).await }
    }))
}

/// While the service stops, each answer is its connection's last (hyper closes
/// it after `Connection: close`): a connection that is still kept when the port
/// closes would be cut, perhaps with a request on its way.
async fn let_go(request: Request, next: Next, health: &Health) -> Response {
    // HTTP/2 has no such field; its connections end by GOAWAY.
    let kept = request.version() <= Version::HTTP_11;
    let mut response = next.run(request).await;
    if kept && health.is_stopping() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Lets a request in while there is a place for it. A handler that writes runs to its end even when its client hangs
/// up, and keeps its place until then. A stream of events gives its place up when it starts: it has a limit of its own.
///
/// A refusal has no span and no duration, only a counter: it must cost as little as can be.
async fn admit(request: Request, next: Next, admission: &Admission) -> Response {
    let Some(place) = admission.enter(places(request.headers())) else {
        return refusal(&request);
    };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let work = async move {
        let response = next.run(request).await;
        drop(place);
        response
    };
    if reads { work.await } else { detached(work).await }
}

fn refusal(request: &Request) -> Response {
    let id = callers_id(request.headers());
    let mut problem = Problem::unavailable("Too many requests at once; try again.");
    problem.instance = Some(request.uri().path().to_owned());
    problem.trace_id = telemetry::callers_trace_id(&Headers(request.headers()))
        .or_else(|| Some(id.to_str().ok()?.to_owned()));
    let mut response = problem.into_response();
    response.headers_mut().insert(X_REQUEST_ID.clone(), id);
    if request.headers().contains_key(header::AUTHORIZATION) {
        response.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    }
    response
}

/// How many places a request takes: more with a body that is read into memory, so that together they fit there.
/// One that is longer is refused unread, or streamed by a handler with a limit of its own.
fn places(headers: &HeaderMap) -> u32 {
    let of = |bytes: usize| 1 + u32::try_from(bytes / PLACE_BYTES).unwrap_or(u32::MAX);
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    match length {
        Some(length) if length <= BODY_LIMIT => of(length),
        None if headers.contains_key(header::TRANSFER_ENCODING) => of(BODY_LIMIT),
        _ => 1,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that the layer calls")]
fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(error = message.unwrap_or("unknown"), "http.handler_panicked");
    Problem::internal().into_response()
}

async fn observe(
    mut request: Request,
    next: Next,
    duration: opentelemetry::metrics::Histogram<f64>,
) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_else(|| "unmatched".to_owned());
    let path = request.uri().path().to_owned();
    let request_id = callers_id(request.headers());
    // The client sees it in a page, and goes on with calls to other services.
    request.headers_mut().insert(X_REQUEST_ID.clone(), request_id.clone());
    let signed_in = request.headers().contains_key(header::AUTHORIZATION);

    let span = tracing::info_span!(
        "http.request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = %method,
        http.route = route,
        http.request.id = request_id.to_str().unwrap_or_default(),
        http.response.status_code = tracing::field::Empty,
        url.path = path.chars().take(LONGEST_PATH).collect::<String>(),
        // Recorded by whoever knows it.
        order.id = tracing::field::Empty,
    );
    telemetry::continue_from_outside(&span, &Headers(request.headers()));

    let id = request_id.to_str().unwrap_or_default().to_owned();
    let mut response = REQUEST_ID.scope(id, next.run(request)).instrument(span.clone()).await;
    if let Some(mut problem) = response.extensions_mut().remove::<Problem>() {
        let headers = std::mem::take(response.headers_mut());
        problem.instance = Some(path);
        problem.trace_id = telemetry::trace_id(&span);
        response = problem.into_response();
        for (name, value) in &headers {
            if name != header::CONTENT_LENGTH {
                response.headers_mut().insert(name, value.clone());
            }
        }
    }
    response.headers_mut().insert(X_REQUEST_ID.clone(), request_id);
    if signed_in {
        response.headers_mut().entry(header::CACHE_CONTROL).or_insert(NO_STORE);
    }

    let status = response.status().as_u16();
    span.record("http.response.status_code", status);
    let elapsed = started.elapsed();
    let labels = [
        telemetry::label("http.request.method", known_method(&method)),
        telemetry::label("http.route", route),
        telemetry::label("http.response.status_code", i64::from(status)),
    ];
    duration.record(elapsed.as_secs_f64(), &labels);
    span.in_scope(|| tracing::info!(event.duration = elapsed.as_nanos() as u64, "http.answered"));
    response
}

/// A client may invent methods; a metric's label may not.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}

/// The caller's own `X-Request-Id` if it is a sane one, else a new one.
fn callers_id(headers: &HeaderMap) -> HeaderValue {
    let sane = |value: &&HeaderValue| {
        (1..=128).contains(&value.len())
            && value.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
    };
    let own = headers.get(&X_REQUEST_ID).filter(sane).cloned();
    own.or_else(|| HeaderValue::from_str(&Uuid::now_v7().to_string()).ok())
        .unwrap_or_else(|| HeaderValue::from_static("unknown"))
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_takes_places_for_the_body_that_will_be_in_memory() {
        let with = |name: HeaderName, value: &'static str| {
            places(&HeaderMap::from_iter([(name, HeaderValue::from_static(value))]))
        };
        assert_eq!(places(&HeaderMap::new()), 1);
        assert_eq!(with(header::CONTENT_LENGTH, "300"), 1);
        assert_eq!(with(header::CONTENT_LENGTH, "1048576"), 17);
        assert_eq!(with(header::CONTENT_LENGTH, "1048577"), 1, "refused, or streamed");
        assert_eq!(with(header::TRANSFER_ENCODING, "chunked"), 17, "it may be as long");
    }
}
