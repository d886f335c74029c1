//! Carts, and what the API refuses.

use crate::common::{Shop, address, order_of, send};
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
        (json!({"quantity": "2"}), "invalid_value"),
        (json!({"quantity": null}), "invalid_value"),
        (json!({"quantity": 4_294_967_297_u64}), "invalid_value"),
        (json!({}), "missing_field"),
        (json!({"quantity": 1, "price": 1}), "unknown_field"),
    ] {
        let answer = buyer.put(&item, body.clone()).await;
        assert_eq!(answer.problem(), (422, "validation_failed"), "{body}");
        let error = &answer.body["errors"][0];
        let pointer = if code == "unknown_field" { "/price" } else { "/quantity" };
        assert_eq!((&error["code"], &error["pointer"]), (&json!(code), &json!(pointer)), "{body}");
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
async fn a_cart_is_its_users_own_and_a_quantity_is_set_not_added() {
    let shop = Shop::open().await;
    let (thing, other) = (shop.stock.add(100, 7), shop.stock.add(250, 7));
    let (buyer, neighbour) = (shop.customer(), shop.customer());
    for (product, quantity) in [(thing, 2), (other, 999), (thing, 5)] {
        let cart = buyer.put(&format!("/cart/items/{product}"), json!({"quantity": quantity})).await;
        assert_eq!(cart.status, 200, "more than there is may be wished for");
    }
    let cart = buyer.get("/cart").await.body;
    assert_eq!(cart["total"], json!({"amount": 5 * 100 + 999 * 250, "currency": "EUR"}));
    let lines: Vec<_> = cart["items"].as_array().unwrap().iter().map(|item| &item["quantity"]).collect();
    assert_eq!(lines, [5, 999], "in the order they came in");

    assert_eq!(neighbour.get("/cart").await.body["items"], json!([]));
    assert_eq!(send(neighbour.request(Method::DELETE, &format!("/cart/items/{thing}"))).await.status, 200);
    assert_eq!(send(neighbour.request(Method::DELETE, "/cart")).await.status, 204);
    assert_eq!(buyer.get("/cart").await.body, cart);
    for _ in 0..2 {
        assert_eq!(send(buyer.request(Method::DELETE, "/cart")).await.status, 204);
        assert_eq!(buyer.get("/cart").await.body["items"], json!([]));
    }
}

#[tokio::test]
async fn adding_to_a_line_that_another_tab_has_changed_is_refused() {
    let shop = Shop::open().await;
    let (thing, buyer) = (shop.stock.add(100, 7), shop.customer());
    let path = format!("/cart/items/{thing}");
    let put = |quantity: i32, expected: Value| {
        buyer.put(&path, json!({"quantity": quantity, "expected_quantity": expected}))
    };
    assert_eq!(put(2, json!(1)).await.problem(), (409, "cart_changed"));
    assert_eq!(buyer.get("/cart").await.body["items"], json!([]));
    // Both tabs have seen nothing in it.
    let (one, two) = tokio::join!(put(1, json!(0)), put(1, json!(0)));
    let (done, refused) = if one.status == 200 { (one, two) } else { (two, one) };
    assert_eq!(done.body["items"][0]["quantity"], 1);
    assert_eq!(refused.problem(), (409, "cart_changed"));
    assert_eq!(put(2, json!(1)).await.body["items"][0]["quantity"], 2);
    for bad in [json!(-1), json!(1000), json!(null), json!("1")] {
        assert_eq!(put(3, bad).await.problem(), (422, "validation_failed"));
    }
    assert_eq!(buyer.get("/cart").await.body["items"][0]["quantity"], 2);
}

#[tokio::test]
async fn a_change_of_a_cart_that_is_sent_twice_with_a_key_is_made_once() {
    let shop = Shop::open().await;
    let (thing, buyer) = (shop.stock.add(100, 7), shop.customer());
    let path = format!("/cart/items/{thing}");
    let put = |key: &str, quantity: i32, expected: i32| {
        let request = buyer.request(Method::PUT, &path).header("Idempotency-Key", key);
        send(request.json(&json!({"quantity": quantity, "expected_quantity": expected})))
    };
    for _ in 0..2 {
        let put = put("a", 1, 0).await;
        assert_eq!((put.status.as_u16(), &put.body["items"][0]["quantity"]), (200, &json!(1)));
    }
    assert_eq!(put("a", 2, 1).await.problem(), (422, "idempotency_key_reused"));
    // A refusal is not kept: by now it may be right.
    assert_eq!(put("b", 3, 2).await.problem(), (409, "cart_changed"));
    assert_eq!(put("c", 2, 1).await.body["items"][0]["quantity"], 2);
    assert_eq!(put("b", 3, 2).await.body["items"][0]["quantity"], 3);
    // The cart as it is now.
    assert_eq!(put("a", 1, 0).await.body["items"][0]["quantity"], 3);
    assert_eq!(put("a b", 1, 0).await.problem(), (400, "idempotency_key_invalid"));
    let kept = "SELECT count(*) FROM orders.idempotency_keys WHERE user_id = $1";
    let kept: i64 = sqlx::query_scalar(kept).bind(buyer.id).fetch_one(&shop.pool).await.unwrap();
    assert_eq!(kept, 3);
}

#[tokio::test]
async fn a_cart_holds_a_hundred_products_of_one_currency() {
    let shop = Shop::open().await;
    let buyer = shop.customer();
    let put =
        async |product: Uuid| buyer.put(&format!("/cart/items/{product}"), json!({"quantity": 1})).await;
    let first = shop.stock.add(100, 7);
    assert_eq!(put(first).await.status, 200);
    let dollars = shop.stock.add(100, 7);
    shop.stock.lock().products.get_mut(&dollars.to_string()).unwrap().price.as_mut().unwrap().currency =
        "USD".to_owned();
    assert_eq!(put(dollars).await.problem(), (409, "mixed_currencies"));
    assert_eq!(buyer.get("/cart").await.body["items"].as_array().unwrap().len(), 1);
    for _ in 1..100 {
        assert_eq!(put(shop.stock.add(100, 7)).await.status, 200);
    }
    assert_eq!(put(shop.stock.add(100, 7)).await.problem(), (409, "cart_full"));
    let cart = put(first).await;
    assert_eq!(cart.body["items"].as_array().unwrap().len(), 100, "what is in it may still be changed");
    assert_eq!(cart.body["total"]["amount"], 100 * 100);

    // Alone in the cart, another currency is as good.
    assert_eq!(send(buyer.request(Method::DELETE, "/cart")).await.status, 204);
    assert_eq!(put(dollars).await.body["total"], json!({"amount": 100, "currency": "USD"}));
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
    let mut cheaper = line.clone();
    cheaper["unit_price"] = json!({"amount": 1, "currency": "EUR"});
    let many: Vec<Value> = (0..101).map(|_| json!({"product_id": Uuid::now_v7(), "quantity": 1})).collect();
    let long = format!("pm_{}", "x".repeat(98));
    for (body, code, pointer) in [
        (with("/items/0/quantity", json!(0)), "validation_failed", "/items/0/quantity"),
        (with("/items/0/product_id", json!("x")), "validation_failed", "/items/0/product_id"),
        (with("/items", json!([])), "validation_failed", "/items"),
        (with("/items", json!(null)), "validation_failed", "/items"),
        (with("/items/0", json!([thing, 1])), "validation_failed", "/items/0"),
        (with("/shipping_address/country", json!("UK")), "validation_failed", "/shipping_address/country"),
        (with("/items", json!([line, line])), "validation_failed", "/items/1/product_id"),
        (with("/items/0/product_id", json!(Uuid::now_v7())), "unknown_product", "/items/0/product_id"),
        (with("/items/0/quantity", json!(1000)), "validation_failed", "/items/0/quantity"),
        (with("/items/0/quantity", json!(-1)), "validation_failed", "/items/0/quantity"),
        (with("/items/0/quantity", json!(1.5)), "validation_failed", "/items/0/quantity"),
        (with("/items", json!(many)), "validation_failed", "/items"),
        (with("/items/0", json!({"product_id": thing})), "validation_failed", "/items/0/quantity"),
        (with("/items/0", cheaper), "validation_failed", "/items/0/unit_price"),
        (with("/shipping_address", json!(null)), "validation_failed", "/shipping_address"),
        (with("/shipping_address", json!("home")), "validation_failed", "/shipping_address"),
        (
            with("/shipping_address/line1", json!("x".repeat(201))),
            "validation_failed",
            "/shipping_address/line1",
        ),
        (
            with("/shipping_address/postal_code", json!(1)),
            "validation_failed",
            "/shipping_address/postal_code",
        ),
        (with("/payment_method", json!(null)), "validation_failed", "/payment_method"),
        (with("/payment_method", json!("")), "unknown_payment_method", "/payment_method"),
        (with("/payment_method", json!("pm_käse")), "unknown_payment_method", "/payment_method"),
        (with("/payment_method", json!("pm_a b")), "unknown_payment_method", "/payment_method"),
        (with("/payment_method", json!("PM_card_visa")), "unknown_payment_method", "/payment_method"),
        (with("/payment_method", json!(long)), "unknown_payment_method", "/payment_method"),
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
    // Codes of a field's own.
    let mut both = order_of(thing, 1, "pm_card_visa");
    both["address_id"] = json!(Uuid::now_v7());
    for (body, pointer, code) in [
        (both, "/address_id", "ambiguous"),
        (with("/items", json!([line, line])), "/items/1/product_id", "duplicate_item"),
    ] {
        let answer = buyer.order(&Uuid::now_v7().to_string(), &body).await;
        assert_eq!(answer.problem(), (422, "validation_failed"), "{body}");
        let error = &answer.body["errors"][0];
        assert_eq!((&error["pointer"], &error["code"]), (&json!(pointer), &json!(code)), "{body}");
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
    for key in ["", "x y", "clé", &"k".repeat(256)] {
        let answer = send(post().header("Idempotency-Key", key).json(&body)).await;
        assert_eq!(answer.problem(), (400, "idempotency_key_invalid"), "{key}");
    }
    let longest = send(post().header("Idempotency-Key", "~".repeat(255)).json(&body)).await;
    assert_eq!(longest.problem(), (422, "cart_empty"));
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
    // Product is away, and no product.updated has come: half a cart would be wrong.
    shop.stock.lock().away = true;
    let other = format!("/cart/items/{}", Uuid::now_v7());
    for request in [
        buyer.request(Method::GET, "/cart"),
        buyer.request(Method::PUT, &item).json(&json!({"quantity": 3})),
        buyer.request(Method::PUT, &other).json(&json!({"quantity": 3})),
    ] {
        let answer = send(request).await;
        assert_eq!(answer.problem(), (503, "service_unavailable"));
        assert!(answer.headers.contains_key("retry-after"));
    }
    shop.stock.lock().away = false;
    assert_eq!(buyer.get("/cart").await.body, cart);
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

#[tokio::test]
async fn an_order_that_cannot_be_had_names_each_line_and_takes_nothing() {
    let shop = Shop::open().await;
    let things = [shop.stock.add(100, 5), shop.stock.add(100, 5), shop.stock.add(100, 5)];
    let buyer = shop.customer();
    let wanted = [6, 5, 999];
    for (thing, quantity) in things.iter().zip(wanted) {
        buyer.put(&format!("/cart/items/{thing}"), json!({"quantity": quantity})).await;
    }
    let cart = buyer.get("/cart").await.body;
    let from_cart = json!({"shipping_address": address(), "payment_method": "pm_card_visa"});
    let line = |(product, quantity): (&Uuid, i32)| json!({"product_id": product, "quantity": quantity});
    let mut named = from_cart.clone();
    named["items"] = things.iter().zip(wanted).map(line).collect();
    for (key, body) in [("cart", &from_cart), ("named", &named)] {
        let answer = buyer.order(key, body).await;
        assert_eq!(answer.problem(), (409, "out_of_stock"));
        let errors = answer.body["errors"].as_array().unwrap();
        let errors: Vec<_> = errors.iter().map(|error| (&error["pointer"], &error["code"])).collect();
        let short = json!("out_of_stock");
        assert_eq!(errors, [(&json!("/items/0"), &short), (&json!("/items/2"), &short)], "{key}");
        assert!(!answer.headers.contains_key("location"));
    }
    let mut unknown = named.clone();
    unknown["items"][0]["product_id"] = json!(Uuid::now_v7());
    unknown["items"][2]["product_id"] = json!(Uuid::now_v7());
    let answer = buyer.order("unknown", &unknown).await;
    assert_eq!(answer.problem(), (422, "unknown_product"));
    let errors = answer.body["errors"].as_array().unwrap();
    let pointers: Vec<_> = errors.iter().map(|error| &error["pointer"]).collect();
    assert_eq!(pointers, ["/items/0/product_id", "/items/2/product_id"]);

    assert_eq!(buyer.get("/orders").await.body["items"], json!([]));
    assert_eq!(buyer.get("/cart").await.body, cart, "with its stock");
}

#[tokio::test]
async fn an_order_that_cannot_be_paid_gives_its_reservation_back() {
    let shop = Shop::open().await;
    let (dear, odd, dollars) =
        (shop.stock.add(500_000_000_000, 9), shop.stock.add(5124, 9), shop.stock.add(1, 9));
    shop.stock.lock().products.get_mut(&dollars.to_string()).unwrap().price.as_mut().unwrap().currency =
        "USD".to_owned();
    shop.stock.lock().products.get_mut(&odd.to_string()).unwrap().price.as_mut().unwrap().currency =
        "KWD".to_owned();
    let buyer = shop.customer();
    let line = |product: Uuid, quantity: u32| json!({"product_id": product, "quantity": quantity});
    for (items, pointer, code) in [
        (json!([line(dear, 2)]), "/items/0", "total_too_large"),
        (json!([line(odd, 3)]), "/items", "total_not_chargeable"),
        (json!([line(dear, 1), line(dollars, 1)]), "/items/1", "mixed_currencies"),
    ] {
        let body = json!({"items": items, "shipping_address": address(), "payment_method": "pm_card_visa"});
        for replayed in [false, true] {
            let answer = buyer.order(code, &body).await;
            assert_eq!((answer.problem(), answer.replayed()), ((422, "validation_failed"), replayed));
            let error = &answer.body["errors"][0];
            assert_eq!((&error["pointer"], &error["code"]), (&json!(pointer), &json!(code)));
        }
    }
    assert_eq!(buyer.get("/orders").await.body["items"], json!([]));
    for product in [dear, odd, dollars] {
        assert_eq!(shop.stock.lock().products[&product.to_string()].available, 9);
    }
}

#[tokio::test]
async fn words_of_any_script_come_back_as_they_were_sent() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1999, 7);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let word = " Zoë 👩\u{200d}🚀 \u{202e}ﷺ e\u{301} \u{2028}<b>&'\"\\/ \u{feff}\u{10ffff} ";
    let place = json!({
        "name": word, "line1": word, "line2": word, "city": word, "region": word, "postal_code": "١٢٣",
        "country": "HK",
    });
    let mut body = order_of(thing, 1, "pm_card_visa");
    body["shipping_address"] = place.clone();
    let id = buyer.place(&body).await.id();
    assert_eq!(buyer.until(&id, "confirmed", "captured").await["shipping_address"], place);
    let refund =
        staff.refund(&id, &json!({"reason": word, "amount": {"amount": 1, "currency": "EUR"}})).await;
    assert_eq!((refund.status.as_u16(), &refund.body["reason"]), (201, &json!(word)));
    let refunds = buyer.get(&format!("/orders/{id}/refunds")).await.body;
    assert_eq!(refunds["items"][0]["reason"], word);
    let parcel = json!({"carrier": word, "tracking_number": word});
    let shipped = staff.post_json(&format!("/orders/{id}/ship"), parcel.clone()).await;
    assert_eq!((shipped.status.as_u16(), &shipped.body["tracking"]), (200, &parcel));
    assert_eq!(buyer.get(&format!("/orders/{id}")).await.body["tracking"], parcel);
}

#[tokio::test]
async fn a_store_or_a_provider_that_is_spoken_to_in_the_clear_is_refused_before_anything_is_opened() {
    use clap::Parser;

    let started = |settings: &[&str]| {
        let of_all = ["--http-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"];
        let own = ["--service-key=x", "--payment-secret-key=x", "--payment-webhook-secret=x"];
        let all = ["order"].into_iter().chain(of_all).chain(own).chain(settings.iter().copied());
        let config = order::Config::parse_from(all);
        async move { order::start(config, &service::Lifecycle::new()).await.unwrap_err().to_string() }
    };
    let verified = "--database-url=postgres://db.example/shop?sslmode=verify-full";
    let (broker, provider) = ("--amqp-url=amqps://broker.example", "--payment-url=https://provider.example");
    let (keys, product) = ("--jwks-url=https://user:9081/keys", "--product-grpc=https://product:9082");
    for (settings, setting) in [
        (&["--database-url=postgres://db.example/shop", broker, provider][..], "DATABASE_URL"),
        (&[verified, "--amqp-url=amqp://broker.example", provider], "AMQP_URL"),
        (&[verified, broker, "--payment-url=http://provider.example"], "PAYMENT_URL"),
        (&[verified, broker, provider], "JWKS_URL"),
        (&[verified, broker, provider, keys], "PRODUCT_GRPC"),
        (&[verified, broker, provider, keys, product], "USER_GRPC"),
    ] {
        let said = started(settings).await;
        assert!(said.starts_with(&format!("{setting} leads over the network unencrypted")), "{said}");
    }
}
