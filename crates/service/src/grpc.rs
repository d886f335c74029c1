//! gRPC between services: server and client with trace context and deadlines.

use std::collections::HashMap;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::extract::Request as HttpRequest;
use axum::http::HeaderMap;
use axum::middleware::{self, Next};
use axum::response::Response as HttpResponse;
use opentelemetry::propagation::{Extractor, Injector};
use tokio::time::timeout_at;
use tonic::metadata::{KeyRef, MetadataMap};
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Server, server::Router};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower::ServiceExt;
use tower_http::trace::TraceLayer;

use crate::admission::Admission;
use crate::socket::connector;
use crate::telemetry::{self, Call};

type SpanMaker = fn(&axum::http::Request<tonic::body::Body>) -> tracing::Span;
type Traced = tower::layer::util::Stack<
    TraceLayer<tower_http::classify::SharedClassifier<tower_http::classify::GrpcErrorsAsFailures>, SpanMaker>,
    tower::layer::util::Identity,
>;

/// A client's calls all go through one connection, to one replica. That it ends
/// now and then, between calls, lets clients find replicas that are new.
const CONNECTION_AGE: Duration = Duration::from_secs(60);

/// A connection, idle or not, whose peer doesn't answer a ping (HTTP/2's own, RFC 9113, section 6.7) is ended, and the
/// next call makes a new one. TCP alone would not tell for a quarter of an hour that a peer is gone, and never that it
/// is frozen. Clients ask for little: later calls fail until the answer is due. Servers can wait.
const PING_EVERY: Duration = Duration::from_secs(2);
const SERVER_ANSWERS_IN: Duration = Duration::from_secs(3);
const CLIENT_ANSWERS_IN: Duration = Duration::from_secs(10);

/// What a service answers by gRPC.
#[derive(Default)]
pub struct Api {
    pub routes: Routes,
    /// An encoded `FileDescriptorSet`, for reflection.
    pub descriptors: &'static [u8],
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
    Ok(Server::builder()
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
    // What a client made up is no label; only that is unimplemented.
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

/// A connection to each replica of a service that is named alone; for one name, which may stand for several replicas, one
/// to any of them. Calls take turns, and pass over a replica that has just failed one: its connection ended, it answered
/// `UNAVAILABLE`, as one does whose database is away, or it did not answer for as long as the caller would wait.
#[derive(Clone)]
pub struct Replicas(Arc<Turns>);

struct Turns {
    replicas: Vec<Replica>,
    next: AtomicUsize,
    /// What `passed_over` counts from.
    start: Instant,
    made: Call,
}

struct Replica {
    channel: Channel,
    /// Milliseconds; 0 while it does not fail.
    passed_over: AtomicU64,
    /// When that was set last, in the same milliseconds.
    failed_at: AtomicU64,
    /// When it was asked last although it is passed over, in the same milliseconds.
    asked_at: AtomicU64,
    /// Trials in a row that failed.
    failures: AtomicU32,
}

/// How long a replica that failed a call is passed over; then one call tries it. Twice as long after each further
/// failure, as such a call may be a slow one.
const PASSED_OVER: Duration = Duration::from_secs(1);
const LONGEST_PASSED_OVER: Duration = Duration::from_secs(8);

/// A call that is given up before this says nothing of its replica: its caller may have gone away.
const PATIENCE: Duration = Duration::from_millis(1500);

impl Replicas {
    /// From one or more addresses, with commas.
    pub fn new(addresses: &str) -> anyhow::Result<Self> {
        let replica = |address: &str| {
            let channel = channel(address.trim())?;
            let never = || AtomicU64::new(0);
            let (passed_over, failed_at, asked_at) = (never(), never(), never());
            Ok(Replica { channel, passed_over, failed_at, asked_at, failures: AtomicU32::new(0) })
        };
        let replicas = addresses.split(',').map(replica).collect::<anyhow::Result<_>>()?;
        let (next, start, made) = (AtomicUsize::new(0), Instant::now(), Call::made());
        Ok(Self(Arc::new(Turns { replicas, next, start, made })))
    }
}

impl Turns {
    fn until(&self, pause: Duration) -> u64 {
        u64::try_from((self.start.elapsed() + pause).as_millis()).unwrap_or(u64::MAX)
    }

    /// The next replica. When all are passed over, the one that has been left alone for longest: in a rolling restart it is
    /// back, while the one that failed last is not.
    fn pick(&self) -> &Replica {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let from = |skip| &self.replicas[turn.wrapping_add(skip) % self.replicas.len()];
        let now = self.until(Duration::ZERO);
        let usable = |replica: &&Replica| {
            let until = replica.passed_over.load(Ordering::Relaxed);
            // Of those who find it due, one tries it.
            until == 0
                || until <= now
                    && replica
                        .passed_over
                        .compare_exchange(
                            until,
                            self.until(PASSED_OVER),
                            Ordering::Relaxed,
                            Ordering::Relaxed,
                        )
                        .is_ok()
        };
        let all = || (0..self.replicas.len()).map(from);
        let last = |replica: &&Replica| {
            replica.failed_at.load(Ordering::Relaxed).max(replica.asked_at.load(Ordering::Relaxed))
        };
        all().find(usable).unwrap_or_else(|| {
            let picked = all().min_by_key(last).unwrap_or_else(|| from(0));
            picked.asked_at.store(now, Ordering::Relaxed);
            picked
        })
    }

    fn ended(&self, replica: &Replica, begun: u64, well: bool) {
        if well {
            replica.failures.store(0, Ordering::Relaxed);
            replica.passed_over.store(0, Ordering::Relaxed);
            return;
        }
        // Calls that were under way when it failed say no more than that.
        if begun < replica.failed_at.load(Ordering::Relaxed) {
            return;
        }
        let before = replica.failures.fetch_add(1, Ordering::Relaxed).min(8);
        let pause = (PASSED_OVER * 2_u32.pow(before)).min(LONGEST_PASSED_OVER);
        replica.failed_at.store(self.until(Duration::ZERO), Ordering::Relaxed);
        replica.passed_over.store(self.until(pause), Ordering::Relaxed);
    }
}

/// A call under way. Dropped, it was given up.
struct UnderWay<'a> {
    turns: &'a Turns,
    replica: &'a Replica,
    begun: Instant,
    method: String,
    answer: Option<Code>,
}

impl<'a> UnderWay<'a> {
    fn begin(turns: &'a Turns, path: &str) -> Self {
        let method = method(path).to_owned();
        Self { turns, replica: turns.pick(), begun: Instant::now(), method, answer: None }
    }

