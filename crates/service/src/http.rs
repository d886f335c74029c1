//! The layers that every HTTP request passes, outermost first: the connection's
//! end when the service stops, request id, span and metrics, problem documents' finish, panics, writes that outlive
//! their client, body limit.
//!
//! Slow clients are the edge's to cut: hyper's header time-out is not set here.

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

use crate::health::Health;
use crate::{Problem, detached, telemetry};

/// JSON bodies may be this long, in bytes.
pub const BODY_LIMIT: usize = 1024 * 1024;

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Adds the shared layers and fallbacks. Call it last, with all routes merged:
/// a router merged later would lose them.
pub fn finish(router: Router, health: Arc<Health>) -> Router {
    let duration = telemetry::duration_histogram("http.server.request.duration");
    router
        .fallback(|| async { Problem::not_found("There is nothing at this address.") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Not with this method.")
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn(outlive_the_client))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let duration = duration.clone();
            async move { observe(request, next, duration).await }
        }))
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let health = health.clone();
            async move { let_go(request, next, &health).await }
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

/// A handler that writes runs to its end even when its client hangs up.
async fn outlive_the_client(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    detached(next.run(request)).await
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that the layer calls")]
fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(error = message.unwrap_or("unknown"), "http.handler_panicked");
    Problem::internal().into_response()
}

async fn observe(request: Request, next: Next, duration: opentelemetry::metrics::Histogram<f64>) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_else(|| "unmatched".to_owned());
    let path = request.uri().path().to_owned();
    let request_id = request_id(request.headers());
    let signed_in = request.headers().contains_key(header::AUTHORIZATION);

    let span = tracing::info_span!(
        "http.request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = %method,
        http.route = route,
        http.request_id = request_id.to_str().unwrap_or_default(),
        http.response.status_code = tracing::field::Empty,
    );
    telemetry::continue_trace(&span, &Headers(request.headers()));

    let mut response = next.run(request).instrument(span.clone()).await;
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
        let private = HeaderValue::from_static("no-store");
        response.headers_mut().entry(header::CACHE_CONTROL).or_insert(private);
    }

    let status = response.status().as_u16();
    span.record("http.response.status_code", status);
    let elapsed = started.elapsed().as_secs_f64();
    let labels = [
        telemetry::label("http.request.method", known_method(&method)),
        telemetry::label("http.route", route),
        telemetry::label("http.response.status_code", i64::from(status)),
    ];
    duration.record(elapsed, &labels);
    span.in_scope(|| tracing::debug!(duration_seconds = elapsed, "http.answered"));
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
fn request_id(headers: &HeaderMap) -> HeaderValue {
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
