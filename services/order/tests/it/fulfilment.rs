//! Shipping and delivering.

use crate::common::{Shop, order_of};
use identity::Role;
use prost::Message;
use proto::order::v1::{OrderDelivered, OrderShipped};
use reqwest::Method;
use serde_json::{Value, json};
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
    let announced = OrderShipped::decode(events[2].2.as_slice()).unwrap();
    assert_eq!((announced.carrier.as_str(), announced.tracking_number.as_str()), ("Tern", "T-1"));
    assert_eq!(announced.order.unwrap().user_id, buyer.id.to_string());
    assert_eq!(OrderDelivered::decode(events[3].2.as_slice()).unwrap().order.unwrap().id, id);
}

#[tokio::test]
async fn the_same_parcel_may_be_reported_again_and_its_number_corrected_while_it_is_on_its_way() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let staff = shop.staff();
    let id = shop.customer().buy(thing, 1).await;
    let path = format!("/orders/{id}");
    let ship = format!("{path}/ship");
    let first = staff.post_json(&ship, parcel()).await.body;
    assert_eq!(staff.post_json(&ship, parcel()).await.body, first);
    assert_eq!(first["parcels"][0]["tracking"], parcel());
    assert_eq!(
        (&first["parcels"][0]["method"], &first["parcels"][0]["former"]),
        (&json!("carrier"), &json!([]))
    );

    // A slip: once without and once with the parcel's name, and each once more.
    let parcel_id = &first["parcels"][0]["id"];
    for other in [
        json!({"carrier": "Tern", "tracking_number": "T-2"}),
        json!({"carrier": "Gull", "tracking_number": "T-3", "parcel_id": parcel_id}),
    ] {
        let corrected = staff.post_json(&ship, other.clone()).await;
        assert_eq!((corrected.status.as_u16(), &corrected.body["status"]), (200, &json!("shipped")));
        assert_eq!(corrected.body["tracking"]["tracking_number"], other["tracking_number"]);
        assert_eq!(staff.post_json(&ship, other).await.body, corrected.body);
    }
    let order = staff.get(&path).await.body;
    assert_eq!(order["history"].as_array().unwrap().len(), 3);
    let former = order["parcels"][0]["former"].as_array().unwrap();
    let former: Vec<_> = former.iter().map(|was| (&was["carrier"], &was["tracking_number"])).collect();
    assert_eq!(former, [(&json!("Tern"), &json!("T-1")), (&json!("Tern"), &json!("T-2"))]);
    let announced: Vec<OrderShipped> = shop.events(&id).await[2..]
        .iter()
        .map(|(kind, _, body)| {
            assert_eq!(kind, "order.shipped.v1");
            OrderShipped::decode(&**body).unwrap()
        })
        .collect();
    let announced: Vec<_> =
        announced.iter().map(|event| (event.tracking_number.as_str(), event.corrected)).collect();
    assert_eq!(announced, [("T-1", false), ("T-2", true), ("T-3", true)]);
    // Staff find it by the number of now.
    for (number, found) in [("T-3", 1), ("T-1", 0)] {
        let page = staff.get(&format!("/admin/orders?q={number}")).await.body;
        assert_eq!(page["items"].as_array().unwrap().len(), found, "{number}");
    }

    let first = staff.post(&format!("{path}/deliver")).await.body;
    assert_eq!(staff.post(&format!("{path}/deliver")).await.body, first);
    assert_eq!(staff.get(&path).await.body["history"].as_array().unwrap().len(), 4);
    assert_eq!(staff.post_json(&ship, parcel()).await.body, first, "its first report, come late");
    let new = json!({"carrier": "Tern", "tracking_number": "T-4"});
    assert_eq!(staff.post_json(&ship, new).await.problem(), (409, "not_shippable"));
}

/// Carrier, number and quantity of a product.
fn part(number: &str, product: Uuid, quantity: u32) -> Value {
    let items = json!([{"product_id": product, "quantity": quantity}]);
    json!({"carrier": "Tern", "tracking_number": number, "items": items})
}

