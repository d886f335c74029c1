//! The record of who did what to orders.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use crate::common::{Buyer, Shop, address, order_of};
use futures_util::future::join_all;
use identity::Role;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

const AUDIT: &str = "/audit/orders";

impl Buyer<'_> {
    /// Does to a new order what the operation is for, and returns what is to be recorded: action and order.
    async fn does(&self, shop: &Shop, operation: &str, thing: Uuid) -> (&'static str, String) {
        let (buyer, other) = (shop.customer(), shop.staff());
        let id = buyer.buy(thing, 1).await;
        let path = format!("/orders/{id}");
        let parcel = json!({"carrier": "Tern", "tracking_number": "T-1"});
        let (action, answer) = match operation {
            "ship_order" => ("order.shipped", self.post_json(&format!("{path}/ship"), parcel).await),
            "deliver_order" => {
                assert_eq!(other.post_json(&format!("{path}/ship"), parcel).await.status, 200);
                ("order.delivered", self.post(&format!("{path}/deliver")).await)
            }
            "create_refund" => ("order.refunded", self.refund(&id, &json!({"reason": "Broken"})).await),
            "create_note" => {
                ("note.added", self.post_json(&format!("{path}/notes"), json!({"text": "Called"})).await)
            }
            "change_shipping_address" => {
                let mut elsewhere = address();
                elsewhere["city"] = "Leith".into();
                ("order.sent_elsewhere", self.put(&format!("{path}/shipping-address"), elsewhere).await)
            }
            "cancel_order" => ("order.cancelled", self.post(&format!("{path}/cancel")).await),
            other => panic!("{other} is for staff: how is it used, and what is recorded of it?"),
        };
        assert!(answer.status.is_success(), "{operation}: {}", answer.body);
        (action, id)
    }
}

async fn audit(shop: &Shop, query: &str) -> Vec<Value> {
    let page = shop.signed_in(Role::Admin).get(&format!("{AUDIT}{query}")).await;
    assert_eq!(page.status, 200, "{}", page.body);
    page.body["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn each_operation_for_staff_that_changes_something_is_recorded() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 100);
    let document = order::openapi();
    let mut walked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let scopes = operation["security"][0]["token"].to_string();
            let for_staff = scopes.contains("staff") || scopes.contains("admin");
            let id = operation["operationId"].as_str().unwrap();
            // By the owner or by staff.
            if method == "get" || !(for_staff || id == "cancel_order") {
                continue;
            }
            let staff = shop.staff();
            let (action, order) = staff.does(&shop, id, thing).await;
            let entries = audit(&shop, &format!("?actor={}", staff.id)).await;
            assert_eq!(entries.len(), 1, "{method} {path}: {entries:?}");
            let entries_found = &entries[0];
            assert_eq!(
                (&entries_found["action"], &entries_found["object"]["id"]),
                (&json!(action), &json!(order)),
                "{path}"
            );
            assert_eq!(
                (&entries_found["role"], entries_found["request_id"].is_string()),
                (&json!("staff"), true),
                "{path}"
            );
            walked += 1;
        }
    }
    assert_eq!(walked, 6);
}

#[tokio::test]
async fn what_is_repeated_refused_or_done_by_the_customer_is_not_recorded() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 100);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy(thing, 1).await;
    let parcel = json!({"carrier": "Tern", "tracking_number": "T-1"});
    let refund = json!({"reason": "r", "amount": {"amount": 1, "currency": "EUR"}});
    for _ in 0..2 {
        assert_eq!(staff.post_json(&format!("/orders/{id}/ship"), parcel.clone()).await.status, 200);
        assert_eq!(staff.post(&format!("/orders/{id}/deliver")).await.status, 200);
        assert_eq!(staff.refund_under("k", &id, &refund).await.status, 201);
        let note = staff.request(Method::POST, &format!("/orders/{id}/notes"));
        let note = note.header("Idempotency-Key", "k").json(&json!({"text": "Called"}));
        assert_eq!(note.send().await.unwrap().status(), 201);
    }
    assert_eq!(staff.post(&format!("/orders/{id}/cancel")).await.problem(), (409, "not_cancellable"));
    let theirs = buyer.buy(thing, 1).await;
    assert_eq!(buyer.post(&format!("/orders/{theirs}/cancel")).await.status, 200);
    let entries = audit(&shop, "").await;
    let actions: Vec<&str> = entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["note.added", "order.refunded", "order.delivered", "order.shipped"]);
    for caller in [&buyer, &staff] {
        assert_eq!(caller.get(AUDIT).await.problem(), (403, "forbidden"));
        assert_eq!(caller.get(&format!("{AUDIT}/export")).await.problem(), (403, "forbidden"));
    }
    let file = shop.signed_in(Role::Admin).get(&format!("{AUDIT}/export?object={id}")).await;
    assert_eq!(file.body.as_str().unwrap().lines().count(), 4);
}

#[tokio::test]
async fn of_many_cancellations_at_once_one_is_recorded() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 100);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy(thing, 1).await;
    let path = format!("/orders/{id}/cancel");
    for answer in join_all((0..8).map(|_| staff.post(&path))).await {
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let entries = audit(&shop, "").await;
    assert_eq!(entries.len(), 1, "{entries:?}");
    let change = json!([{"field": "status", "before": "confirmed", "after": "cancelled"}]);
    assert_eq!((&entries[0]["action"], &entries[0]["changes"]), (&json!("order.cancelled"), &change));
}

#[tokio::test]
async fn personal_values_of_the_record_go_when_their_customer_is_erased() {
    let shop = Shop::open_with_broker().await;
    let thing = shop.stock.add(1000, 100);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let (sent, open) =
        (buyer.buy(thing, 1).await, buyer.place(&order_of(thing, 1, "pm_card_visa")).await.id());
    buyer.until(&open, "confirmed", "captured").await;
    let mut elsewhere = address();
    elsewhere["name"] = "Grace Hopper".into();
    assert_eq!(staff.put(&format!("/orders/{sent}/shipping-address"), elsewhere).await.status, 200);
    let ship = async |order: &str, number: &str| {
        let parcel = json!({"carrier": "Tern", "tracking_number": number});
        assert_eq!(staff.post_json(&format!("/orders/{order}/ship"), parcel).await.status, 200);
    };
    ship(&sent, "T-1").await;
    ship(&sent, "T-2").await;
    let entries_found = audit(&shop, "").await;
    let actions: Vec<&str> = entries_found.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["order.tracking_corrected", "order.shipped", "order.sent_elsewhere"]);
    let renamed = json!([{"field": "name", "before": "Ada", "after": "Grace Hopper"}]);
    assert_eq!(entries_found[2]["changes"], renamed);
    let corrected = json!([{"field": "tracking_number", "before": "T-1", "after": "T-2"}]);
    assert_eq!(entries_found[0]["changes"], corrected);

    shop.delete(&buyer).await;
    // What is done afterwards has none from the start.
    ship(&open, "T-3").await;
    let left = audit(&shop, "").await;
    assert_eq!(left.len(), 4);
    let text = json!(left).to_string();
    for personal in ["Grace", "Ada", "T-1", "T-2", "T-3"] {
        assert!(!text.contains(personal), "{personal}: {text}");
    }
    assert_eq!(left[3]["changes"], json!([{"field": "name"}]));
    let kept = "SELECT count(*) FROM orders.audit_personal";
    assert_eq!(sqlx::query_scalar::<_, i64>(kept).fetch_one(&shop.pool).await.unwrap(), 0);
}
