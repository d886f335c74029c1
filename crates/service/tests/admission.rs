//! A port works on a limited number of requests and refuses one more at once; and repeated calls are bounded.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use reqwest::{Client, Method};
use service::config::Listen;
use service::grpc::Retries;
use service::serve::{Addresses, Ports};
use service::{Lifecycle, Problem};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const AT_ONCE: usize = 4;
const SOON: Duration = Duration::from_secs(5);
/// The example of the W3C recommendation, section 3.2.
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What the handlers of /work wait for, and how many have begun.
#[derive(Clone)]
struct Gate {
    opened: Arc<Semaphore>,
    begun: Arc<AtomicU32>,
}

impl Gate {
    async fn begun(&self, wanted: u32) {
        let begun = async || (self.begun.load(Ordering::SeqCst) == wanted).then_some(());
        testing::eventually("all requests to be in work", begun).await;
    }

    fn open(&self) {
        self.opened.add_permits(Semaphore::MAX_PERMITS / 2);
    }
}

fn start() -> (Lifecycle, Addresses, Gate) {
    let gate = Gate { opened: Arc::new(Semaphore::new(0)), begun: Arc::default() };
    let held = gate.clone();
    let work = move || {
        let held = held.clone();
        async move {
            held.begun.fetch_add(1, Ordering::SeqCst);
            let _ = held.opened.acquire().await;
            "done"
        }
    };
    let endless =
        async || Body::from_stream(tokio_stream::pending::<Result<&str, std::io::Error>>()).into_response();
    let api = Router::new().route("/work", post(work.clone()).get(work)).route("/stream", get(endless));

    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let requests_at_once = NonZeroU16::new(AT_ONCE as u16).unwrap();
    let listen = Listen { http_addr: any, grpc_addr: any, admin_addr: any, requests_at_once, tls_dir: None };
    let lifecycle = Lifecycle::new();
    let ports = Ports::bind(&listen, &lifecycle).unwrap();
    let pool = service::db::Pool::lazy("postgres://nobody@localhost/none", "none", 10).unwrap();
    let addresses = ports.serve(&lifecycle, &pool, api, service::grpc::Api::default()).unwrap();
    (lifecycle, addresses, gate)
}

fn client(timeout: Duration) -> Client {
    Client::builder().timeout(timeout).build().unwrap()
}

#[tokio::test]
async fn one_request_too_many_is_refused_at_once_and_streams_and_probes_do_not_count() {
    let (_lifecycle, Addresses { http, admin, .. }, gate) = start();
    let client = client(SOON);
    let mut streams = Vec::new();
    for _ in 0..2 * AT_ONCE {
        streams.push(client.get(format!("http://{http}/stream")).send().await.unwrap());
    }
    assert!(streams.iter().all(|stream| stream.status() == 200));

    let mut working = JoinSet::new();
    for n in 0..AT_ONCE {
        let method = if n % 2 == 0 { Method::GET } else { Method::POST };
        working.spawn(client.request(method, format!("http://{http}/work")).send());
    }
    gate.begun(AT_ONCE as u32).await;
    for method in [Method::GET, Method::POST] {
        let refused = client.request(method, format!("http://{http}/work")).header("x-request-id", "mine");
        let refused = refused.header("traceparent", TRACEPARENT).bearer_auth("a.b.c").send().await.unwrap();
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["retry-after"]),
            (503, &"1".parse().unwrap())
        );
        assert_eq!(refused.headers()["x-request-id"], "mine");
        assert_eq!(refused.headers()["cache-control"], "no-store");
        let problem: Problem = refused.json().await.unwrap();
        assert_eq!(
            (problem.code.as_str(), problem.instance.as_deref(), problem.trace_id.as_deref()),
            ("service_unavailable", Some("/work"), Some(&TRACEPARENT[3..35]))
        );
    }
    for probe in ["livez", "startupz", "metrics"] {
        assert_eq!(client.get(format!("http://{admin}/{probe}")).send().await.unwrap().status(), 200);
    }

    gate.open();
    for answer in working.join_all().await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    assert_eq!(client.get(format!("http://{http}/work")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_write_keeps_its_place_when_its_client_hangs_up_and_a_read_frees_it() {
    let (_lifecycle, Addresses { http, .. }, gate) = start();
    let url = format!("http://{http}/work");
    // Cancelled by their clients after a moment.
    let hasty = client(Duration::from_millis(100));
    let mut cancelled = JoinSet::new();
    for _ in 1..AT_ONCE {
        cancelled.spawn(hasty.post(&url).send());
    }
    cancelled.spawn(hasty.get(&url).send());
    gate.begun(AT_ONCE as u32).await;
    assert!(cancelled.join_all().await.iter().all(Result::is_err));

    // The place of the one that read is free again, those of the writes are not.
    let last = testing::eventually("a place to come free", async || {
        let asked = client(SOON);
        let url = url.clone();
        let asked = tokio::spawn(async move { asked.get(&url).send().await.unwrap().status() });
        let begun = tokio::time::timeout(Duration::from_millis(200), gate.begun(AT_ONCE as u32 + 1)).await;
        begun.is_ok().then_some(asked)
    })
    .await;
    assert_eq!(client(SOON).get(&url).send().await.unwrap().status(), 503);
    gate.open();
    assert_eq!(last.await.unwrap(), 200);
    testing::eventually("the places of the writes to come free", async || {
        let answers =
            (0..AT_ONCE).map(async |_| client(SOON).get(&url).send().await.unwrap().status() == 200);
        let answers = futures_util::future::join_all(answers).await;
        answers.into_iter().all(|answered| answered).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_is_away_is_not_asked_much_more_often_than_there_are_calls() {
    // A port that nobody listens on.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let channel = service::grpc::channel(&format!("http://{free}")).unwrap();
    let retries = Retries::default();
    let attempts = Arc::new(AtomicU32::new(0));
    let mut calls = JoinSet::new();
    const CALLS: u32 = 1000;
    for _ in 0..CALLS {
        let (channel, retries, attempts) = (channel.clone(), retries.clone(), attempts.clone());
        calls.spawn(async move {
            let check = |request| {
                attempts.fetch_add(1, Ordering::Relaxed);
                let mut client = HealthClient::new(channel.clone());
                async move { client.check(request).await }
            };
            let message = HealthCheckRequest::default();
            service::grpc::call(&retries, message, SOON, "", check).await.unwrap_err().code()
        });
    }
    assert!(calls.join_all().await.iter().all(|code| *code == tonic::Code::Unavailable));
    let attempts = attempts.load(Ordering::Relaxed);
    assert!(attempts > CALLS, "none was made again");
    assert!(attempts <= CALLS + CALLS / 10 + Retries::IN_HAND, "{attempts} attempts of {CALLS} calls");
}
