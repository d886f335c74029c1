//! An order's events over HTTP.

use std::time::Duration;

use crate::common::{Buyer, Shop, order_of};
use identity::{AUDIENCE, Claims, ISSUER, Role, TOKEN_TYPE};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

/// An open stream of events.
struct Stream {
    response: Response,
    text: String,
}

#[derive(Debug)]
struct Event {
    id: i64,
    status: String,
    order: Value,
}

impl Stream {
    async fn open(buyer: &Buyer<'_>, order: &str, last: Option<i64>) -> Self {
        Self::of(buyer.request(Method::GET, &format!("/orders/{order}/events")), last).await
    }

    async fn of(mut request: RequestBuilder, last: Option<i64>) -> Self {
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last.to_string());
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next event; `None` when the stream has ended.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                if !event.starts_with(':') {
                    return Some(parse(&event));
                }
                continue;
            }
            let chunk = tokio::time::timeout(Duration::from_secs(10), self.response.chunk()).await;
            let chunk = chunk.expect("something arrives in time").expect("an intact stream")?;
            self.text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
        }
    }
}

fn parse(event: &str) -> Event {
    let lines: Vec<(&str, &str)> =
        event.lines().map(|line| line.split_once(": ").expect("a field")).collect();
    assert_eq!(lines.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["id", "event", "data"]);
    assert_eq!(lines[1].1, "status");
    let order: Value = serde_json::from_str(lines[2].1).expect("JSON");
    let status = order["status"].as_str().unwrap_or_default().to_owned();
    Event { id: lines[0].1.parse().expect("a version"), status, order }
}

fn parcel() -> Value {
    json!({"carrier": "Tern", "tracking_number": "T-1"})
}

#[tokio::test]
async fn history_comes_first_then_what_happens_and_the_stream_ends_with_the_order() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy(thing, 1).await;
    let path = format!("/orders/{id}");
    let mut stream = Stream::open(&buyer, &id, None).await;
    let first = stream.next().await.unwrap();
    assert_eq!((first.status.as_str(), &first.order["payment"]["status"]), ("pending", &json!("pending")));
    assert_eq!(first.order["history"].as_array().unwrap().len(), 1);
    let second = stream.next().await.unwrap();
    assert_eq!(second.order, buyer.get(&path).await.body, "as GET shows it to this caller");

    staff.post_json(&format!("{path}/ship"), parcel()).await;
    let shipped = stream.next().await.unwrap();
    assert_eq!((shipped.status.as_str(), &shipped.order["tracking"]), ("shipped", &parcel()));
    assert_eq!(shipped.order["next_actions"], json!([]));
    // Staff see what staff may do.
    let mut theirs = Stream::open(&staff, &id, Some(second.id)).await;
    let event = theirs.next().await.unwrap();
    assert_eq!((event.id, &event.order["next_actions"]), (shipped.id, &json!(["deliver", "refund"])));

    staff.post(&format!("{path}/deliver")).await;
    assert_eq!(stream.next().await.unwrap().status, "delivered");
    assert!(stream.next().await.is_none());
    assert_eq!(theirs.next().await.unwrap().status, "delivered");
    assert!(theirs.next().await.is_none());

    // All of it again, the rest of it, and nothing more to come.
    let mut again = Stream::open(&buyer, &id, None).await;
    let mut all = Vec::new();
    while let Some(event) = again.next().await {
        all.push(event);
    }
    let seen: Vec<&str> = all.iter().map(|event| event.status.as_str()).collect();
    assert_eq!(seen, ["pending", "confirmed", "shipped", "delivered"]);
    assert!(all.is_sorted_by(|a, b| a.id < b.id));
    assert_eq!(all[1].order["tracking"], Value::Null);
    // What no event was called is nothing seen.
    for unknown in ["", "x", "-1", "1.5", "1000", "9223372036854775807", "99999999999999999999"] {
        let request = buyer.request(Method::GET, &format!("{path}/events"));
        let mut stream = Stream::of(request.header("Last-Event-ID", unknown), None).await;
        assert_eq!(stream.next().await.unwrap().status, "pending", "{unknown}");
    }
    let last = all[3].id;
    let over =
        buyer.request(Method::GET, &format!("{path}/events")).header("Last-Event-ID", last.to_string());
    assert_eq!(crate::common::send(over).await.status, 204);
}

