//! A shop of a few lines, that is as slow, as full or as wrong as a test wants it.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use load::Refusal;
use load::accounts::Accounts;
use load::generator::{Generator, Outcome};
use load::goods::Goods;
use load::http::Client;
use load::plan::{Follow, Limits, Loop, Mix, Plan, Stage};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const PRODUCT: &str = "018f5c3e-7a00-7000-8000-000000000002";

/// How it behaves.
#[derive(Default)]
pub struct Fake {
    /// Between these, nothing is answered.
    pub stall: Mutex<Option<(Instant, Instant)>>,
    /// What a path, up to its query, is answered with in place of the usual.
    pub instead: Mutex<HashMap<String, (u16, Value)>>,
    /// How often an order reads `pending` before it reads its end.
    pub pending: u64,
    /// The end of every order.
    pub end: Option<&'static str>,
    /// How long each answer takes.
    pub slow: Duration,
    pub requests: AtomicU64,
    pub at_once: AtomicU64,
    pub most_at_once: AtomicU64,
    /// How often each was read.
    pub orders: Mutex<HashMap<String, u64>>,
}

impl Fake {
    /// Serves on a free port; its address.
    pub async fn serve(self) -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fake = Arc::new(self);
        let serving = fake.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().connection(stream));
            }
        });
        (fake, url)
    }

    async fn connection(self: Arc<Self>, mut stream: TcpStream) {
        let mut read = Vec::new();
        loop {
            let head = loop {
                if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                    break String::from_utf8(read.drain(..end + 4).collect()).unwrap();
                }
                if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                    return;
                }
            };
            let length = head.to_lowercase();
            let length = length.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            while read.len() < length {
                if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            read.drain(..length);
            let line: Vec<&str> = head.split_whitespace().take(2).collect();
            let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
            self.requests.fetch_add(1, Ordering::SeqCst);
            self.wait().await;
            let answer = self.answer(line[0], line[1]);
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            let ends = answer.contains("event-stream");
            if stream.write_all(answer.as_bytes()).await.is_err() || ends {
                return;
            }
        }
    }

    async fn wait(&self) {
        let stall = *self.stall.lock().unwrap();
        if let Some((from, to)) = stall.filter(|(from, _)| Instant::now() >= *from) {
            assert!(from <= to);
            tokio::time::sleep_until(to.into()).await;
        }
        tokio::time::sleep(self.slow).await;
    }

    fn answer(&self, method: &str, path: &str) -> String {
        let path = path.split('?').next().unwrap_or_default();
        if let Some((status, body)) = self.instead.lock().unwrap().get(path) {
            return whole(*status, body);
        }
        let product = json!({"id": PRODUCT, "name": "Storm Lantern", "price": {"amount": 1, "currency": "EUR"},
                             "stock": {"available": 5}});
        match (method, path.strip_prefix("/api/v1/").unwrap_or_default()) {
            ("POST", "auth/register") => whole(201, &json!({})),
            ("POST", "auth/login") => {
                whole(200, &json!({"access_token": "a", "refresh_token": "r", "expires_in": 900}))
            }
            ("GET", "products") => whole(200, &json!({"items": [product], "next_cursor": null})),
            ("POST", "orders") => {
                let mut orders = self.orders.lock().unwrap();
                let id = format!("018f5c3e-7a00-7000-8000-{:012}", orders.len());
                orders.insert(id.clone(), 0);
                whole(201, &json!({"id": id, "status": "pending", "cancel_reason": null}))
            }
            ("GET", order) if order.starts_with("orders/") && order.ends_with("/events") => {
                let event = |status: &str| format!("event: status\ndata: {}\n\n", json!({"status": status}));
                let end = self.end.map(event).unwrap_or_default();
                format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{}{end}", event("pending"))
            }
            ("GET", order) if order.starts_with("orders/") => {
                let id = &order["orders/".len()..];
                let mut orders = self.orders.lock().unwrap();
                let reads = orders.get_mut(id).unwrap();
                *reads += 1;
                let ended = self.end.filter(|_| *reads > self.pending);
                whole(
                    200,
                    &json!({"id": id, "status": ended.unwrap_or("pending"), "cancel_reason": "payment_declined"}),
                )
            }
            _ => whole(200, &product),
        }
    }
}

fn whole(status: u16, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// So many a second, or at once, for so long, who only buy; without thinking.
pub fn plan(kind: Loop, level: f64, time: Duration) -> Plan {
    Plan {
        kind,
        stages: vec![Stage { name: "only".to_owned(), from: level, to: level, length: time, counts: true }],
        mix: "order=1".parse::<Mix>().unwrap(),
        think: Duration::ZERO,
        seed: 1,
        follow: Follow::None,
        payment_method: "pm_card_visa".to_owned(),
        in_flight: 1000,
        confirm_within: Duration::from_secs(20),
        // Tests share a machine with others: what they assert does not hang on its speed.
        limits: Limits { p99: 60.0, errors: 1.0, lag: 60.0 },
    }
}

pub async fn generator(url: &str, plan: Plan) -> Result<Generator, Refusal> {
    let client = Arc::new(Client::new(url, Duration::from_secs(20)).await?);
    load::shop::is_a_shop(&client, url).await?;
    let goods = Goods::listed(&client).await?;
    let accounts = Accounts::register(&client, 4, |_| {}).await?;
    Ok(Generator { client, accounts: Arc::new(accounts), goods: Arc::new(goods), plan })
}

pub async fn run(url: &str, plan: Plan) -> Outcome {
    generator(url, plan).await.unwrap().run(std::future::pending(), |_| {}).await
}