    /// `None`: there was no answer.
    fn end(mut self, answer: Option<Code>) {
        self.answer = Some(answer.unwrap_or(Code::Unavailable));
        let well = answer.is_some_and(|code| code != Code::Unavailable);
        self.turns.ended(self.replica, self.begun_at(), well);
    }

    fn begun_at(&self) -> u64 {
        self.turns.until(Duration::ZERO).saturating_sub(self.begun.elapsed().as_millis() as u64)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        self.turns.made.record(
            &self.method,
            code_name(self.answer.unwrap_or(Code::Cancelled)),
            took.as_secs_f64(),
        );
        if self.answer.is_none() && took >= PATIENCE {
            self.turns.ended(self.replica, self.begun_at(), false);
        }
    }
}

type Answered = Result<axum::http::Response<tonic::body::Body>, tonic::transport::Error>;

impl tower::Service<axum::http::Request<tonic::body::Body>> for Replicas {
    type Response = axum::http::Response<tonic::body::Body>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Answered> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: axum::http::Request<tonic::body::Body>) -> Self::Future {
        let turns = self.0.clone();
        Box::pin(async move {
            let call = UnderWay::begin(&turns, request.uri().path());
            let answered = call.replica.channel.clone().oneshot(request).await;
            call.end(answered.as_ref().ok().map(|answer| code_of(answer.headers())));
            answered
        })
    }
}

/// A channel that connects when first used, and again after every loss.
pub fn channel(address: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .with_context(|| format!("{address} is not the address of a gRPC server"))?;
    Ok(endpoint
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(SERVER_ANSWERS_IN)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connector()))
}

/// Pauses before a call whose connection ended is made again. At once it may
/// still meet the connection that is going.
const CALL_AGAIN_AFTER: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(50)];

/// How many calls to one peer may be made again: a tenth of those that are made,
/// and [`Self::IN_HAND`] more, which is what one connection may lose when it ends.
/// A peer that is away gets no more than that on top.
#[derive(Clone)]
pub struct Retries(Arc<AtomicU32>);

impl Retries {
    /// Saved up at most, and at the start.
    pub const IN_HAND: u32 = 50;
    const CALLS_FOR_ONE: u32 = 10;

    fn earn(&self) {
        let most = Self::IN_HAND * Self::CALLS_FOR_ONE;
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| (saved < most).then_some(saved + 1));
    }

    fn spend(&self) -> bool {
        let take = |saved: u32| saved.checked_sub(Self::CALLS_FOR_ONE);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(Self::IN_HAND * Self::CALLS_FOR_ONE)))
    }
}