#[tokio::test]
async fn a_cancellation_ends_the_stream_and_says_why() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let buyer = shop.customer();
    for (card, reason) in [("pm_card_chargeDeclined", "payment_declined"), ("pm_card_hang", "customer")] {
        let id = buyer.place(&order_of(thing, 1, card)).await.id();
        let mut stream = Stream::open(&buyer, &id, None).await;
        let first = stream.next().await.unwrap();
        assert_eq!((first.status.as_str(), &first.order["cancel_reason"]), ("pending", &Value::Null));
        if reason == "customer" {
            assert_eq!(buyer.post(&format!("/orders/{id}/cancel")).await.status, 200);
        }
        let last = stream.next().await.unwrap();
        assert_eq!((last.status.as_str(), &last.order["cancel_reason"]), ("cancelled", &json!(reason)));
        assert_eq!((&last.order["id"], &last.order["next_actions"]), (&json!(id), &json!([])));
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test]
async fn streams_are_for_the_owner_and_staff_and_bounded() {
    let shop = Shop::open_with(&["--event-listeners=1"]).await;
    let thing = shop.stock.add(1000, 10);
    let buyer = shop.customer();
    let id = buyer.place(&order_of(thing, 1, "pm_card_hang")).await.id();
    let path = format!("/orders/{id}/events");
    assert_eq!(shop.anonymous(Method::GET, &path).await, (401, "missing_token".to_owned()));
    assert_eq!(shop.customer().get(&path).await.problem(), (404, "not_found"));
    assert_eq!(buyer.get(&format!("/orders/{}/events", Uuid::now_v7())).await.problem(), (404, "not_found"));
    let stream = Stream::open(&buyer, &id, None).await;
    let refused = buyer.get(&path).await;
    assert_eq!(refused.problem(), (503, "service_unavailable"));
    assert!(refused.headers.contains_key("retry-after"));
    drop(stream);
    let free = || async {
        let request = buyer.request(Method::GET, &path).send().await.unwrap();
        (request.status() == 200).then_some(())
    };
    testing::eventually("the place to be free again", free).await;
}

#[tokio::test]
async fn open_streams_do_not_hold_up_a_shutdown() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let buyer = shop.customer();
    let id = buyer.buy(thing, 1).await;
    let mut stream = Stream::open(&buyer, &id, None).await;
    assert!(stream.next().await.is_some() && stream.next().await.is_some());
    shop.close().await;
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn replicas_learn_of_each_others_changes_and_take_over_each_others_listeners() {
    // Polling would come too late for a stream, which is waited for ten seconds.
    let shop = Shop::open_with(&["--event-poll-seconds=30"]).await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let (base, replica) = shop.replica().await;
    let at_replica =
        |id: &str| shop.client.get(format!("{base}/orders/{id}/events")).bearer_auth(&buyer.token);
    let mut streams = Vec::new();
    for _ in 0..3 {
        let id = buyer.buy(thing, 1).await;
        let mut stream = Stream::of(at_replica(&id), None).await;
        assert_eq!(stream.next().await.unwrap().status, "pending");
        let confirmed = stream.next().await.unwrap();
        assert_eq!(confirmed.status, "confirmed");
        streams.push((id, confirmed.id, stream));
    }
    for (id, _, stream) in &mut streams {
        staff.post_json(&format!("/orders/{id}/ship"), parcel()).await;
        assert_eq!(stream.next().await.unwrap().status, "shipped");
    }

    assert!(replica.shutdown(Duration::from_secs(15)).await);
    for (id, seen, mut stream) in streams {
        assert!(stream.next().await.is_none());
        let mut stream = Stream::open(&buyer, &id, Some(seen)).await;
        let shipped = stream.next().await.unwrap();
        assert_eq!((shipped.status.as_str(), shipped.id > seen), ("shipped", true));
    }
}

#[tokio::test]
async fn a_stream_ends_when_the_access_token_runs_out() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let mut buyer = shop.customer();
    let id = buyer.buy(thing, 1).await;
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: AUDIENCE.to_owned(),
        sub: buyer.id,
        sid: Uuid::now_v7(),
        role: Role::Customer,
        iat: now,
        exp: now + 2,
        jti: Uuid::now_v7(),
    };
    buyer.token = shop.issuer.sign(TOKEN_TYPE, &claims);
    let mut stream = Stream::open(&buyer, &id, None).await;
    assert!(stream.next().await.is_some() && stream.next().await.is_some());
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_replica_whose_connection_ended_listens_again() {
    // Polling would come too late for a stream, which is waited for ten seconds.
    let shop = Shop::open_with(&["--event-poll-seconds=30"]).await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let mut streams = Vec::new();
    for _ in 0..3 {
        let id = buyer.buy(thing, 1).await;
        let mut stream = Stream::open(&buyer, &id, None).await;
        assert!(stream.next().await.is_some() && stream.next().await.is_some());
        streams.push((id, stream));
    }
    let listeners = async || -> Vec<i32> {
        let query = "SELECT pid FROM pg_stat_activity
                     WHERE datname = current_database() AND query LIKE 'LISTEN%'";
        sqlx::query_scalar(query).fetch_all(&shop.pool).await.unwrap()
    };
    let before = listeners().await;
    assert_eq!(before.len(), 1);
    let ended = sqlx::query("SELECT pg_terminate_backend($1)").bind(before[0]);
    ended.execute(&shop.pool).await.unwrap();
    testing::eventually("it to listen anew", async || {
        let now = listeners().await;
        (now.len() == 1 && now != before).then_some(())
    })
    .await;
    for (id, stream) in &mut streams {
        staff.post_json(&format!("/orders/{id}/ship"), parcel()).await;
        assert_eq!(stream.next().await.unwrap().status, "shipped");
    }
}

