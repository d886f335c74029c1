//! Lists in pages, and the shape of what is in them.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use crate::common::{Shop, order_of};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

fn fields(object: &Value) -> Vec<&str> {
    let mut fields: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    fields
}

#[tokio::test]
async fn every_list_refuses_limits_and_cursors_that_are_not_its_own() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy(thing, 1).await;
    // Base64 of JSON, as ours are, of what no order has.
    let foreign = service::page::encode(&("name", 1)).unwrap();
    for (caller, path) in [
        (&buyer, "/orders".to_owned()),
        (&staff, "/admin/orders".to_owned()),
        (&buyer, format!("/orders/{id}/refunds")),
    ] {
        for limit in ["0", "101", "-1", "x", "", "1.0", "99999999999999999999", "1&limit=2"] {
            let answer = caller.get(&format!("{path}?limit={limit}")).await;
            assert_eq!(answer.problem(), (422, "validation_failed"), "{path} {limit}");
            assert_eq!(answer.body["errors"][0]["pointer"], "/limit", "{path} {limit}");
        }
        for cursor in ["", "x", "!", "bnVsbA", "018f5c3e-7a00-7000-8000-000000000001", &foreign] {
            let answer = caller.get(&format!("{path}?cursor={cursor}")).await;
            assert_eq!(answer.problem(), (400, "invalid_cursor"), "{path} {cursor}");
        }
        for limit in ["1", "100"] {
            assert_eq!(caller.get(&format!("{path}?limit={limit}")).await.status, 200, "{path} {limit}");
        }
        let broken = caller.get(&format!("{path}?cursor=%00")).await;
        assert_eq!(broken.problem(), (422, "validation_failed"), "{path}");
    }
    assert_eq!(buyer.get("/admin/orders?limit=0").await.problem(), (403, "forbidden"), "roles come first");
    for (path, pointer) in [
        ("/orders?status=", "/status"),
        ("/orders?status=Pending", "/status"),
        ("/orders?status=pending&status=shipped", "/status"),
        ("/admin/orders?status=pending,shipped", "/status"),
        ("/admin/orders?user_id=", "/user_id"),
        ("/admin/orders?emial=ada@example.com", "/emial"),
        ("/orders?user=018f5c3e-7a00-7000-8000-000000000001", "/user"),
    ] {
        let answer = staff.get(path).await;
        assert_eq!(answer.problem(), (422, "validation_failed"), "{path}");
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{path}");
    }
    let unknown = staff.get("/admin/orders?status=lost").await;
    assert_eq!(unknown.body["errors"][0]["code"], "unknown_status");
}

#[tokio::test]
async fn a_page_has_twenty_items_unless_asked_and_the_last_one_says_so() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(100, 100);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let mut placed = Vec::new();
    for _ in 0..20 {
        placed.insert(0, buyer.place(&order_of(thing, 1, "pm_card_hang")).await.id());
    }
    for (caller, path) in [(&buyer, "/orders"), (&staff, "/admin/orders")] {
        let page = caller.get(path).await.body;
        assert_eq!((ids(&page), &page["next_cursor"]), (placed.clone(), &Value::Null), "{path}");
    }
    for (caller, path) in [(&buyer, "/orders"), (&staff, "/admin/orders")] {
        placed.insert(0, buyer.place(&order_of(thing, 1, "pm_card_hang")).await.id());
        let page = caller.get(path).await.body;
        assert_eq!(ids(&page), placed[..20], "{path}");
        let cursor = page["next_cursor"].as_str().unwrap();
        // What is placed meanwhile shifts nothing.
        let rest = placed[20..].to_vec();
        placed.insert(0, buyer.place(&order_of(thing, 1, "pm_card_hang")).await.id());
        let page = caller.get(&format!("{path}?cursor={cursor}")).await.body;
        assert_eq!((ids(&page), &page["next_cursor"]), (rest, &Value::Null), "{path}");
    }
}