/// Makes a call that is safe to repeat, with [`request`]'s parameters, and makes
/// it again in the time that is left, as `retries` allow, if its connection ended. A server that
/// stops tells its clients to leave (GOAWAY), but a call that was about to go out
/// is not moved to the next connection: hyper fails it, unsent. What the server itself refuses is not asked again here.
/// The deadline is kept here too: tonic's begins once there is a connection, and ends with the answer's headers.
pub async fn call<M: Clone, R, F>(
    retries: &Retries,
    message: M,
    deadline: Duration,
    token: &str,
    call: impl Fn(Request<M>) -> F,
) -> Result<R, Status>
where
    F: Future<Output = Result<Response<R>, Status>>,
{
    let until = Instant::now() + deadline;
    let call = |request| {
        let answer = timeout_at(until.into(), call(request));
        async { answer.await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))) }
    };
    retries.earn();
    let mut result = call(request(message.clone(), deadline, token)?).await;
    for pause in CALL_AGAIN_AFTER {
        let Err(status) = &result else { break };
        // A server's answer, and a deadline, have another source or none.
        let ended = status.source().is_some_and(|source| source.is::<tonic::transport::Error>());
        // Apart, so that those whose connection ended together don't come back together.
        let pause = pause.mul_f64(rand::random_range(0.5..1.5));
        let left = until.saturating_duration_since(Instant::now()).saturating_sub(pause);
        if !ended || left.is_zero() || !retries.spend() {
            break;
        }
        tracing::debug!(error = status.message(), "grpc.call_again");
        tokio::time::sleep(pause).await;
        result = call(request(message.clone(), left, token)?).await;
    }
    result.map(Response::into_inner)
}

/// A request that carries the trace, the caller's token, and its deadline
/// (`grpc-timeout`, which `Endpoint::timeout` would not send).
pub fn request<T>(message: T, deadline: Duration, token: &str) -> Result<Request<T>, Status> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    telemetry::inject_trace(&mut MetadataMut(request.metadata_mut()));
    let mut value: tonic::metadata::MetadataValue<_> =
        format!("Bearer {token}").parse().map_err(|_| Status::internal("the token is not a header value"))?;
    value.set_sensitive(true);
    request.metadata_mut().insert("authorization", value);
    Ok(request)
}

/// Whether the call's outcome is unknown or it was never taken up, so that
/// the same call may be made again. An expired client deadline shows as `Cancelled`.
pub fn is_transient(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::ResourceExhausted
            | Code::Aborted
    )
}

/// An answer that is an error: with a `google.rpc.ErrorInfo`, whose `reason` is the
/// `code` that the HTTP API's problem documents use (<https://google.aip.dev/193>).
pub fn refusal(status: Code, code: &str, message: &str) -> Status {
    refuse(status, code, message, None)
}

/// `INVALID_ARGUMENT`, with a `google.rpc.BadRequest` that names the field.
pub fn invalid(field: &str, code: &str, message: &str) -> Status {
    refuse(Code::InvalidArgument, code, &format!("{field}: {message}"), Some(field))
}

fn refuse(status: Code, code: &str, message: &str, field: Option<&str>) -> Status {
    let mut details = ErrorDetails::with_error_info(code, "dockside", HashMap::new());
    if let Some(field) = field {
        details.add_bad_request_violation(field, message);
    }
    Status::with_error_details(status, message, details)
}

/// A database error at the gRPC boundary.
pub fn from_sqlx(error: &sqlx::Error) -> Status {
    if crate::db::is_transient(error) {
        tracing::warn!(%error, "db.unavailable");
        return unavailable("the database is busy or away");
    }
    tracing::error!(%error, "db.error");
    internal()
}

/// The call may be made again.
pub fn unavailable(message: &str) -> Status {
    refusal(Code::Unavailable, "service_unavailable", message)
}

pub fn internal() -> Status {
    refusal(Code::Internal, "internal_error", "internal error")
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

struct MetadataMut<'a>(&'a mut MetadataMap);

