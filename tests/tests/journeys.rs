//! What customers and staff do, through the edge.

use reqwest::Method;
use serde_json::{Value, json};
use system_tests::{Shop, address, send};
use uuid::Uuid;

#[tokio::test]
async fn a_customer_browses_fills_a_cart_buys_and_is_notified() {
    let shop = Shop::open().await;
    let found =
        send(shop.request(Method::GET, "/products?category=lighting&in_stock=true&limit=1")).await.unwrap();
    assert_eq!(found.status, 200, "{}", found.body);
    let slug = found.body["items"][0]["slug"].as_str().unwrap();
    let product = send(shop.request(Method::GET, &format!("/products/{slug}"))).await.unwrap();
    let id: Uuid = product.id().parse().unwrap();
    let price = product.body["price"]["amount"].as_i64().unwrap();
    let (on_hand, _) = shop.stock(id).await;

    let buyer = shop.customer().await;
    let cart = buyer.request(Method::PUT, &format!("/cart/items/{id}")).json(&json!({"quantity": 2}));
    let cart = send(cart).await.unwrap();
    assert_eq!(cart.body["total"]["amount"], 2 * price, "{}", cart.body);
    let order = buyer.request(Method::POST, "/orders").header("Idempotency-Key", "first").json(&json!({
        "shipping_address": address(), "payment_method": "pm_card_visa",
    }));
    let order = send(order).await.unwrap();
    assert_eq!((order.status.as_u16(), &order.body["status"]), (201, &json!("pending")), "{}", order.body);

    let ended = buyer.ended(&order.id()).await;
    assert_eq!((&ended["status"], &ended["total"]["amount"]), (&json!("confirmed"), &json!(2 * price)));
    assert_eq!(buyer.get("/cart").await.body["items"], json!([]));
    assert_eq!(buyer.get("/orders").await.body["items"][0]["id"], order.id());
    assert_eq!(shop.stock(id).await.0, on_hand - 2);
    let ledger = shop.ledger(&order.id()).await;
    assert_eq!((&ledger["captured"], &ledger["captures"]), (&json!(2 * price), &json!(1)));
    let notices = "SELECT count(*) FROM users.notifications WHERE order_id = $1";
    shop.eventually(notices, order.id().parse().unwrap(), 2).await;
}

#[tokio::test]
async fn a_declined_card_gives_the_stock_back() {
    let shop = Shop::open().await;
    let product = shop.product(3).await;
    let buyer = shop.customer().await;
    let order = buyer.place(product, 2, "pm_card_chargeDeclined").await;
    let ended = buyer.ended(&order).await;
    assert_eq!(
        (&ended["status"], &ended["cancel_reason"]),
        (&json!("cancelled"), &json!("payment_declined"))
    );
    let reserved = "SELECT reserved::bigint FROM products.stock WHERE product_id = $1";
    shop.eventually(reserved, product, 0).await;
    assert_eq!(shop.stock(product).await, (3, 0));
}

#[tokio::test]
async fn a_cancelled_order_gives_stock_and_money_back() {
    let shop = Shop::open().await;
    let product = shop.product(3).await;
    let buyer = shop.customer().await;
    let order = buyer.place(product, 2, "pm_card_visa").await;
    assert_eq!(buyer.ended(&order).await["status"], "confirmed");
    let cancelled = buyer.post(&format!("/orders/{order}/cancel"), &json!({})).await;
    assert_eq!((cancelled.status.as_u16(), &cancelled.body["status"]), (200, &json!("cancelled")));
    let ended = buyer.ended(&order).await;
    assert_eq!(
        (&ended["payment"]["status"], &ended["refunded"]["amount"]),
        (&json!("refunded"), &json!(2500))
    );
    shop.eventually("SELECT on_hand::bigint FROM products.stock WHERE product_id = $1", product, 3).await;
    let ledger = shop.ledger(&order).await;
    assert_eq!((&ledger["captured"], &ledger["refunded"]), (&json!(2500), &json!(2500)));
}