#[tokio::test]
async fn a_change_that_was_not_notified_is_found_by_polling() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let buyer = shop.customer();
    let id = buyer.buy(thing, 1).await;
    let mut stream = Stream::open(&buyer, &id, None).await;
    assert!(stream.next().await.is_some() && stream.next().await.is_some());
    // Another replica wrote, and died before it could say so.
    sqlx::query(SHIP).bind(id.parse::<Uuid>().unwrap()).execute(&shop.pool).await.unwrap();
    // The shop is never silent.
    let others = async {
        loop {
            let notify =
                sqlx::query("SELECT pg_notify('orders_changed', $1)").bind(Uuid::now_v7().to_string());
            notify.execute(&shop.pool).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = others => unreachable!("they go on for ever"),
        event = stream.next() => assert_eq!(event.unwrap().status, "shipped"),
    }
}

const SHIP: &str =
    "WITH moved AS (UPDATE orders.orders SET status = 'shipped', version = version + 1 WHERE id = $1
                    RETURNING id, version)
     INSERT INTO orders.order_history (order_id, version, status) SELECT id, version, 'shipped' FROM moved";

#[tokio::test]
async fn a_change_while_an_order_is_read_is_not_seen_in_part() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let buyer = shop.customer();
    let id = buyer.buy(thing, 1).await;
    let path = format!("/orders/{id}");
    // Commits when the readers have the order and not yet its history.
    let mut ship = testing::begin(&shop.pool).await;
    sqlx::query("LOCK TABLE orders.order_history").execute(&mut *ship).await.unwrap();
    sqlx::query(SHIP).bind(id.parse::<Uuid>().unwrap()).execute(&mut *ship).await.unwrap();
    let stream = tokio::spawn(buyer.request(Method::GET, &format!("{path}/events")).send());
    let read = tokio::spawn(crate::common::send(buyer.request(Method::GET, &path)));
    let waiting = || async {
        let query = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock'
                       AND starts_with(query, 'SELECT order_id, version, status')";
        let waiting: i64 = sqlx::query_scalar(query).fetch_one(&shop.pool).await.unwrap();
        (waiting == 2).then_some(())
    };
    testing::eventually("both readers to wait for the history", waiting).await;
    ship.commit().await.unwrap();

    let order = read.await.unwrap().body;
    assert_eq!((&order["status"], order["history"].as_array().unwrap().len()), (&json!("confirmed"), 2));
    let mut stream = Stream { response: stream.await.unwrap().unwrap(), text: String::new() };
    for status in ["pending", "confirmed", "shipped"] {
        let event = stream.next().await.unwrap();
        assert_eq!((event.status.as_str(), &event.order["status"]), (status, &json!(status)));
        assert_eq!(event.order["history"].as_array().unwrap().last().unwrap()["status"], status);
    }
}

#[tokio::test]
async fn a_ticket_follows_one_order_once_and_as_who_got_it() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let (order, other) = (buyer.buy(thing, 1).await, buyer.buy(thing, 1).await);
    let ticket = async |who: &Buyer<'_>, order: &str| {
        let answer = who.post(&format!("/orders/{order}/event-tickets")).await;
        assert_eq!(
            (answer.status, &answer.headers["cache-control"]),
            (StatusCode::CREATED, &"no-store".parse().unwrap())
        );
        answer.body["ticket"].as_str().unwrap().to_owned()
    };
    // As a browser asks: without a header.
    let by = |ticket: &str, order: &str| {
        shop.client.get(format!("{}/orders/{order}/events?ticket={ticket}", shop.base))
    };
    let refused = async |ticket: &str, order: &str| {
        let answer = crate::common::send(by(ticket, order)).await;
        assert_eq!(answer.problem(), (401, "invalid_ticket"), "{}", answer.body);
    };

    let mine = ticket(&buyer, &order).await;
    let mut stream = Stream::of(by(&mine, &order), None).await;
    stream.next().await.unwrap();
    assert_eq!(stream.next().await.unwrap().order["next_actions"], json!(["cancel"]));
    refused(&mine, &order).await; // it was used
    let theirs = ticket(&staff, &order).await;
    refused(&theirs, &other).await; // another order's
    let mut stream = Stream::of(by(&theirs, &order), None).await;
    stream.next().await.unwrap();
    assert_eq!(stream.next().await.unwrap().order["next_actions"], json!(["cancel", "ship", "refund"]));

    let late = ticket(&buyer, &order).await;
    let old = "UPDATE orders.stream_tickets SET expires_at = now() - interval '1 second'";
    sqlx::query(old).execute(&shop.pool).await.unwrap();
    refused(&late, &order).await;
    for invented in ["", "x", &"A".repeat(43), &"A".repeat(10_000)] {
        refused(invented, &order).await;
    }
    // Who may not see the order gets none, and those that have expired are deleted.
    let strangers = shop.customer().post(&format!("/orders/{order}/event-tickets")).await;
    assert_eq!(strangers.problem(), (404, "not_found"));
    let expired = ticket(&buyer, &order).await;
    sqlx::query(old).execute(&shop.pool).await.unwrap();
    let kept = ticket(&buyer, &order).await;
    assert_ne!(kept, expired);
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM orders.stream_tickets").fetch_one(&shop.pool).await.unwrap();
    assert_eq!(left, 1);
}