#[tokio::test]
async fn a_filter_holds_from_page_to_page() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(100, 100);
    let (buyer, other, staff) = (shop.customer(), shop.customer(), shop.staff());
    let mut cancelled = Vec::new();
    for _ in 0..3 {
        let id = buyer.buy(thing, 1).await;
        assert_eq!(staff.post(&format!("/orders/{id}/cancel")).await.status, 200);
        cancelled.insert(0, id);
        buyer.buy(thing, 1).await;
        other.buy(thing, 1).await;
    }
    let of = buyer.id;
    for (caller, path) in [
        (&buyer, "/orders?status=cancelled".to_owned()),
        (&staff, "/admin/orders?status=cancelled".to_owned()),
        (&staff, format!("/admin/orders?status=cancelled&user_id={of}")),
    ] {
        let first = caller.get(&format!("{path}&limit=2")).await.body;
        assert_eq!(ids(&first), cancelled[..2], "{path}");
        let cursor = first["next_cursor"].as_str().unwrap();
        let last = caller.get(&format!("{path}&limit=2&cursor={cursor}")).await.body;
        assert_eq!((ids(&last), &last["next_cursor"]), (cancelled[2..].to_vec(), &Value::Null), "{path}");
    }
    // Each sees what they may do.
    let theirs = &staff.get(&format!("/admin/orders?user_id={of}&limit=1")).await.body["items"][0];
    assert_eq!(theirs["next_actions"], json!(["cancel", "ship", "refund"]));
    assert_eq!(buyer.get("/orders?limit=1").await.body["items"][0]["next_actions"], json!(["cancel"]));
}

#[tokio::test]
async fn an_orders_refunds_are_listed_in_pages_newest_first() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let (id, other) = (buyer.buy(thing, 1).await, buyer.buy(thing, 1).await);
    let refund = |amount: i64| json!({"reason": "r", "amount": {"amount": amount, "currency": "EUR"}});
    let mut made = Vec::new();
    for amount in 1..=3 {
        let refund = staff.refund(&id, &refund(amount)).await;
        assert_eq!(fields(&refund.body), ["amount", "created_at", "id", "reason", "restock", "status"]);
        made.insert(0, refund.id());
    }
    assert_eq!(staff.refund(&other, &refund(4)).await.status, 201);
    for caller in [&buyer, &staff] {
        let first = caller.get(&format!("/orders/{id}/refunds?limit=2")).await.body;
        assert_eq!(ids(&first), made[..2]);
        let cursor = first["next_cursor"].as_str().unwrap();
        let last = caller.get(&format!("/orders/{id}/refunds?limit=2&cursor={cursor}")).await.body;
        assert_eq!((ids(&last), &last["next_cursor"]), (made[2..].to_vec(), &Value::Null));
    }
}

#[tokio::test]
async fn an_order_has_the_fields_of_the_contract_and_no_others() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let buyer = shop.customer();
    let placed = buyer.place(&order_of(thing, 2, "pm_card_visa")).await;
    let id = placed.id();
    let order = buyer.until(&id, "confirmed", "captured").await;
    let listed = buyer.get("/orders").await.body["items"][0].clone();
    for order in [placed.body, order.clone(), listed] {
        assert_eq!(
            fields(&order),
            [
                "cancel_reason",
                "history",
                "id",
                "items",
                "next_actions",
                "number",
                "parcels",
                "payment",
                "placed_at",
                "refunded",
                "shipping_address",
                "status",
                "total",
                "tracking",
                "updated_at",
            ]
        );
        assert_eq!(
            fields(&order["items"][0]),
            ["line_total", "name", "product_id", "quantity", "sku", "unit_price"]
        );
        assert_eq!(order["payment"]["method"], "pm_card_visa");
        assert_eq!(fields(&order["payment"]), ["decline_reason", "method", "status"]);
        assert_eq!((&order["cancel_reason"], &order["tracking"]), (&Value::Null, &Value::Null));
        assert_eq!(order["refunded"], json!({"amount": 0, "currency": "EUR"}));
        assert_eq!(order["shipping_address"], crate::common::address());
        let history = order["history"].as_array().unwrap();
        history.iter().for_each(|change| assert_eq!(fields(change), ["at", "status"]));
        let times =
            history.iter().map(|change| &change["at"]).chain([&order["placed_at"], &order["updated_at"]]);
        for time in times.map(|time| time.as_str().unwrap()) {
            assert!(time.ends_with('Z') && OffsetDateTime::parse(time, &Rfc3339).is_ok(), "{time}");
        }
    }
    assert_eq!(id.parse::<Uuid>().unwrap().get_version_num(), 7);
    buyer.put(&format!("/cart/items/{thing}"), json!({"quantity": 2})).await;
    let cart = buyer.get("/cart").await.body;
    assert_eq!(fields(&cart), ["items", "total"]);
    assert_eq!(fields(&cart["items"][0]), ["available", "name", "product_id", "quantity", "unit_price"]);
}