#[tokio::test]
async fn many_buyers_and_few_units_sell_exactly_what_there_is() {
    let shop = Shop::open().await;
    let product = shop.product(10).await;
    let buyer = shop.customer().await;
    let requests =
        (0..40).map(|n| tokio::spawn(send(buyer.order(&format!("race-{n}"), product, 1, "pm_card_visa"))));
    let (mut placed, mut short) = (Vec::new(), 0);
    for request in requests.collect::<Vec<_>>() {
        let answer = request.await.unwrap().unwrap();
        match answer.status.as_u16() {
            201 => placed.push(answer.id()),
            _ => {
                assert_eq!(answer.problem(), (409, "out_of_stock"), "{}", answer.body);
                short += 1;
            }
        }
    }
    assert_eq!((placed.len(), short), (10, 30));
    for order in &placed {
        assert_eq!(buyer.ended(order).await["status"], "confirmed");
    }
    assert_eq!(shop.stock(product).await, (0, 0));
}

#[tokio::test]
async fn retries_at_once_place_one_order() {
    let shop = Shop::open().await;
    let product = shop.product(100).await;
    let buyer = shop.customer().await;
    let requests = (0..32).map(|_| tokio::spawn(send(buyer.order("again", product, 1, "pm_card_visa"))));
    let mut ids = std::collections::HashSet::new();
    for request in requests.collect::<Vec<_>>() {
        let answer = request.await.unwrap().unwrap();
        if answer.status == 201 {
            ids.insert(answer.id());
        } else {
            assert_eq!(answer.problem(), (409, "idempotency_in_progress"), "{}", answer.body);
        }
    }
    assert_eq!(ids.len(), 1);
    let order = ids.into_iter().next().unwrap();
    assert_eq!(buyer.ended(&order).await["status"], "confirmed");
    assert_eq!(shop.stock(product).await, (99, 0));
}

#[tokio::test]
async fn an_event_delivered_twice_restocks_once() {
    let shop = Shop::open().await;
    let product = shop.product(5).await;
    let buyer = shop.customer().await;
    let order = buyer.place(product, 2, "pm_card_visa").await;
    assert_eq!(buyer.ended(&order).await["status"], "confirmed");
    buyer.post(&format!("/orders/{order}/cancel"), &json!({})).await;
    let on_hand = "SELECT on_hand::bigint FROM products.stock WHERE product_id = $1";
    shop.eventually(on_hand, product, 5).await;

    let id: Uuid = order.parse().unwrap();
    for _ in 0..3 {
        let again = "UPDATE orders.outbox SET published_at = NULL, claimed_until = '-infinity'
                     WHERE aggregate_id = $1 AND type = 'order.cancelled.v1'";
        assert_eq!(sqlx::query(again).bind(id).execute(&shop.database).await.unwrap().rows_affected(), 1);
        let waiting = "SELECT count(*) FROM orders.outbox WHERE aggregate_id = $1 AND published_at IS NULL";
        shop.eventually(waiting, id, 0).await;
    }
    // Another order's event behind the copies: once it is applied, they have been through.
    let other = buyer.place(product, 1, "pm_card_chargeDeclined").await;
    buyer.ended(&other).await;
    shop.eventually("SELECT reserved::bigint FROM products.stock WHERE product_id = $1", product, 0).await;
    assert_eq!(shop.stock(product).await, (5, 0));
    let restocks = "SELECT count(*) FROM products.stock_ledger WHERE product_id = $1 AND kind = 'restock'";
    shop.eventually(restocks, product, 1).await;
}

#[tokio::test]
async fn one_trace_goes_from_the_edge_into_the_events() {
    let shop = Shop::open().await;
    let product = shop.product(5).await;
    let buyer = shop.customer().await;
    let trace = Uuid::now_v7().simple().to_string();
    let order = buyer.order("traced", product, 1, "pm_card_visa");
    let order = order.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    let id = send(order).await.unwrap().id();
    buyer.ended(&id).await;
    let traces: Vec<String> =
        sqlx::query_scalar("SELECT traceparent FROM orders.outbox WHERE aggregate_id = $1")
            .bind(id.parse::<Uuid>().unwrap())
            .fetch_all(&shop.database)
            .await
            .unwrap();
    assert_eq!(traces.len(), 2, "placed and confirmed");
    assert!(traces.iter().all(|found| found.contains(&trace)), "{traces:?} lack {trace}");
}

