//! gRPC between services: server and client with trace context and deadlines.

mod call;
mod connector;
mod replicas;
mod status;

use std::time::{Duration, Instant};

use axum::extract::Request as HttpRequest;
use axum::http::HeaderMap;
use axum::middleware::{self, Next};
use axum::response::Response as HttpResponse;
use opentelemetry::propagation::Extractor;
use tonic::metadata::{KeyRef, MetadataMap};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Code, Status};
use tower_http::trace::TraceLayer;

pub use call::{Retries, call, request};
pub use replicas::{Replicas, channel};
pub use status::{from_sqlx, internal, invalid, is_transient, outcome_unknown, refusal, unavailable};

use crate::admission::Admission;
use crate::telemetry::{self, Call};

type SpanMaker = fn(&axum::http::Request<tonic::body::Body>) -> tracing::Span;
type Traced = tower::layer::util::Stack<
    TraceLayer<tower_http::classify::SharedClassifier<tower_http::classify::GrpcErrorsAsFailures>, SpanMaker>,
    tower::layer::util::Identity,
>;

/// A client that does not resolve its peer's name again sends all calls to one replica. Connections end from
/// time to time, between calls, so that it finds others.
const CONNECTION_AGE: Duration = Duration::from_secs(60);

/// A connection, idle or not, whose peer doesn't answer a ping (HTTP/2's own, RFC 9113, section 6.7) is
/// ended, and the next call makes a new one. TCP alone would take a quarter of an hour to notice that a peer
/// is gone, and would never notice that it is frozen. For a client the answer is due soon, as calls fail
/// until then. Servers can wait.
const PING_EVERY: Duration = Duration::from_secs(2);
const CLIENT_ANSWERS_IN: Duration = Duration::from_secs(10);

/// What a service answers by gRPC.
#[derive(Default)]
pub struct Api {
    pub routes: Routes,
    /// An encoded `FileDescriptorSet`, for reflection.
    pub descriptors: &'static [u8],
    /// What other services ask for on the same port by HTTP.
    pub pages: axum::Router,
}

/// A server of `api`, the standard health service, and reflection, which lets tools such as grpcurl make calls.
/// Calls of `api` need a place.
pub(crate) async fn server(api: Api, admission: Admission) -> anyhow::Result<Router<Traced>> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let trace = TraceLayer::new_for_grpc().make_span_with(span as SpanMaker);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(api.descriptors)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let served = Call::served();
    let admit = middleware::from_fn(move |request: HttpRequest, next: Next| {
        let (admission, served) = (admission.clone(), served.clone());
        async move { admit(request, next, &admission, &served).await }
    });
    let routes = Routes::from(api.routes.into_axum_router().layer(admit));
    let routes = routes.add_service(health).add_service(reflection);
    let routes = Routes::from(routes.into_axum_router().merge(api.pages));
    Ok(Server::builder()
        .accept_http1(true)
        .max_connection_age(CONNECTION_AGE)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(CLIENT_ANSWERS_IN))
        .layer(trace)
        .add_routes(routes))
}

async fn admit(request: HttpRequest, next: Next, admission: &Admission, served: &Call) -> HttpResponse {
    let Some(_place) = admission.enter(1) else {
        return unavailable("too many calls at once").into_http();
    };
    let (method, begun) = (method(request.uri().path()).to_owned(), Instant::now());
    let response = next.run(request).await;
    let (code, took) = (code_of(response.headers()), begun.elapsed());
    // A client may invent a method, which is no label; only such calls are unimplemented.
    let known: &str = if code == Code::Unimplemented { "_OTHER" } else { &method };
    served.record(known, code_name(code), took.as_secs_f64());
    tracing::info!(
        rpc.method = known,
        rpc.response.status_code = code_name(code),
        event.duration = took.as_nanos() as u64,
        "grpc.answered"
    );
    response
}

/// With its service, as in `dockside.product.v1.ProductService/Reserve`.
fn method(path: &str) -> &str {
    path.trim_start_matches('/')
}

/// An error comes as headers alone, with its status among them. All calls here have one message for an answer.
fn code_of(headers: &HeaderMap) -> Code {
    Status::from_header_map(headers).map_or(Code::Ok, |status| status.code())
}

/// As gRPC's specification writes it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

fn span(request: &axum::http::Request<tonic::body::Body>) -> tracing::Span {
    let path = request.uri().path();
    let span = tracing::info_span!("grpc.request", otel.name = path, otel.kind = "server", rpc.method = path);
    telemetry::continue_trace(&span, &Metadata(&MetadataMap::from_headers(request.headers().clone())));
    span
}

struct Metadata<'a>(&'a MetadataMap);

impl Extractor for Metadata<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0
            .keys()
            .filter_map(|key| if let KeyRef::Ascii(key) = key { Some(key.as_str()) } else { None })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_a_database_is_known_from_its_headers() {
        let answer = |status: Status| code_of(status.into_http::<tonic::body::Body>().headers());
        assert_eq!(answer(unavailable("the database is busy or away")), Code::Unavailable);
        assert_eq!(answer(internal()), Code::Internal);
        assert_eq!(code_of(&HeaderMap::new()), Code::Ok);
    }
}
