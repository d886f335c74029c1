//! Under overload, new requests are refused at once.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use std::time::Duration;

use crate::common::{Shop, order_of, send};
use reqwest::{Method, RequestBuilder};
use sqlx::{Postgres, Transaction};
use testing::eventually;

/// Reads of a cart that wait for it, each with a connection, until lock_timeout.
async fn gate(shop: &Shop) -> Transaction<'static, Postgres> {
    let mut gate = testing::begin(&shop.pool).await;
    sqlx::query("LOCK TABLE orders.cart_items IN ACCESS EXCLUSIVE MODE").execute(&mut *gate).await.unwrap();
    gate
}

/// Until so many wait at the gate.
async fn waiting(shop: &Shop, wanted: i64) {
    let waiting = || async {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%cart_items%'",
        )
        .fetch_one(&shop.pool)
        .await
        .unwrap();
        (waiting == wanted).then_some(())
    };
    eventually(&format!("{wanted} requests to wait"), waiting).await;
}

/// 503, to come again in a second.
async fn refused(request: RequestBuilder) {
    let answer = send(request).await;
    assert_eq!(answer.problem(), (503, "service_unavailable"), "{}", answer.body);
    assert_eq!(answer.headers["retry-after"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_free_connection_a_request_is_refused_before_one_comes_free() {
    let shop = Shop::open_with(&["--database-connections=3"]).await;
    let buyer = shop.customer();
    let gate = gate(&shop).await;
    let held: Vec<_> = (0..3).map(|_| tokio::spawn(send(buyer.request(Method::GET, "/cart")))).collect();
    waiting(&shop, 3).await;
    let order = order_of(shop.stock.add(100, 10), 1, "pm_card_visa");
    let order = buyer.request(Method::POST, "/orders").header("Idempotency-Key", "k").json(&order);
    let requests = [order, buyer.request(Method::GET, "/orders"), buyer.request(Method::DELETE, "/cart")];
    for refusal in requests.map(|request| tokio::spawn(refused(request))) {
        refusal.await.unwrap();
    }
    assert!(held.iter().all(|held| !held.is_finished()), "a connection came free meanwhile");
    gate.rollback().await.unwrap();
    for held in held {
        assert_eq!(held.await.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_too_many_is_refused_at_once_and_leaves_its_key_free() {
    let shop = Shop::open_with(&["--requests-at-once=2"]).await;
    let buyer = shop.customer();
    let gate = gate(&shop).await;
    let held: Vec<_> = (0..2).map(|_| tokio::spawn(send(buyer.request(Method::GET, "/cart")))).collect();
    waiting(&shop, 2).await;
    let order = order_of(shop.stock.add(100, 10), 1, "pm_card_visa");
    let request = || buyer.request(Method::POST, "/orders").header("Idempotency-Key", "k").json(&order);
    refused(request()).await;
    assert!(held.iter().all(|held| !held.is_finished()), "a place came free meanwhile");
    gate.rollback().await.unwrap();
    for held in held {
        assert_eq!(held.await.unwrap().status, 200);
    }
    let answer = send(request()).await;
    assert_eq!((answer.status.as_u16(), answer.replayed()), (201, false), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_too_many_orders_wait_for_a_worker_new_ones_are_refused_and_nothing_else_is() {
    let shop = Shop::open().await;
    let (buyer, product) = (shop.customer(), shop.stock.add(100, 1000));
    let order = order_of(product, 1, "pm_card_visa");
    let request =
        |key: &str| buyer.request(Method::POST, "/orders").header("Idempotency-Key", key).json(&order);
    // All 64 workers get stuck with one order each, and 128 may wait behind them.
    shop.stock.lock().hangs = true;
    let (mut placed, mut sent, mut refused) = (0, 0, None);
    while refused.is_none() {
        assert!(placed < 600, "nothing is refused");
        let keys = (sent..sent + 8).map(|n| format!("k{n}"));
        sent += 8;
        let batch: Vec<_> = keys.map(|key| (tokio::spawn(send(request(&key))), key)).collect();
        for (answer, key) in batch {
            let answer = answer.await.unwrap();
            match answer.status.as_u16() {
                201 => placed += 1,
                _ => refused = Some((key, answer)),
            }
        }
    }
    let (key, refused) = refused.unwrap();
    assert_eq!(refused.problem(), (503, "service_unavailable"), "{}", refused.body);
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(refused.body["detail"].as_str().unwrap().contains("wait for their payment"), "{}", refused.body);
    assert!(placed >= 64 + 128, "refused when only {placed} orders were placed");
    for other in [buyer.request(Method::GET, "/orders"), buyer.request(Method::GET, "/cart")] {
        assert_eq!(send(other).await.status, 200);
    }

    shop.stock.lock().hangs = false;
    let again = || async {
        let answer = send(request(&key)).await;
        (answer.status == 201).then(|| assert!(!answer.replayed(), "a refusal was stored"))
    };
    eventually("an order to be taken again", again).await;
    let confirmed = || async {
        let sql = "SELECT count(*) FROM orders.orders WHERE status = 'confirmed'";
        let count: i64 = sqlx::query_scalar(sql).fetch_one(&shop.pool).await.unwrap();
        (count == placed + 1).then_some(())
    };
    testing::within(Duration::from_secs(90), "all of them to be confirmed", confirmed).await;
}
