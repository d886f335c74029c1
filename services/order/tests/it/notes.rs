//! Notes of staff about orders, and other addresses for orders.

use crate::common::{Shop, address, order_of, send};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn staff_leave_each_other_notes_that_the_customer_does_not_see() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy(thing, 1).await;
    let path = format!("/orders/{id}/notes");
    let note = |key: &str, text: &str| {
        let request = staff.request(Method::POST, &path).header("Idempotency-Key", key);
        send(request.json(&json!({"text": text})))
    };
    let first = note("k", "Wants it\u{2026} before Friday").await;
    assert_eq!(first.status, 201, "{}", first.body);
    assert_eq!(first.body["author"], json!(staff.id));
    assert_eq!(note("k", "Wants it\u{2026} before Friday").await.body, first.body);
    assert_eq!(note("k", "something else").await.problem(), (422, "idempotency_key_reused"));
    for _ in 0..2 {
        assert_eq!(staff.post_json(&path, json!({"text": "Called"})).await.status, 201);
    }
    let page = staff.get(&format!("{path}?limit=2")).await.body;
    let texts = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        items.map(|note| note["text"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(texts(&page), ["Called", "Called"]);
    let cursor = page["next_cursor"].as_str().unwrap();
    let last = staff.get(&format!("{path}?limit=2&cursor={cursor}")).await.body;
    assert_eq!(
        (texts(&last), &last["next_cursor"]),
        (vec!["Wants it\u{2026} before Friday".to_owned()], &Value::Null)
    );
    for bad in ["", " ", "a\u{7}", &"x".repeat(501)] {
        assert_eq!(staff.post_json(&path, json!({"text": bad})).await.problem(), (422, "validation_failed"));
    }
    assert_eq!(buyer.get(&path).await.problem(), (403, "forbidden"));
    assert_eq!(buyer.post_json(&path, json!({"text": "x"})).await.problem(), (403, "forbidden"));
    assert_eq!(shop.customer().get(&path).await.problem(), (404, "not_found"));
    // What is forgotten with its customer is not written anew.
    let forget = sqlx::query("UPDATE orders.orders SET shipping_address = NULL, tracking = NULL");
    forget.execute(&shop.pool).await.unwrap();
    assert_eq!(staff.get(&path).await.body["items"], json!([]));
    assert_eq!(staff.post_json(&path, json!({"text": "x"})).await.problem(), (409, "customer_forgotten"));
}

#[tokio::test]
async fn staff_send_an_order_elsewhere_until_a_part_of_it_has_left() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy(thing, 2).await;
    let path = format!("/orders/{id}/shipping-address");
    let mut elsewhere = address();
    elsewhere["name"] = "Grace Hopper".into();
    elsewhere["city"] = "Leith".into();
    let changed = staff.put(&path, elsewhere.clone()).await;
    assert_eq!((changed.status.as_u16(), &changed.body["shipping_address"]), (200, &elsewhere));
    assert_eq!(staff.put(&path, elsewhere.clone()).await.body["shipping_address"], elsewhere);
    for (name, found) in [("hopper", 1), ("ada", 0)] {
        let page = staff.get(&format!("/admin/orders?q={name}")).await.body;
        assert_eq!(page["items"].as_array().unwrap().len(), found, "{name}");
    }
    let mut wrong = elsewhere.clone();
    wrong["postal_code"] = "1".into();
    let refused = staff.put(&path, wrong).await;
    assert_eq!(refused.problem(), (422, "validation_failed"));
    assert_eq!(refused.body["errors"][0]["pointer"], "/postal_code");
    assert_eq!(buyer.put(&path, elsewhere.clone()).await.problem(), (403, "forbidden"));
    let part =
        json!({"carrier": "T", "tracking_number": "1", "items": [{"product_id": thing, "quantity": 1}]});
    assert_eq!(staff.post_json(&format!("/orders/{id}/ship"), part).await.status, 200);
    assert_eq!(staff.put(&path, elsewhere.clone()).await.problem(), (409, "address_not_changeable"));
    let cancelled = buyer.place(&order_of(thing, 1, "pm_card_chargeDeclined")).await.id();
    buyer.until(&cancelled, "cancelled", "declined").await;
    let ended = staff.put(&format!("/orders/{cancelled}/shipping-address"), elsewhere).await;
    assert_eq!(ended.problem(), (409, "address_not_changeable"));
}
