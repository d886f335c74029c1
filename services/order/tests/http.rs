//! Carts, and what the API refuses.

mod common;

use common::{Shop, address, order_of, send};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

#[tokio::test]
async fn a_cart_shows_todays_prices() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1999, 7);
    let buyer = shop.customer();
    let empty = buyer.get("/cart").await.body;
    assert_eq!(empty, json!({"items": [], "total": {"amount": 0, "currency": "EUR"}}));

    let cart = buyer.put(&format!("/cart/items/{thing}"), json!({"quantity": 2})).await.body;
    assert_eq!(cart["total"]["amount"], 3998);
    assert_eq!(cart["items"][0]["available"], 7);
    shop.stock.lock().products.get_mut(&thing.to_string()).unwrap().price.as_mut().unwrap().amount = 1000;
    assert_eq!(buyer.get("/cart").await.body["total"]["amount"], 2000);

    let removed = send(buyer.request(Method::DELETE, &format!("/cart/items/{thing}"))).await;
    assert_eq!((removed.status.as_u16(), &removed.body["items"]), (200, &json!([])));
    assert_eq!(send(buyer.request(Method::DELETE, "/cart")).await.status, 204);
}

#[tokio::test]
async fn a_cart_refuses_what_cannot_be_bought() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1999, 7);
    let buyer = shop.customer();
    let item = format!("/cart/items/{thing}");
    for (body, code) in [
        (json!({"quantity": 0}), "out_of_range"),
        (json!({"quantity": 1000}), "out_of_range"),
        (json!({"quantity": -1}), "invalid_value"),
        (json!({"quantity": 1.5}), "invalid_value"),
        (json!({}), "missing_field"),
        (json!({"quantity": 1, "price": 1}), "unknown_field"),
    ] {
        let answer = buyer.put(&item, body.clone()).await;
        assert_eq!(answer.problem(), (422, "validation_failed"), "{body}");
        assert_eq!(answer.body["errors"][0]["code"], code, "{body}");
    }
    let unknown = buyer.put(&format!("/cart/items/{}", Uuid::now_v7()), json!({"quantity": 1})).await;
    assert_eq!(unknown.problem(), (404, "not_found"));
    assert_eq!(
        buyer.put("/cart/items/not-an-id", json!({"quantity": 1})).await.problem(),
        (404, "not_found")
    );
    assert_eq!(buyer.get("/cart").await.body["items"], json!([]));
}

#[tokio::test]
async fn an_order_that_makes_no_sense_is_refused_with_a_pointer() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1999, 7);
    let buyer = shop.customer();
    let with = |field: &str, value: Value| {
        let mut body = order_of(thing, 1, "pm_card_visa");
        *body.pointer_mut(field).unwrap() = value;
        body
    };
    let mut extra = order_of(thing, 1, "pm_card_visa");
    extra["status"] = json!("confirmed");
    let line = json!({"product_id": thing, "quantity": 1});
    for (body, code, pointer) in [
        (with("/items/0/quantity", json!(0)), "validation_failed", "/items/0/quantity"),
        (with("/items/0/product_id", json!("x")), "validation_failed", "/items/0/product_id"),
        (with("/items", json!([])), "validation_failed", "/items"),
        (with("/items", json!(null)), "validation_failed", "/items"),
        (with("/items/0", json!([thing, 1])), "validation_failed", "/items/0"),
        (with("/shipping_address/country", json!("UK")), "validation_failed", "/shipping_address/country"),
        (with("/items", json!([line, line])), "validation_failed", "/items/1/product_id"),
        (with("/items/0/product_id", json!(Uuid::now_v7())), "unknown_product", "/items/0/product_id"),
        (with("/payment_method", json!("cash")), "unknown_payment_method", "/payment_method"),
        (with("/payment_method", json!("pm_")), "unknown_payment_method", "/payment_method"),
        (with("/shipping_address/country", json!("GBR")), "validation_failed", "/shipping_address/country"),
        (with("/shipping_address/city", json!("Hu\u{0}ll")), "validation_failed", "/shipping_address/city"),
        (with("/shipping_address/name", json!(" ")), "validation_failed", "/shipping_address/name"),
        (extra, "validation_failed", "/status"),
    ] {
        let answer = buyer.order(&Uuid::now_v7().to_string(), &body).await;
        assert_eq!(answer.problem(), (422, code), "{body}: {}", answer.body);
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{body}: {}", answer.body);
        assert!(answer.body["trace_id"].is_null() || answer.body["trace_id"].is_string());
        assert_eq!(answer.body["instance"], "/api/v1/orders");
    }
    assert_eq!(buyer.get("/orders").await.body["items"], json!([]));
    assert_eq!(shop.stock.lock().products[&thing.to_string()].available, 7);
}