#[tokio::test]
async fn an_order_leaves_in_parts_each_with_its_number_until_the_last() {
    let shop = Shop::open().await;
    let (fender, rope) = (shop.stock.add(2000, 10), shop.stock.add(500, 10));
    let (buyer, staff) = (shop.customer(), shop.staff());
    let mut order = order_of(fender, 3, "pm_card_visa");
    order["items"].as_array_mut().unwrap().push(json!({"product_id": rope, "quantity": 2}));
    let id = buyer.place(&order).await.id();
    buyer.until(&id, "confirmed", "captured").await;
    let (path, ship) = (format!("/orders/{id}"), format!("/orders/{id}/ship"));

    let first = staff.post_json(&ship, part("T-1", fender, 2)).await;
    assert_eq!((first.status.as_u16(), &first.body["status"]), (200, &json!("partially_shipped")));
    assert_eq!(first.body["next_actions"], json!(["ship", "refund"]));
    assert_eq!(buyer.get(&path).await.body["next_actions"], json!([]));
    assert_eq!(buyer.post(&format!("{path}/cancel")).await.problem(), (409, "not_cancellable"));
    assert_eq!(staff.post_json(&ship, part("T-1", fender, 2)).await.body, first.body);
    assert_eq!(staff.post(&format!("{path}/deliver")).await.problem(), (409, "not_deliverable"));
    // Not again under the same number, and no more than there is.
    for (wrong, pointer) in [
        (part("T-1", fender, 1), "/tracking_number"),
        (json!({"carrier": "Tern", "tracking_number": "T-1"}), "/tracking_number"),
        (part("T-2", fender, 2), "/items/0/quantity"),
    ] {
        let answer = staff.post_json(&ship, wrong).await;
        assert_eq!(answer.problem(), (409, "not_shippable"));
        assert_eq!(answer.body["errors"][0]["pointer"], pointer);
    }
    let fetched = json!({"method": "collected", "items": [{"product_id": fender, "quantity": 1}]});
    let request = || {
        let request = staff.request(Method::POST, &ship).header("Idempotency-Key", "fetched");
        crate::common::send(request.json(&fetched))
    };
    let second = request().await;
    assert_eq!((second.status.as_u16(), &second.body["status"]), (200, &json!("partially_shipped")));
    assert_eq!(request().await.body, second.body);
    let other = staff.request(Method::POST, &ship).header("Idempotency-Key", "fetched");
    let other = crate::common::send(other.json(&part("T-2", rope, 1))).await;
    assert_eq!(other.problem(), (422, "idempotency_key_reused"));
    let last = staff.post_json(&ship, json!({"carrier": "Tern", "tracking_number": "T-3"})).await.body;
    assert_eq!((&last["status"], &last["tracking"]["tracking_number"]), (&json!("shipped"), &json!("T-3")));
    let parcels: Vec<_> =
        last["parcels"].as_array().unwrap().iter().map(|sent| (&sent["method"], &sent["items"])).collect();
    let line = |product: Uuid, quantity: u32| json!([{"product_id": product, "quantity": quantity}]);
    assert_eq!(
        parcels,
        [
            (&json!("carrier"), &line(fender, 2)),
            (&json!("collected"), &line(fender, 1)),
            (&json!("carrier"), &line(rope, 2)),
        ]
    );
    let history: Vec<_> = last["history"].as_array().unwrap().iter().map(|at| &at["status"]).collect();
    assert_eq!(history, ["pending", "confirmed", "partially_shipped", "shipped"]);
    // Of several parcels the one that is meant has to be named. What was fetched has no number.
    let other = json!({"carrier": "Tern", "tracking_number": "T-9"});
    assert_eq!(staff.post_json(&ship, other.clone()).await.problem(), (409, "not_shippable"));
    let named = |index: usize| {
        let mut named = other.clone();
        named["parcel_id"] = last["parcels"][index]["id"].clone();
        named
    };
    let corrected = staff.post_json(&ship, named(0)).await.body;
    assert_eq!(corrected["parcels"][0]["tracking"], other);
    assert_eq!(corrected["tracking"]["tracking_number"], "T-3");
    // The first report, come late, is not taken for another correction.
    assert_eq!(staff.post_json(&ship, part("T-1", fender, 2)).await.body, corrected);
    assert_eq!(staff.post_json(&ship, named(1)).await.problem(), (409, "not_shippable"));
    let events = shop.events(&id).await;
    let announced = |index: usize| OrderShipped::decode(&*events[index].2).unwrap();
    assert_eq!((announced(2).more_follows, announced(2).contents[0].quantity), (true, 2));
    assert_eq!((announced(3).more_follows, announced(3).carrier.as_str()), (true, ""));
    assert_eq!((announced(4).more_follows, announced(5).corrected), (false, true));
    assert_eq!(staff.post(&format!("{path}/deliver")).await.body["status"], "delivered");
}

/// A refund of one unit that goes back into stock.
fn one_back(product: Uuid, returned: Option<bool>) -> Value {
    let mut refund = json!({"reason": "none left", "amount": {"amount": 2000, "currency": "EUR"},
        "restock": [{"product_id": product, "quantity": 1}]});
    if let Some(returned) = returned {
        refund["returned"] = returned.into();
    }
    refund
}

