//! Shipping and delivering.

use crate::common::{Shop, order_of};
use prost::Message;
use proto::order::v1::{OrderDelivered, OrderShipped};
use reqwest::Method;
use serde_json::{Value, json};
use service::auth::Role;
use uuid::Uuid;

fn parcel() -> Value {
    json!({"carrier": "Tern", "tracking_number": "T-1"})
}

#[tokio::test]
async fn staff_ship_and_deliver_a_paid_order() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy(thing, 2).await;
    let path = format!("/orders/{id}");
    assert_eq!(staff.get(&path).await.body["next_actions"], json!(["cancel", "ship", "refund"]));
    assert_eq!(buyer.get(&path).await.body["next_actions"], json!(["cancel"]));
    assert_eq!(buyer.get(&path).await.body["tracking"], Value::Null);

    let shipped = staff.post_json(&format!("{path}/ship"), parcel()).await;
    assert_eq!((shipped.status.as_u16(), &shipped.body["status"]), (200, &json!("shipped")));
    assert_eq!(shipped.body["tracking"], parcel());
    assert_eq!(shipped.body["next_actions"], json!(["deliver", "refund"]));
    assert_eq!(buyer.get(&path).await.body["next_actions"], json!([]));
    assert_eq!(buyer.post(&format!("{path}/cancel")).await.problem(), (409, "not_cancellable"));

    let admin = shop.signed_in(Role::Admin);
    let delivered = admin.post(&format!("{path}/deliver")).await;
    assert_eq!((delivered.status.as_u16(), &delivered.body["status"]), (200, &json!("delivered")));
    let history: Vec<_> =
        delivered.body["history"].as_array().unwrap().iter().map(|at| &at["status"]).collect();
    assert_eq!(history, ["pending", "confirmed", "shipped", "delivered"]);
    assert_eq!(staff.post(&format!("{path}/cancel")).await.problem(), (409, "not_cancellable"));

    let events = shop.events(&id).await;
    let kinds: Vec<&str> = events.iter().map(|(kind, _, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["order.placed.v1", "order.confirmed.v1", "order.shipped.v1", "order.delivered.v1"]);
    assert!(events.is_sorted_by(|a, b| a.1 < b.1), "versions grow");
    let told = OrderShipped::decode(events[2].2.as_slice()).unwrap();
    assert_eq!((told.carrier.as_str(), told.tracking_number.as_str()), ("Tern", "T-1"));
    assert_eq!(told.order.unwrap().user_id, buyer.id.to_string());
    assert_eq!(OrderDelivered::decode(events[3].2.as_slice()).unwrap().order.unwrap().id, id);
}

#[tokio::test]
async fn the_same_parcel_may_be_reported_again_and_another_may_not() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let staff = shop.staff();
    let path = format!("/orders/{}", shop.customer().buy(thing, 1).await);
    let ship = format!("{path}/ship");
    let first = staff.post_json(&ship, parcel()).await.body;
    assert_eq!(staff.post_json(&ship, parcel()).await.body, first);
    let other = json!({"carrier": "Tern", "tracking_number": "T-2"});
    assert_eq!(staff.post_json(&ship, other).await.problem(), (409, "not_shippable"));
    let first = staff.post(&format!("{path}/deliver")).await.body;
    assert_eq!(staff.post(&format!("{path}/deliver")).await.body, first);
    assert_eq!(staff.get(&path).await.body["history"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn an_order_that_is_not_paid_or_has_ended_is_not_sent() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let pending = buyer.place(&order_of(thing, 1, "pm_card_hang")).await.id();
    let declined = buyer.place(&order_of(thing, 1, "pm_card_chargeDeclined")).await.id();
    buyer.until(&declined, "cancelled", "declined").await;
    for id in [&pending, &declined] {
        assert_eq!(
            staff.post_json(&format!("/orders/{id}/ship"), parcel()).await.problem(),
            (409, "not_shippable")
        );
        assert_eq!(staff.post(&format!("/orders/{id}/deliver")).await.problem(), (409, "not_deliverable"));
    }
    let paid = buyer.buy(thing, 1).await;
    assert_eq!(staff.post(&format!("/orders/{paid}/deliver")).await.problem(), (409, "not_deliverable"));
}

#[tokio::test]
async fn sending_is_for_staff() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let buyer = shop.customer();
    let id = buyer.buy(thing, 1).await;
    let unknown = Uuid::now_v7();
    for verb in ["ship", "deliver"] {
        let path = format!("/orders/{id}/{verb}");
        assert_eq!(shop.anonymous(Method::POST, &path).await, (401, "missing_token".to_owned()));
        assert_eq!(buyer.post_json(&path, parcel()).await.problem(), (403, "forbidden"));
        // Roles come before bodies.
        assert_eq!(buyer.post_json(&path, json!({})).await.problem(), (403, "forbidden"));
        assert_eq!(shop.customer().post_json(&path, parcel()).await.problem(), (404, "not_found"));
        let path = format!("/orders/{unknown}/{verb}");
        assert_eq!(shop.staff().post_json(&path, parcel()).await.problem(), (404, "not_found"));
    }
    let ship = format!("/orders/{id}/ship");
    let staff = shop.staff();
    assert_eq!(staff.post(&ship).await.problem(), (415, "unsupported_media_type"));
    for (body, pointer) in [
        (json!({"carrier": "Tern"}), "/tracking_number"),
        (json!({"carrier": " ", "tracking_number": "1"}), "/carrier"),
        (json!({"carrier": "x".repeat(101), "tracking_number": "1"}), "/carrier"),
        (json!({"carrier": "Tern", "tracking_number": 1}), "/tracking_number"),
        (json!({"carrier": "Tern", "tracking_number": ""}), "/tracking_number"),
        (json!({"carrier": "Tern", "tracking_number": "x".repeat(101)}), "/tracking_number"),
        (json!({"carrier": "Te\nrn", "tracking_number": "1"}), "/carrier"),
        (json!({"carrier": null, "tracking_number": "1"}), "/carrier"),
        (json!({"carrier": "Tern", "tracking_number": "1", "status": "delivered"}), "/status"),
    ] {
        let answer = staff.post_json(&ship, body).await;
        assert_eq!(answer.problem(), (422, "validation_failed"));
        assert_eq!(answer.body["errors"][0]["pointer"], pointer);
    }
    assert_eq!(staff.get(&format!("/orders/{id}")).await.body["status"], "confirmed");
}
