//! Processes die without a warning; no order is lost, doubled or oversold.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use system_tests::{Shop, eventually, send};
use uuid::Uuid;

/// Until a killed service answers again.
async fn back(shop: &Shop) {
    let answers = || async {
        let cart = send(shop.request(Method::GET, "/cart")).await.ok()?;
        let products = send(shop.request(Method::GET, "/products?limit=1")).await.ok()?;
        (cart.status == 401 && products.status == 200).then_some(())
    };
    eventually("the services to be back", Duration::from_secs(30), answers).await;
}

#[tokio::test]
async fn an_order_survives_the_death_of_its_service_between_reservation_and_payment() {
    let shop = Shop::open().await;
    let product = shop.product(5).await;
    let buyer = shop.customer().await;
    // The provider takes three seconds: long enough to die in.
    let order = buyer.place(product, 2, "pm_card_slow").await;
    shop.kill("order");
    let ended = buyer.ended(&order).await;
    assert_eq!((&ended["status"], &ended["payment"]["status"]), (&json!("confirmed"), &json!("captured")));
    let ledger = shop.ledger(&order).await;
    assert_eq!((&ledger["captured"], &ledger["captures"]), (&json!(2500), &json!(1)), "{ledger}");
    assert_eq!(shop.stock(product).await, (3, 0));
}

#[tokio::test]
async fn a_reservation_made_by_a_dead_request_is_taken_over_by_its_retry() {
    let shop = Shop::open().await;
    let product = shop.product(5).await;
    let buyer = shop.customer().await;
    let key = Uuid::now_v7().to_string();
    // Holds the request up between its reservation and its order.
    let mut gate = shop.transaction().await;
    sqlx::query("LOCK TABLE orders.orders IN SHARE MODE").execute(&mut *gate).await.unwrap();
    let request = tokio::spawn(send(buyer.order(&key, product, 2, "pm_card_visa")));
    shop.eventually("SELECT reserved::bigint FROM products.stock WHERE product_id = $1", product, 2).await;
    shop.kill("order");
    assert!(request.await.unwrap().map_or(true, |answer| answer.status.is_server_error()));
    gate.rollback().await.unwrap();
    back(&shop).await;

    let answered = || async {
        let answer = send(buyer.order(&key, product, 2, "pm_card_visa")).await.ok()?;
        (answer.status == 201).then(|| answer.id())
    };
    let order = eventually("the retry to get its order", Duration::from_secs(60), answered).await;
    assert_eq!(buyer.ended(&order).await["status"], "confirmed");
    assert_eq!(buyer.get("/orders").await.body["items"].as_array().unwrap().len(), 1);
    shop.eventually("SELECT reserved::bigint FROM products.stock WHERE product_id = $1", product, 0).await;
    assert_eq!(shop.stock(product).await, (3, 0));
}

