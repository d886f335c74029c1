//! Events for other services, and events from them.

use crate::common::{Shop, order_of};
use prost::Message;
use proto::order::v1::{
    Card, Destination, OrderCancelled, OrderConfirmed, OrderPlaced, OrderRefunded, OrderShipped,
};
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
async fn an_order_announces_that_it_is_placed_confirmed_and_cancelled() {
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
    let confirmed = OrderConfirmed::decode(events[1].2.as_slice()).unwrap();
    assert_eq!(confirmed.order.unwrap().lines, placed.lines);
    assert_eq!((confirmed.card, confirmed.ships_to), (visa(), destination("Ada", "Hull")));
    let cancelled = OrderCancelled::decode(events[2].2.as_slice()).unwrap();
    assert_eq!((cancelled.reason.as_str(), cancelled.returns), ("customer", Some(2500)));
    assert_eq!(cancelled.card, visa());
}

fn visa() -> Option<Card> {
    Some(Card { brand: "visa".to_owned(), last4: "4242".to_owned() })
}

fn destination(recipient: &str, town: &str) -> Option<Destination> {
    Some(Destination { recipient: recipient.to_owned(), town: town.to_owned() })
}

#[tokio::test]
async fn what_was_not_charged_goes_back_to_no_card() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1250, 9);
    let buyer = shop.customer();
    let id = buyer.place(&order_of(thing, 1, "pm_card_chargeDeclinedExpiredCard")).await.id();
    buyer.until(&id, "cancelled", "declined").await;
    let events = shop.events(&id).await;
    let cancelled = OrderCancelled::decode(events[1].2.as_slice()).unwrap();
    assert_eq!((cancelled.returns, cancelled.decline_reason.as_deref()), (Some(0), Some("expired_card")));
    assert_eq!(cancelled.card, None);
}

#[tokio::test]
async fn parcels_and_refunds_are_announced_with_where_they_go() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1250, 20);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let mut order = order_of(thing, 3, "pm_card_amex");
    // Without a town.
    order["shipping_address"] =
        json!({"name": "Lin", "line1": "1 Raffles Place", "postal_code": "048616", "country": "SG"});
    let id = buyer.place(&order).await.id();
    buyer.until(&id, "confirmed", "captured").await;
    let one = json!([{"product_id": thing, "quantity": 1}]);
    let ship = format!("/orders/{id}/ship");
    let fetched = json!({"method": "collected", "items": one});
    assert_eq!(staff.post_json(&ship, fetched).await.status, 200);
    let parcel = |number: &str| json!({"carrier": "Tern", "tracking_number": number, "items": one});
    assert_eq!(staff.post_json(&ship, parcel("T-1")).await.status, 200);
    let part = json!({"reason": "a dent", "amount": {"amount": 300, "currency": "EUR"}});
    assert_eq!(staff.refund(&id, &part).await.status, 201);
    buyer.until_refunded(&id, 300).await;
    let events = shop.events(&id).await;
    let shipped = |index: usize| OrderShipped::decode(events[index].2.as_slice()).unwrap().ships_to;
    assert_eq!((shipped(2), shipped(3)), (None, destination("Lin", "")));
    let refunded = OrderRefunded::decode(events[4].2.as_slice()).unwrap();
    let amex = Card { brand: "amex".to_owned(), last4: "0005".to_owned() };
    assert_eq!((refunded.amount, refunded.card), (300, Some(amex)));

    // One that has forgotten its customer.
    let forget = "UPDATE orders.orders SET shipping_address = NULL";
    sqlx::query(forget).execute(&shop.pool).await.unwrap();
    assert_eq!(staff.post_json(&ship, parcel("T-2")).await.status, 200);
    let events = shop.events(&id).await;
    assert_eq!(OrderShipped::decode(events[5].2.as_slice()).unwrap().ships_to, None);
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
