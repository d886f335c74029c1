//! PostgreSQL goes away and comes back: readiness follows it, liveness does not, and requests are refused for
//! now.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use reqwest::{Client, Response};
use service::config::{Backends, Listen};
use service::db::Pool;
use service::serve::{Addresses, Ports};
use service::{Lifecycle, Problem};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A way to PostgreSQL that can be closed: who is on it is cut off, who comes is refused. Or be made slow.
struct Way {
    here: SocketAddr,
    there: SocketAddr,
    open: Option<JoinHandle<()>>,
    /// Milliseconds that each answer takes longer.
    delay: Arc<AtomicU64>,
}

impl Way {
    async fn open(there: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        let delay = Arc::default();
        let open = tokio::spawn(forward(listener, there, Arc::clone(&delay)));
        Self { here, there, open: Some(open), delay }
    }

    /// A database whose address leads this way.
    async fn to_database() -> (Self, String) {
        let mut url: reqwest::Url = testing::database("unused").await.parse().unwrap();
        let way = Self::open(url.socket_addrs(|| Some(5432)).unwrap()[0]).await;
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(way.here.port())).unwrap();
        (way, url.to_string())
    }

    async fn close(&mut self) {
        let open = self.open.take().unwrap();
        open.abort();
        assert!(open.await.unwrap_err().is_cancelled());
    }

    async fn open_again(&mut self) {
        let listener = TcpListener::bind(self.here).await.unwrap();
        self.open = Some(tokio::spawn(forward(listener, self.there, Arc::clone(&self.delay))));
    }
}

async fn forward(listener: TcpListener, there: SocketAddr, delay: Arc<AtomicU64>) {
    let mut connections = JoinSet::new(); // which ends with this task
    while let Ok((client, _)) = listener.accept().await {
        let delay = Arc::clone(&delay);
        connections.spawn(async move {
            let (mut from_server, mut to_server) = TcpStream::connect(there).await?.into_split();
            let (mut from_client, mut to_client) = client.into_split();
            let questions = async { tokio::io::copy(&mut from_client, &mut to_server).await };
            let answers = async {
                let mut buffer = vec![0; 0x10000];
                loop {
                    let length = from_server.read(&mut buffer).await?;
                    tokio::time::sleep(Duration::from_millis(delay.load(Ordering::Relaxed))).await;
                    if length == 0 {
                        return Ok(0);
                    }
                    to_client.write_all(&buffer[..length]).await?;
                }
            };
            tokio::select! { ended = questions => ended, ended = answers => ended }
        });
    }
}

async fn one(State(pool): State<Pool>) -> Result<String, Problem> {
    let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&pool).await?;
    Ok(one.to_string())
}

async fn start(database_url: String, connections: u32) -> (Lifecycle, Addresses, Pool) {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let requests_at_once = NonZeroU16::new(128).unwrap();
    let lifecycle = Lifecycle::new();
    let listen = Listen { http_addr: any, grpc_addr: any, admin_addr: any, requests_at_once, tls_dir: None };
    let ports = Ports::bind(&listen, &lifecycle).unwrap();
    let backends = Backends::new(database_url, connections, testing::NO_BROKER.to_owned());
    let pool = service::db::open(&backends, "public", &[]).await.unwrap();
    let api = Router::new().route("/one", get(one)).with_state(pool.clone());
    let addresses = ports.serve(&lifecycle, &pool, api, service::grpc::Api::default()).unwrap();
    (lifecycle, addresses, pool)
}

/// Made once: that takes its time, and the answers' is measured.
fn client() -> Client {
    Client::builder().timeout(Duration::from_secs(10)).build().unwrap()
}

/// The answer, which is there within `limit`.
async fn ask(client: &Client, url: &str, limit: Duration) -> Response {
    tokio::time::timeout(limit, client.get(url).send()).await.expect("an answer in time").unwrap()
}

