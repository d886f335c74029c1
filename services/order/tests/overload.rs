//! When there is too much to do, who comes is told so at once.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

mod common;

use std::time::{Duration, Instant};

use common::{Shop, order_of, send};
use reqwest::{Method, RequestBuilder};
use sqlx::{Postgres, Transaction};
use testing::eventually;

/// Looks at a cart wait behind it, each with a connection, until lock_timeout.
async fn gate(shop: &Shop) -> Transaction<'static, Postgres> {
    let mut gate = service::db::begin(&shop.pool).await.unwrap();
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

/// 503, to come again in a second, and how long that took to say.
async fn refused(request: RequestBuilder) -> Duration {
    let asked = Instant::now();
    let answer = send(request).await;
    assert_eq!(answer.problem(), (503, "service_unavailable"), "{}", answer.body);
    assert_eq!(answer.headers["retry-after"], "1");
    asked.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_free_connection_a_request_is_refused_within_a_second_and_a_half() {
    let shop = Shop::open_with(&["--database-connections=3"]).await;
    let buyer = shop.customer();
    let gate = gate(&shop).await;
    let held: Vec<_> = (0..3).map(|_| tokio::spawn(send(buyer.request(Method::GET, "/cart")))).collect();
    waiting(&shop, 3).await;
    let order = order_of(shop.stock.add(100, 10), 1, "pm_card_visa");
    let order = buyer.request(Method::POST, "/orders").header("Idempotency-Key", "k").json(&order);
    for request in [order, buyer.request(Method::GET, "/orders"), buyer.request(Method::DELETE, "/cart")] {
        let took = refused(request).await;
        assert!(took < Duration::from_millis(1500), "{took:?}");
    }
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
    let took = refused(request()).await;
    assert!(took < Duration::from_millis(500), "{took:?}");
    gate.rollback().await.unwrap();
    for held in held {
        assert_eq!(held.await.unwrap().status, 200);
    }
    let answer = send(request()).await;
    assert_eq!((answer.status.as_u16(), answer.replayed()), (201, false), "{}", answer.body);
}
