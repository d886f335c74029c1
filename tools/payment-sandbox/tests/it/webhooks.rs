//! Events: signed, retried, delivered at least once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{DEADLINE, Sandbox, id};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

/// A webhook that answers with the given statuses first, then 200.
#[derive(Clone, Default)]
struct Receiver {
    received: Arc<Mutex<Vec<(String, String)>>>,
    refusals: Arc<Mutex<VecDeque<StatusCode>>>,
}

impl Receiver {
    async fn start() -> (Self, String) {
        let receiver = Self::default();
        let app = Router::new().route("/hook", post(receive)).with_state(receiver.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        (receiver, url)
    }

    fn refuse(&self, times: usize) {
        let mut refusals = self.refusals.lock().expect("the refusals");
        refusals.clear();
        refusals.extend(vec![StatusCode::SERVICE_UNAVAILABLE; times]);
    }

    /// Waits for that many calls; returns the events, their signatures checked.
    async fn events(&self, count: usize) -> Vec<Value> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let received = self.received.lock().expect("the events").clone();
            if received.len() >= count {
                return received.iter().map(|(signature, body)| checked(signature, body)).collect();
            }
            assert!(Instant::now() < deadline, "{} of {count} events", received.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> StatusCode {
    let signature = headers["Stripe-Signature"].to_str().expect("ASCII").to_owned();
    receiver.received.lock().expect("the events").push((signature, body));
    receiver.refusals.lock().expect("the refusals").pop_front().unwrap_or(StatusCode::OK)
}

fn checked(signature: &str, body: &str) -> Value {
    let (time, given) = signature.split_once(",v1=").expect("t=...,v1=...");
    let time = time.strip_prefix("t=").expect("t=");
    let mut mac = Hmac::<Sha256>::new_from_slice(b"whsec_test").expect("any length");
    mac.update(format!("{time}.{body}").as_bytes());
    mac.verify_slice(&hex::decode(given).expect("hex")).expect("the signature fits");
    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    let time: u64 = time.parse().expect("Unix seconds");
    assert!(now.abs_diff(time) < 60, "{time}");
    serde_json::from_str(body).expect("JSON")
}

async fn start(url: &str) -> Sandbox {
    Sandbox::with(|config| config.webhook_url = Some(url.into())).await
}

/// The log's lines that end a delivery.
fn ended(sandbox: &Sandbox) -> Vec<Value> {
    let log = std::fs::read_to_string(sandbox.log_file()).expect("the log");
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.map(|line| line["webhook"].clone()).filter(|webhook| !webhook.is_null()).collect()
}

async fn until_ended(sandbox: &Sandbox, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let ended = ended(sandbox);
        if ended.len() >= count {
            return ended;
        }
        assert!(Instant::now() < deadline, "{} of {count} deliveries ended", ended.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn each_change_of_a_payment_is_sent_signed_and_once() {
    let (receiver, url) = Receiver::start().await;
    let sandbox = start(&url).await;
    let api = &sandbox.client;
    let paid = api.captured("pm_card_visa").await;
    api.post("/v1/refunds", &[("payment_intent", id(&paid)), ("amount", "100")]).await;
    let declined = api.intent("pm_card_chargeDeclined").await;
    api.post(&format!("{declined}/confirm"), &[]).await;
    api.post(&format!("{declined}/cancel"), &[]).await;
    until_ended(&sandbox, 6).await;

    let events = receiver.events(6).await;
    assert_eq!(events.len(), 6);
    let of = |kind: &str| {
        let mut found = events.iter().filter(|event| event["type"] == kind);
        let event = found.next().unwrap_or_else(|| panic!("no {kind} in {events:?}"));
        assert!(found.next().is_none(), "{kind} came twice");
        assert!(event["id"].as_str().unwrap().starts_with("evt_"));
        assert_eq!(event["object"], "event");
        event["data"]["object"].clone()
    };
    let authorized = of("payment_intent.amount_capturable_updated");
    assert_eq!((&authorized["id"], &authorized["amount_capturable"]), (&id(&paid).into(), &2500.into()));
    assert_eq!(of("payment_intent.succeeded")["amount_received"], 2500);
    assert_eq!(of("payment_intent.payment_failed")["last_payment_error"]["code"], "card_declined");
    assert_eq!(of("payment_intent.canceled")["id"], id(&declined));
    assert_eq!(of("refund.created")["amount"], 100);
    let charge = of("charge.refunded");
    assert_eq!((&charge["payment_intent"], &charge["amount_refunded"]), (&id(&paid).into(), &100.into()));
    let ids: std::collections::HashSet<_> = events.iter().map(|event| event["id"].to_string()).collect();
    assert_eq!(ids.len(), 6);
}

#[tokio::test]
async fn a_refused_event_is_sent_again_until_it_is_taken() {
    let (receiver, url) = Receiver::start().await;
    receiver.refuse(2);
    let sandbox = start(&url).await;
    sandbox.client.authorized("pm_card_visa").await;
    let ended = until_ended(&sandbox, 1).await;
    let events = receiver.events(3).await;
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|event| *event == events[0]), "the same event each time: {events:?}");
    assert_eq!(ended, [serde_json::json!({ "event": events[0]["id"], "delivered": true })]);
}

#[tokio::test]
async fn an_undelivered_event_survives_a_restart() {
    let (receiver, url) = Receiver::start().await;
    receiver.refuse(1000);
    let sandbox = start(&url).await;
    sandbox.client.authorized("pm_card_visa").await;
    let first = receiver.events(1).await.remove(0);
    assert_eq!(ended(&sandbox), Vec::<Value>::new());

    let dir = sandbox.restart().await;
    receiver.refuse(0);
    let ended_once = until_ended(&dir, 1).await;
    let events = receiver.events(2).await;
    assert_eq!(events.last(), Some(&first));
    assert_eq!(ended_once[0]["event"], first["id"]);

    // A delivered event is not sent again: the next one to arrive is a new one.
    let seen = receiver.events(2).await.len();
    let sandbox = dir.restart().await;
    sandbox.client.captured("pm_card_visa").await;
    until_ended(&sandbox, 3).await;
    let later = receiver.events(seen + 2).await;
    assert_eq!(later.len(), seen + 2);
    assert!(later[seen..].iter().all(|event| event["id"] != first["id"]), "{later:?}");
}

#[tokio::test]
async fn a_webhook_that_is_set_up_later_gets_no_events_of_the_past() {
    let (receiver, url) = Receiver::start().await;
    let mut sandbox = Sandbox::start().await;
    sandbox.client.captured("pm_card_visa").await;
    sandbox.config.webhook_url = Some(url);
    let sandbox = sandbox.restart().await;
    let new = sandbox.client.authorized("pm_card_visa").await;
    until_ended(&sandbox, 1).await;
    let events = receiver.events(1).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["data"]["object"]["id"], id(&new));
}