#[tokio::test]
async fn units_that_went_back_into_stock_without_leaving_are_not_sent() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(2000, 20);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy(thing, 3).await;
    let (path, ship) = (format!("/orders/{id}"), format!("/orders/{id}/ship"));
    assert_eq!(staff.post_json(&ship, part("T-1", thing, 1)).await.body["status"], "partially_shipped");
    let unclear = staff.refund(&id, &one_back(thing, None)).await;
    assert_eq!(unclear.problem(), (422, "validation_failed"));
    assert_eq!(unclear.body["errors"][0]["pointer"], "/returned");
    // The one that was sent came back: two are still to leave.
    assert_eq!(staff.refund(&id, &one_back(thing, Some(true))).await.status, 201);
    buyer.until_refunded(&id, 2000).await;
    assert_eq!(staff.get(&path).await.body["next_actions"], json!(["ship", "refund"]));
    assert_eq!(staff.post(&format!("{path}/deliver")).await.problem(), (409, "not_deliverable"));
    // One of these is sold out.
    assert_eq!(staff.refund(&id, &one_back(thing, Some(false))).await.status, 201);
    buyer.until_refunded(&id, 4000).await;
    let rest = staff.post_json(&ship, json!({"carrier": "Tern", "tracking_number": "T-2"})).await.body;
    let sent = &rest["parcels"][1]["items"][0]["quantity"];
    assert_eq!((&rest["status"], sent), (&json!("shipped"), &json!(1)));

    // All of the rest is.
    let id = buyer.buy(thing, 2).await;
    let (path, ship) = (format!("/orders/{id}"), format!("/orders/{id}/ship"));
    assert_eq!(staff.post_json(&ship, part("T-3", thing, 1)).await.status, 200);
    assert_eq!(staff.refund(&id, &one_back(thing, Some(false))).await.status, 201);
    buyer.until_refunded(&id, 2000).await;
    let none = staff.post_json(&ship, json!({"carrier": "Tern", "tracking_number": "T-4"})).await;
    assert_eq!(none.problem(), (409, "not_shippable"));
    assert_eq!(staff.get(&path).await.body["next_actions"], json!(["deliver", "refund"]));
    assert_eq!(buyer.get(&path).await.body["next_actions"], json!([]));
    assert_eq!(staff.post(&format!("{path}/deliver")).await.body["status"], "delivered");

    // What goes back whole does not leave.
    let id = buyer.buy(thing, 2).await;
    let (path, ship) = (format!("/orders/{id}"), format!("/orders/{id}/ship"));
    assert_eq!(staff.post_json(&ship, part("T-5", thing, 1)).await.status, 200);
    assert_eq!(staff.refund(&id, &json!({"reason": "lost"})).await.status, 201);
    assert_eq!(staff.post_json(&ship, part("T-6", thing, 1)).await.problem(), (409, "not_shippable"));
    assert_eq!(staff.get(&path).await.body["next_actions"], json!(["deliver"]));
    assert_eq!(staff.post(&format!("{path}/deliver")).await.body["status"], "delivered");
}

#[tokio::test]
async fn what_was_fetched_in_the_shop_has_no_carrier() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy(thing, 2).await;
    let ship = format!("/orders/{id}/ship");
    for (body, pointer, code) in [
        (json!({"method": "collected", "carrier": "Tern"}), "/carrier", "not_allowed"),
        (json!({"method": "collected", "parcel_id": thing}), "/parcel_id", "not_allowed"),
        (json!({"method": "carrier"}), "/carrier", "missing_field"),
        (json!({"method": "pigeon"}), "/method", "invalid_value"),
        (json!({"method": "collected", "items": []}), "/items", "out_of_range"),
        (
            json!({"method": "collected", "items": [{"product_id": Uuid::now_v7(), "quantity": 1}]}),
            "/items/0/product_id",
            "not_in_order",
        ),
        (json!({"carrier": "T", "tracking_number": "1", "parcel_id": thing}), "/parcel_id", "unknown_parcel"),
    ] {
        let answer = staff.post_json(&ship, body).await;
        assert_eq!(answer.problem(), (422, "validation_failed"), "{}", answer.body);
        let error = &answer.body["errors"][0];
        assert_eq!((&error["pointer"], &error["code"]), (&json!(pointer), &json!(code)));
    }
    let fetched = staff.post_json(&ship, json!({"method": "collected"})).await;
    assert_eq!((fetched.status.as_u16(), &fetched.body["status"]), (200, &json!("shipped")));
    assert_eq!(
        (&fetched.body["tracking"], &fetched.body["parcels"][0]["tracking"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(staff.post_json(&ship, json!({"method": "collected"})).await.body, fetched.body);
    assert_eq!(staff.post_json(&ship, parcel()).await.problem(), (409, "not_shippable"));
}

#[tokio::test]
async fn an_order_that_was_shipped_by_an_earlier_release_has_one_parcel_that_can_be_corrected() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy(thing, 2).await;
    let ship = format!("/orders/{id}/ship");
    assert_eq!(staff.post_json(&ship, parcel()).await.status, 200);
    sqlx::query("DELETE FROM orders.parcels").execute(&shop.pool).await.unwrap();
    let order = buyer.get(&format!("/orders/{id}")).await.body;
    let sent = &order["parcels"][0];
    assert_eq!((&sent["id"], &sent["tracking"]), (&json!(id), &parcel()));
    assert_eq!(sent["items"], json!([{"product_id": thing, "quantity": 2}]));
    assert_eq!(staff.post_json(&ship, parcel()).await.status, 200);
    let other = json!({"carrier": "Tern", "tracking_number": "T-2"});
    let corrected = staff.post_json(&ship, other.clone()).await.body;
    let sent = &corrected["parcels"][0];
    assert_eq!((&sent["id"], &sent["tracking"]), (&json!(id), &other));
    assert_eq!(sent["former"][0]["tracking_number"], "T-1");
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
