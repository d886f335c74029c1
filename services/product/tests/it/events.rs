//! Events from other services, and events for them.

use crate::common::{cancel, id, refund, shop_with_broker};
use lapin::options::BasicGetOptions;
use messaging::topology::Topology;
use proto::product::v1::reserve_result::Outcome;
use proto::product::v1::{self as wire, CommitResult};
use reqwest::Method;
use serde_json::json;
use sqlx::Row;
use uuid::Uuid;

#[tokio::test]
async fn a_cancelled_sale_is_restocked_once_however_often_its_event_comes() {
    let shop = shop_with_broker().await;
    let lamp = shop.stocked(5).await;
    let order = Uuid::now_v7();
    shop.reserve(order, &[(&lamp, 2)]).await;
    assert_eq!(shop.commit(order).await, CommitResult::Committed);
    // Two events of one order together, another one later, and all three delivered again.
    cancel(&shop, &[order, order]).await;
    crate::common::applied(&shop).await;
    assert_eq!(shop.stock(&lamp).await, (5, 0));
    cancel(&shop, &[order]).await;
    crate::common::applied(&shop).await;
    assert_eq!(shop.stock(&lamp).await, (5, 0));
    let again = "UPDATE outbox SET published_at = NULL, claimed_until = '-infinity' WHERE aggregate_id = $1";
    assert_eq!(sqlx::query(again).bind(order).execute(&shop.pool).await.unwrap().rows_affected(), 3);
    // An event behind them shows when the repeated ones are through.
    cancel(&shop, &[Uuid::now_v7()]).await;
    crate::common::applied(&shop).await;
    assert_eq!(shop.stock(&lamp).await, (5, 0));
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn a_refund_puts_back_what_it_names_once_and_never_more_than_was_sold() {
    let shop = shop_with_broker().await;
    let lamp = shop.stocked(9).await;
    let order = Uuid::now_v7();
    shop.reserve(order, &[(&lamp, 5)]).await;
    assert_eq!(shop.commit(order).await, CommitResult::Committed);
    assert_eq!(shop.stock(&lamp).await, (4, 0));
    refund(&shop, order, &lamp, 2).await;
    refund(&shop, Uuid::now_v7(), &lamp, 1).await; // of an order that bought nothing here
    crate::common::applied(&shop).await;
    assert_eq!(shop.stock(&lamp).await, (6, 0));
    // Delivered again, together with a new one.
    sqlx::query("UPDATE outbox SET published_at = NULL, claimed_until = '-infinity'")
        .execute(&shop.pool)
        .await
        .unwrap();
    refund(&shop, order, &lamp, 1).await;
    crate::common::applied(&shop).await;
    assert_eq!(shop.stock(&lamp).await, (7, 0));
    // The rest comes back with the cancellation, and then nothing is left to come back.
    cancel(&shop, &[order]).await;
    refund(&shop, order, &lamp, 4).await;
    crate::common::applied(&shop).await;
    assert_eq!(shop.stock(&lamp).await, (9, 0));
    refund(&shop, order, &lamp, 1).await;
    crate::common::applied(&shop).await;
    assert_eq!(shop.stock(&lamp).await, (9, 0));
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn a_cancelled_reservation_is_released_and_never_comes_back() {
    let shop = shop_with_broker().await;
    let lamp = shop.stocked(5).await;
    let (open, unseen) = (Uuid::now_v7(), Uuid::now_v7());
    shop.reserve(open, &[(&lamp, 2)]).await;
    cancel(&shop, &[open, unseen]).await;
    crate::common::applied(&shop).await;
    assert_eq!(shop.stock(&lamp).await, (5, 0));
    for order in [open, unseen] {
        assert!(matches!(shop.reserve(order, &[(&lamp, 2)]).await, Outcome::Ended(_)));
        assert_eq!(shop.commit(order).await, CommitResult::Gone);
    }
}

#[tokio::test]
async fn a_change_of_a_product_reaches_the_subscribers() {
    let shop = shop_with_broker().await;
    let product = shop.product(json!({"name": "Storm Lantern", "stock": 3})).await;
    let path = format!("/products/{}", id(&product));
    let patch = shop.staff(Method::PATCH, &path).header("if-match", "*").json(&json!({"name": "Lantern"}));
    assert_eq!(patch.send().await.unwrap().status(), 200);
    let adjustment = json!({"delta": 4, "reason": "found"});
    assert_eq!(shop.post(&format!("{path}/stock-adjustments"), &adjustment).await.0, 201);
    let archive = shop.staff(Method::DELETE, &path).header("if-match", "*");
    assert_eq!(archive.send().await.unwrap().status(), 204);

    let topology = Topology::new(&testing::amqp_url(), &shop.namespace, proto::events::SUBSCRIPTIONS);
    let (_connection, channel) = topology.connect().await.unwrap();
    let queue = topology.queue("order");
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let message = testing::eventually("an event arrives", async || {
            let options = BasicGetOptions { no_ack: true };
            channel.basic_get(queue.as_str().into(), options).await.unwrap()
        });
        let message = message.await;
        let body = <wire::ProductUpdated as prost::Message>::decode(message.data.as_slice()).unwrap();
        seen.push(body.product.unwrap());
    }
    seen.sort_by_key(|product| product.version);
    let announced = seen.iter().map(|p| (p.version, p.name.as_str(), p.available, p.archived));
    assert_eq!(
        announced.collect::<Vec<_>>(),
        [
            (1, "Storm Lantern", 3, false),
            (2, "Lantern", 3, false),
            (3, "Lantern", 7, false),
            (4, "Lantern", 7, true),
        ]
    );
}

#[tokio::test]
async fn the_demo_catalogue_is_loaded_once_by_replicas_that_start_at_once() {
    let shop = crate::common::shop_with(&["--demo-data=true"]).await;
    tokio::join!(shop.replica(), shop.replica());
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM products.products), (SELECT count(*) FROM products.stock),
                (SELECT count(*) FROM outbox WHERE type = 'product.updated.v1')",
    );
    let row = row.fetch_one(&shop.pool).await.unwrap();
    let (products, stock, events): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    assert!(products >= 60 && stock == products && events == products, "{products} {stock} {events}");
    shop.assert_books_balance().await;

    let (_, page) = shop.get("/products?limit=1").await;
    let path = format!("/products/{}", id(&page["items"][0]));
    let archive = shop.staff(Method::DELETE, &path).header("if-match", "*");
    assert_eq!(archive.send().await.unwrap().status(), 204);
    shop.replica().await;
    assert_eq!(shop.get(&path).await.0, 404, "an archived product does not return with the next start");
    let (_, tree) = shop.get("/categories").await;
    let roots = tree["items"].as_array().unwrap().iter();
    let counted: i64 = roots.map(|root| root["product_count"].as_i64().unwrap()).sum();
    assert_eq!(counted, products - 1);
}