/// Within 1.5 s: to come again in a second.
async fn refused_for_now(client: &Client, url: &str) {
    let answer = ask(client, url, Duration::from_millis(1500)).await;
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    let problem: Problem = answer.json().await.unwrap();
    assert_eq!(problem.code, "service_unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_the_database_and_liveness_does_not() {
    let (mut way, url) = Way::to_database().await;
    let (lifecycle, Addresses { http, admin, .. }, _) = start(url, 4).await;
    let client = client();
    let (api, probe) = (format!("http://{http}/one"), |name: &str| format!("http://{admin}/{name}"));
    let prompt = Duration::from_millis(2500); // what a probe waits for the database, and a little
    let status = async |name: &str| ask(&client, &probe(name), prompt).await.status().as_u16();
    let becomes = async |wanted: u16| {
        testing::eventually(&format!("readiness to become {wanted}"), async || {
            (status("readyz").await == wanted).then_some(())
        })
        .await;
    };

    for _ in 0..2 {
        becomes(200).await;
        assert_eq!(ask(&client, &api, prompt).await.text().await.unwrap(), "1");
        way.close().await;
        becomes(503).await;
        refused_for_now(&client, &api).await;
        assert_eq!((status("livez").await, status("startupz").await), (200, 200));
        assert_eq!(status("readyz").await, 503, "as long as it is away");
        way.open_again().await;
    }
    becomes(200).await;
    assert_eq!(ask(&client, &api, prompt).await.text().await.unwrap(), "1");
    assert!(lifecycle.shutdown(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_long_outage_each_connection_is_to_be_had_again() {
    let (mut way, url) = Way::to_database().await;
    let (_lifecycle, _, pool) = start(url, 4).await;
    way.close().await;
    // More than twice as long as opening a connection may take.
    let until = Instant::now() + Duration::from_secs(12);
    let mut asking = JoinSet::new();
    for _ in 0..8 {
        let pool = pool.clone();
        asking.spawn(async move {
            while Instant::now() < until {
                assert!(sqlx::query("SELECT 1").execute(&pool).await.is_err(), "the database is away");
            }
        });
    }
    asking.join_all().await;
    way.open_again().await;
    let back = Instant::now();
    let mut held = Vec::new();
    while held.len() < 4 {
        held.extend(pool.acquire().await.ok());
        assert!(back.elapsed() < Duration::from_secs(30), "only {} after {:?}", held.len(), back.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_connections_are_taken_requests_are_refused_in_a_second_and_the_service_stays_ready() {
    let (_lifecycle, Addresses { http, admin, .. }, pool) = start(testing::database("unused").await, 2).await;
    let api = format!("http://{http}/one");
    let client = client();
    let held = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
    let asked = Instant::now();
    let mut waiting = JoinSet::new();
    for _ in 0..8 {
        let (client, api) = (client.clone(), api.clone());
        waiting.spawn(async move { refused_for_now(&client, &api).await });
    }
    waiting.join_all().await;
    assert!(asked.elapsed() > Duration::from_millis(900), "a connection may come free meanwhile");
    assert_eq!(ask(&client, &format!("http://{admin}/readyz"), Duration::from_secs(1)).await.status(), 200);
    drop(held);
    assert_eq!(ask(&client, &api, Duration::from_secs(1)).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_takes_longer_to_open_than_anybody_waits_is_opened_all_the_same() {
    let (mut way, url) = Way::to_database().await;
    let (_lifecycle, _, pool) = start(url.clone(), 2).await;
    // Greeting, password, settings: five answers or more.
    way.delay.store(350, Ordering::Relaxed);
    way.close().await;
    way.open_again().await;

    let asked = Instant::now();
    assert!(matches!(pool.acquire().await, Err(sqlx::Error::PoolTimedOut)));
    // Whoever waits for the opening itself waits five.
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    drop(testing::eventually("a connection to be there", async || pool.acquire().await.ok()).await);

    // By itself, sqlx begins anew each time, and never gets anywhere.
    let bare = sqlx::postgres::PgPoolOptions::new().acquire_timeout(Duration::from_secs(1));
    let bare = bare.connect_lazy(&url).unwrap();
    for _ in 0..4 {
        assert!(matches!(bare.acquire().await, Err(sqlx::Error::PoolTimedOut)));
    }
}