#[tokio::test]
async fn a_service_reaches_its_own_schema_only() {
    let shop = Shop::open().await;
    let schemas = [("user_service", "users"), ("product_service", "products"), ("order_service", "orders")];
    for (role, own) in schemas {
        for (_, schema) in schemas {
            let mut transaction = shop.transaction().await;
            let become_role = sqlx::AssertSqlSafe(format!("SET LOCAL ROLE {role}"));
            sqlx::query(become_role).execute(&mut *transaction).await.unwrap();
            let read = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {schema}.outbox"));
            let outcome = sqlx::query(read).execute(&mut *transaction).await;
            if schema == own {
                assert!(outcome.is_ok(), "{role} reads {schema}: {outcome:?}");
            } else {
                let error = outcome.expect_err("the others are refused");
                let code = error.as_database_error().and_then(|error| error.code().map(String::from));
                assert_eq!(code.as_deref(), Some("42501"), "{role} in {schema}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn the_edge_answers_with_problems_and_keeps_the_admin_ports_to_itself() {
    let shop = Shop::open().await;
    for path in ["/api/v1/nothing", "/api/v1/meow", "/api"] {
        let answer = send(shop.client.get(format!("{}{path}", shop.edge))).await.unwrap();
        assert_eq!(answer.problem(), (404, "not_found"), "{path}: {}", answer.body);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
    }
    for path in ["/metrics", "/livez", "/readyz", "/log-level"] {
        let answer = send(shop.client.get(format!("{}{path}", shop.edge))).await.unwrap();
        // The storefront's page, or the edge's where none runs.
        assert!([404, 503].contains(&answer.status.as_u16()), "{path}: {}", answer.status);
        assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/html"), "{path}");
    }
    let long = "x".repeat(1024 * 1024 + 1);
    let answer = send(shop.request(Method::POST, "/auth/login").body(long)).await.unwrap();
    assert_eq!(answer.problem(), (413, "payload_too_large"), "{}", answer.body);
    // From an address of its own, so that the other tests keep their share.
    let hasty = reqwest::Client::builder().local_address(Some([127, 0, 0, 9].into())).build().unwrap();
    let url = format!("{}/api/v1/auth/refresh", shop.edge).replace("localhost", "127.0.0.1");
    let mut refused = None;
    for _ in 0..300 {
        let answer = send(hasty.post(&url).json(&json!({"refresh_token": "x"}))).await.unwrap();
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status, 401, "{}", answer.body);
    }
    let refused = refused.expect("300 sign-ins at once are too many");
    assert_eq!(refused.problem(), (429, "rate_limited"));
    assert!(refused.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn one_visitors_guesses_are_refused_and_neither_another_visitor_nor_the_storefront_is() {
    let shop = Shop::open().await;
    let secrets: Value = serde_json::from_str(&shop.file("secrets.json")).unwrap();
    let key = secrets["storefront_key"].as_str().unwrap();
    // As the storefront calls, for a visitor or by itself.
    let sign_in = |visitor: Option<&str>, body: &Value| {
        let request = shop.request(Method::POST, "/auth/login").header("X-Storefront-Key", key).json(body);
        match visitor {
            Some(address) => request.header("X-Visitor-Address", address),
            None => request,
        }
    };
    let mut refused = false;
    for _ in 0..20 {
        let guesses = (0..100).map(|_| tokio::spawn(send(sign_in(Some("203.0.113.7"), &json!({})))));
        for guess in guesses.collect::<Vec<_>>() {
            refused |= guess.await.unwrap().unwrap().problem() == (429, "rate_limited");
        }
        if refused {
            break;
        }
    }
    assert!(refused, "2,000 guesses in a row were let through");
    let right = json!({"email": "demo@dockside.test", "password": "dockside-demo"});
    for visitor in [Some("203.0.113.8"), Some("2001:db8::8"), None] {
        let answer = send(sign_in(visitor, &right)).await.unwrap();
        assert_eq!(answer.status, 200, "{visitor:?}: {}", answer.body);
    }
}