#[tokio::test]
async fn requests_are_refused_in_the_order_of_the_contract() {
    let shop = Shop::open().await;
    let buyer = shop.customer();
    let post = || buyer.request(Method::POST, "/orders");
    let body = json!({"shipping_address": address(), "payment_method": "pm_card_visa"});

    let anonymous = shop.client.post(format!("{}/orders", shop.base));
    let answer = send(anonymous.body("{")).await;
    assert_eq!(answer.problem(), (401, "missing_token"));
    assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    let forged = shop.client.post(format!("{}/orders", shop.base)).bearer_auth("x.y.z");
    assert_eq!(send(forged.json(&body)).await.problem(), (401, "invalid_token"));

    assert_eq!(send(post().json(&body)).await.problem(), (400, "idempotency_key_missing"));
    let keyed = || post().header("Idempotency-Key", "k");
    assert_eq!(
        send(post().header("Idempotency-Key", "a b").json(&body)).await.problem(),
        (400, "idempotency_key_invalid")
    );
    assert_eq!(send(keyed().body("{}")).await.problem(), (415, "unsupported_media_type"));
    let json = || keyed().header("Content-Type", "application/json");
    assert_eq!(send(json().body("{")).await.problem(), (400, "malformed_json"));
    assert_eq!(send(json().body("[]")).await.problem(), (422, "validation_failed"));
    let long = format!("\"{}\"", "x".repeat(1024 * 1024));
    assert_eq!(send(json().body(long)).await.problem(), (413, "payload_too_large"));
    assert_eq!(send(keyed().json(&body)).await.problem(), (422, "cart_empty"));

    assert_eq!(send(buyer.request(Method::DELETE, "/orders")).await.problem(), (405, "method_not_allowed"));
    assert_eq!(buyer.get("/nothing").await.problem(), (404, "not_found"));
    let answer = buyer.get("/orders/%00").await;
    assert_eq!(answer.problem(), (404, "not_found"));
    let answer = send(buyer.request(Method::GET, "/orders").header("X-Request-Id", "mine-1")).await;
    assert_eq!(answer.headers["x-request-id"], "mine-1");
}

#[tokio::test]
async fn a_cart_shows_what_cannot_be_bought_any_more_and_is_not_shown_in_part() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1999, 7);
    let buyer = shop.customer();
    let item = format!("/cart/items/{thing}");
    buyer.put(&item, json!({"quantity": 2})).await;
    shop.stock.lock().products.get_mut(&thing.to_string()).unwrap().archived = true;
    let cart = buyer.get("/cart").await.body;
    assert_eq!((&cart["items"][0]["available"], &cart["items"][0]["quantity"]), (&json!(0), &json!(2)));
    assert_eq!(buyer.put(&item, json!({"quantity": 3})).await.problem(), (404, "not_found"));
    // Away, and no product.updated was heard: half a cart would be a lie.
    shop.stock.lock().away = true;
    let answer = buyer.get("/cart").await;
    assert_eq!(answer.problem(), (503, "service_unavailable"));
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn an_order_goes_to_an_address_of_the_book_as_it_was() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1999, 7);
    let buyer = shop.customer();
    let home = shop.book.add(buyer.id, "Hull");
    let body = json!({
        "items": [{"product_id": thing, "quantity": 1}], "address_id": home, "payment_method": "pm_card_visa",
    });
    let placed = buyer.order("k", &body).await;
    assert_eq!((placed.status.as_u16(), &placed.body["shipping_address"]["city"]), (201, &json!("Hull")));
    // A retry gets the first answer, whatever has become of the address or of the user service.
    shop.book.lock().addresses.clear();
    shop.book.lock().away = true;
    let again = buyer.order("k", &body).await;
    assert_eq!((again.id(), again.replayed()), (placed.id(), true));
    assert_eq!(buyer.get(&format!("/orders/{}", placed.id())).await.body["shipping_address"]["city"], "Hull");
    assert_eq!(buyer.order("k2", &body).await.problem(), (503, "service_unavailable"));
    shop.book.lock().away = false;
    let unknown = buyer.order("k2", &body).await;
    assert_eq!(unknown.problem(), (422, "unknown_address"));
    assert_eq!(unknown.body["errors"][0]["pointer"], "/address_id");
    let theirs = shop.book.add(shop.customer().id, "York");
    let mut wrong = body.clone();
    wrong["address_id"] = json!(theirs);
    assert_eq!(buyer.order("k3", &wrong).await.problem(), (422, "unknown_address"));
    assert_eq!(shop.book.lock().asked, 4);

    let mut both = body.clone();
    both["shipping_address"] = address();
    let mut none = body.clone();
    none.as_object_mut().unwrap().remove("address_id");
    let mut null = body.clone();
    null["address_id"] = Value::Null;
    for (body, pointer) in [(both, "/address_id"), (none, "/shipping_address"), (null, "/address_id")] {
        let answer = buyer.order("k4", &body).await;
        assert_eq!(answer.problem(), (422, "validation_failed"), "{body}");
        assert_eq!(answer.body["errors"][0]["pointer"], pointer);
    }
    assert_eq!(shop.book.lock().asked, 4, "nobody is asked for nothing");
}