impl Injector for MetadataMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) =
            (key.parse::<tonic::metadata::MetadataKey<tonic::metadata::Ascii>>(), value.parse())
        {
            self.0.insert(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_carries_its_deadline_and_its_token() {
        let request = request((), Duration::from_secs(3), "secret").unwrap();
        assert_eq!(request.metadata().get("grpc-timeout").unwrap(), "3000000u");
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer secret");
    }

    #[tokio::test]
    async fn calls_take_turns_and_one_at_a_time_tries_a_replica_that_failed() {
        let Replicas(turns) =
            Replicas::new("http://127.0.0.1:1, http://127.0.0.1:2,http://127.0.0.1:3").unwrap();
        let picked = || {
            let picked = turns.pick();
            turns.replicas.iter().position(|replica| std::ptr::eq(replica, picked)).unwrap()
        };
        let mut three = [picked(), picked(), picked()];
        three.sort_unstable();
        assert_eq!(three, [0, 1, 2]);
        let later = |replica: &Replica| {
            replica.passed_over.store(turns.until(Duration::from_secs(60)), Ordering::Relaxed);
        };
        later(&turns.replicas[0]);
        assert!((0..9).all(|_| picked() != 0));
        turns.replicas[0].passed_over.store(1, Ordering::Relaxed);
        while turns.until(Duration::ZERO) <= 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!((0..9).filter(|_| picked() == 0).count(), 1);
        turns.replicas.iter().for_each(later);
        assert_eq!((0..9).filter(|_| picked() == 0).count(), 3);
    }

    /// In a rolling restart: the first is back, and not used again yet, when the second goes.
    #[tokio::test]
    async fn when_all_have_failed_the_one_that_was_left_alone_for_longest_is_tried() {
        let Replicas(turns) = Replicas::new("http://127.0.0.1:1,http://127.0.0.1:2").unwrap();
        for (at, replica) in turns.replicas.iter().enumerate() {
            replica.passed_over.store(turns.until(Duration::from_secs(60)), Ordering::Relaxed);
            replica.failed_at.store(at as u64 + 1, Ordering::Relaxed);
        }
        while turns.until(Duration::ZERO) <= 2 {
            tokio::task::yield_now().await;
        }
        let picked = || usize::from(std::ptr::eq(turns.pick(), &raw const turns.replicas[1]));
        // And then each in its turn: it may hang, and the other may only have been busy.
        assert_eq!([picked(), picked(), picked(), picked()], [0, 1, 0, 1]);
        turns.replicas[1].failed_at.store(turns.until(Duration::from_secs(1)), Ordering::Relaxed);
        assert_eq!(picked(), 0);
    }

    #[tokio::test]
    async fn a_replica_that_says_nothing_is_passed_over_for_longer_and_longer() {
        let Replicas(turns) = Replicas::new("http://127.0.0.1:1,http://127.0.0.1:2").unwrap();
        let passed_over = |at: usize| turns.replicas[at].passed_over.load(Ordering::Relaxed);
        let at = |call: &UnderWay<'_>| usize::from(std::ptr::eq(call.replica, &raw const turns.replicas[1]));
        let given_up = UnderWay::begin(&turns, "/a.B/C");
        let first = at(&given_up);
        drop(given_up);
        assert_eq!(passed_over(first), 0, "its caller had gone");
        let mut pause = PASSED_OVER;
        for _ in 0..6 {
            let mut call = UnderWay::begin(&turns, "/a.B/C");
            while at(&call) != first {
                call.end(Some(Code::Ok));
                call = UnderWay::begin(&turns, "/a.B/C");
            }
            // As if it had begun so long ago, and had been given up for the first time.
            turns.replicas[first].failed_at.store(0, Ordering::Relaxed);
            call.begun -= PATIENCE;
            drop(call);
            let wait = u128::from(passed_over(first)) - turns.start.elapsed().as_millis();
            assert!(wait <= pause.as_millis() && wait > pause.as_millis() / 2, "{wait} ms, not {pause:?}");
            // One that was under way when it failed says nothing new.
            let failures = turns.replicas[first].failures.load(Ordering::Relaxed);
            turns.replicas[first].failed_at.store(u64::MAX, Ordering::Relaxed);
            let begun = Instant::now() - PATIENCE;
            let (method, answer) = (String::new(), None);
            drop(UnderWay { turns: &turns, replica: &turns.replicas[first], begun, method, answer });
            assert_eq!(turns.replicas[first].failures.load(Ordering::Relaxed), failures);
            turns.replicas[first].passed_over.store(1, Ordering::Relaxed);
            pause = (pause * 2).min(LONGEST_PASSED_OVER);
        }
        let mut call = UnderWay::begin(&turns, "/a.B/C");
        while at(&call) != first {
            call = UnderWay::begin(&turns, "/a.B/C");
        }
        call.end(Some(Code::Ok));
        assert_eq!((passed_over(first), turns.replicas[first].failures.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn an_answer_without_a_database_is_known_from_its_headers() {
        let answer = |status: Status| code_of(status.into_http::<tonic::body::Body>().headers());
        assert_eq!(answer(unavailable("the database is busy or away")), Code::Unavailable);
        assert_eq!(answer(internal()), Code::Internal);
        assert_eq!(code_of(&HeaderMap::new()), Code::Ok);
    }

    #[tokio::test]
    async fn a_call_that_nobody_answers_ends_at_its_deadline() {
        let silent = |_| std::future::pending::<Result<Response<()>, Status>>();
        let retries = Retries::default();
        let call = call(&retries, (), Duration::from_millis(50), "token", silent);
        let ended = tokio::time::timeout(Duration::from_secs(10), call).await.expect("it ends");
        assert_eq!(ended.unwrap_err().code(), Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn what_is_no_address_is_refused() {
        assert!(Replicas::new("").is_err() && Replicas::new("http://a:1,").is_err());
    }
}
