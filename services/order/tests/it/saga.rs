//! The steps of an order's saga, as staff see them.

use crate::common::Shop;
use serde_json::{Value, json};
use uuid::Uuid;

/// Kind and event of each step.
fn kinds(saga: &Value) -> Vec<(&str, &str)> {
    let steps = saga["steps"].as_array().into_iter().flatten();
    steps
        .map(|step| (step["kind"].as_str().unwrap_or_default(), step["event"].as_str().unwrap_or_default()))
        .collect()
}

#[tokio::test]
async fn staff_see_what_was_written_of_an_order_and_when() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy(thing, 2).await;
    let path = format!("/admin/orders/{id}/saga");
    let saga = staff.get(&path).await;
    assert_eq!(saga.status, 200, "{}", saga.body);
    let saga = saga.body;
    assert_eq!((&saga["order_id"], &saga["phase"]), (&json!(id), &json!("confirmed")));
    assert_eq!(saga["intent_id"], shop.intent(&id).await);
    assert_eq!(saga["next_at"], Value::Null, "nothing is left to do");
    let bought = [("requested", ""), ("status", "order.placed.v1"), ("status", "order.confirmed.v1")];
    assert_eq!(kinds(&saga), bought);
    let last = &saga["steps"][2];
    assert_eq!((&last["status"], &last["payment"]), (&json!("confirmed"), &json!("captured")));
    let times: Vec<_> = saga["steps"].as_array().unwrap().iter().map(|step| step["at"].as_str()).collect();
    assert!(times.is_sorted(), "{times:?}");
    // No broker is there: what was written waits.
    let waiting: Vec<_> =
        saga["waiting_events"].as_array().unwrap().iter().map(|event| &event["type"]).collect();
    assert_eq!(waiting, ["order.placed.v1", "order.confirmed.v1"]);

    assert_eq!(buyer.post(&format!("/orders/{id}/cancel")).await.status, 200);
    buyer.until(&id, "cancelled", "refunded").await;
    let saga = staff.get(&path).await.body;
    assert_eq!(kinds(&saga)[3..].len(), 2, "{saga}");
    let refund = saga["steps"].as_array().unwrap().iter().find(|step| step["kind"] == "refund").unwrap();
    assert_eq!((&refund["made_by"], &refund["amount"]["amount"]), (&json!("cancel"), &json!(2000)));
    assert_eq!(refund["status"], "succeeded");

    // Placed by a replica whose clock is fast.
    for shift in [
        "UPDATE orders.orders SET placed_at = placed_at + interval '10 minutes'",
        "UPDATE orders.order_history SET at = at + interval '10 minutes' WHERE version = 1",
    ] {
        sqlx::query(shift).execute(&shop.pool).await.unwrap();
    }
    let shifted = staff.get(&path).await.body;
    assert_eq!(kinds(&shifted), kinds(&saga));
    let versions = |saga: &Value| -> Vec<Value> {
        saga["steps"].as_array().unwrap().iter().map(|step| step["version"].clone()).collect()
    };
    assert_eq!(versions(&shifted), versions(&saga));
}

#[tokio::test]
async fn a_saga_is_for_staff() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy(thing, 1).await;
    assert_eq!(buyer.get(&format!("/admin/orders/{id}/saga")).await.problem(), (403, "forbidden"));
    let unknown = format!("/admin/orders/{}/saga", Uuid::now_v7());
    assert_eq!(staff.get(&unknown).await.problem(), (404, "not_found"));
}