/// Four buyers place orders, each again and again under its key until it has
/// an answer, while `victims` die in turn.
async fn orders_while_dying(victims: &[&str]) {
    let shop = Arc::new(Shop::open().await);
    let product = shop.product(20_000).await;
    let stop = Arc::new(AtomicBool::new(false));
    let buyers: Vec<_> = (0..4)
        .map(|buyer| {
            let (shop, stop) = (shop.clone(), stop.clone());
            tokio::spawn(async move {
                let customer = shop.customer().await;
                let mut placed = Vec::new();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("buyer-{buyer}-{n}");
                    let place = || async {
                        match send(customer.order(&key, product, 1, "pm_card_visa")).await {
                            Ok(answer) if answer.status == 201 => Some(Some(answer.id())),
                            Ok(answer) if answer.status == 409 && answer.problem().1 == "out_of_stock" => {
                                Some(None)
                            }
                            Ok(answer) => {
                                let passing = [409, 502, 503, 504, 429].contains(&answer.status.as_u16());
                                assert!(passing, "{} {}", answer.status, answer.body);
                                None
                            }
                            Err(_) => None,
                        }
                    };
                    match eventually(&format!("an answer to {key}"), Duration::from_secs(60), place).await {
                        Some(order) => placed.push(order),
                        None => break,
                    }
                }
                let mut confirmed = 0;
                for order in &placed {
                    let ended = customer.ended(order).await;
                    let ledger = shop.ledger(order).await;
                    if ended["status"] == "confirmed" {
                        confirmed += 1;
                        assert_eq!(
                            (&ledger["captured"], &ledger["captures"]),
                            (&json!(1250), &json!(1)),
                            "{ledger}"
                        );
                    } else {
                        assert_eq!(ledger["captured"], ledger["refunded"], "{ledger}");
                        assert!(ledger.is_null() || ledger["open"] == 0, "{ledger}");
                    }
                }
                // Nothing was ordered that the journal does not know.
                let mut known: Vec<Uuid> = placed.iter().map(|id| id.parse().unwrap()).collect();
                known.sort();
                let mut listed = Vec::new();
                let mut cursor = String::new();
                loop {
                    let page = customer.get(&format!("/orders?limit=100{cursor}")).await.body;
                    let ids = page["items"].as_array().unwrap().iter();
                    listed.extend(ids.map(|order| order["id"].as_str().unwrap().parse::<Uuid>().unwrap()));
                    let Some(next) = page["next_cursor"].as_str() else { break };
                    cursor = format!("&cursor={next}");
                }
                listed.sort();
                assert_eq!(listed, known, "the journal and the orders differ");
                (placed.len(), confirmed)
            })
        })
        .collect();

    for _ in 0..3 {
        for victim in victims {
            tokio::time::sleep(Duration::from_millis(700)).await;
            shop.kill(victim);
            back(&shop).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let (mut placed, mut confirmed) = (0, 0);
    for buyer in buyers {
        let (more, sold) = buyer.await.unwrap();
        (placed, confirmed) = (placed + more, confirmed + sold);
    }
    assert!(placed > 0 && confirmed > 0, "a shop that sells nothing keeps every promise");
    shop.eventually("SELECT reserved::bigint FROM products.stock WHERE product_id = $1", product, 0).await;
    shop.eventually(
        "SELECT on_hand::bigint FROM products.stock WHERE product_id = $1",
        product,
        20_000 - confirmed,
    )
    .await;
    println!("{placed} orders placed, {confirmed} confirmed, through {} deaths", 3 * victims.len());
}

#[tokio::test]
async fn no_order_is_lost_or_doubled_while_the_order_service_dies() {
    orders_while_dying(&["order"]).await;
}

#[tokio::test]
async fn no_order_is_lost_or_doubled_while_product_and_provider_die() {
    orders_while_dying(&["product", "payment-sandbox"]).await;
}

#[tokio::test]
async fn customers_do_not_wait_for_the_broker() {
    let shop = Shop::open().await;
    let product = shop.product(5).await;
    let buyer = shop.customer().await;
    let notices = "SELECT count(*) FROM users.notifications WHERE order_id = $1";
    let order = buyer.place(product, 1, "pm_card_visa").await;
    shop.eventually(notices, order.parse().unwrap(), 2).await;
    // RabbitMQ itself does not survive a kill in the first second of a quorum queue's life: docs/reliability.md.
    tokio::time::sleep(Duration::from_secs(2)).await;

    shop.kill("rabbitmq");
    let order = buyer.place(product, 1, "pm_card_visa").await;
    assert_eq!(buyer.ended(&order).await["status"], "confirmed");
    // Once it is back, what was written meanwhile is published.
    let id: Uuid = order.parse().unwrap();
    let waiting = "SELECT count(*) FROM orders.outbox WHERE aggregate_id = $1 AND published_at IS NULL";
    let published = || async {
        let count: i64 = sqlx::query_scalar(waiting).bind(id).fetch_one(&shop.database).await.ok()?;
        (count == 0).then_some(())
    };
    eventually("the events to be published", Duration::from_secs(60), published).await;
    shop.eventually(notices, id, 2).await;
}
