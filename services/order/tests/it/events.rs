//! What other services are told, and what is learned from them.

use crate::common::{Shop, order_of};
use prost::Message;
use proto::order::v1::{OrderCancelled, OrderConfirmed, OrderPlaced};
use proto::product::v1::{Money, Product, ProductUpdated};
use serde_json::json;
use testing::eventually;
use uuid::Uuid;

impl Shop {
    /// Sends `product.updated` as the product service would: the order service
    /// shares its exchange.
    async fn product_updated(&self, product: Product) {
        let event = messaging::NewEvent::new(
            proto::events::PRODUCT_UPDATED,
            product.id.parse().expect("a product id is a UUID"),
            product.version,
            &ProductUpdated { product: Some(product) },
        );
        let mut connection = self.outbox.acquire().await.expect("a connection");
        messaging::outbox::enqueue(&mut connection, &[event]).await.expect("the event is written");
    }

    /// What the copy says of a product: name and version.
    async fn copy(&self, product: Uuid) -> Option<(String, i64)> {
        sqlx::query_as("SELECT name, version FROM orders.products WHERE id = $1")
            .bind(product)
            .fetch_optional(&self.pool)
            .await
            .expect("the copy can be read")
    }
}

#[tokio::test]
async fn an_order_tells_that_it_is_placed_confirmed_and_cancelled() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1250, 9);
    let buyer = shop.customer();
    let id = buyer.place(&order_of(thing, 2, "pm_card_visa")).await.id();
    buyer.until(&id, "confirmed", "captured").await;
    buyer.post(&format!("/orders/{id}/cancel")).await;
    buyer.until(&id, "cancelled", "refunded").await;

    let events = shop.events(&id).await;
    let kinds: Vec<&str> = events.iter().map(|(kind, _, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["order.placed.v1", "order.confirmed.v1", "order.cancelled.v1"]);
    assert!(events.is_sorted_by(|a, b| a.1 < b.1), "versions grow");
    let placed = OrderPlaced::decode(events[0].2.as_slice()).unwrap().order.unwrap();
    assert_eq!((placed.id, placed.user_id), (id, buyer.id.to_string()));
    assert_eq!((placed.total, placed.currency.as_str()), (2500, "EUR"));
    assert_eq!((placed.lines[0].quantity, placed.lines[0].unit_price), (2, 1250));
    assert_eq!(OrderConfirmed::decode(events[1].2.as_slice()).unwrap().order.unwrap().lines, placed.lines);
    assert_eq!(OrderCancelled::decode(events[2].2.as_slice()).unwrap().reason, "customer");
}

#[tokio::test]
async fn the_cart_falls_back_to_what_product_updated_said_last() {
    let shop = Shop::open_with_broker().await;
    let thing = shop.stock.add(1000, 9);
    let buyer = shop.customer();
    buyer.put(&format!("/cart/items/{thing}"), json!({"quantity": 2})).await;
    let version = |version: i64, name: &str| Product {
        id: thing.to_string(),
        sku: "SKU".to_owned(),
        slug: "thing".to_owned(),
        name: name.to_owned(),
        price: Some(Money { amount: 700, currency: "EUR".to_owned() }),
        available: 4,
        archived: false,
        version,
    };
    shop.product_updated(version(3, "Newest")).await;
    let newest = || async { (shop.copy(thing).await? == ("Newest".to_owned(), 3)).then_some(()) };
    eventually("the copy to be made", newest).await;
    // One that was overtaken changes nothing.
    shop.product_updated(version(2, "Older")).await;
    let applied = || async {
        let applied: i64 =
            sqlx::query_scalar("SELECT count(*) FROM orders.inbox").fetch_one(&shop.pool).await.unwrap();
        (applied == 2).then_some(())
    };
    eventually("both events to be applied", applied).await;
    assert_eq!(shop.copy(thing).await, Some(("Newest".to_owned(), 3)));

    shop.stock.lock().away = true;
    let cart = buyer.get("/cart").await.body;
    assert_eq!((&cart["items"][0]["name"], &cart["total"]["amount"]), (&json!("Newest"), &json!(1400)));
    assert_eq!(cart["items"][0]["available"], 4);
}
