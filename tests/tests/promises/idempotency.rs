//! P4: one effect per Idempotency-Key.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sqlx::{Postgres, Transaction};
use system_tests::keys::storm;
use system_tests::{Answer, Buyer, Shop, address, eventually, send};
use uuid::Uuid;

const ORDERS_OF: &str = "SELECT count(DISTINCT order_id) FROM orders.order_items WHERE product_id = $1";
const RESERVATIONS_OF: &str = "SELECT count(*) FROM products.reservation_lines WHERE product_id = $1";

/// Holds up what writes to a table, until it is dropped or rolled back.
async fn gate(shop: &Shop, table: &str) -> Transaction<'static, Postgres> {
    let mut gate = shop.transaction().await;
    let lock = format!("LOCK TABLE {table} IN SHARE MODE");
    sqlx::query(sqlx::AssertSqlSafe(lock)).execute(&mut *gate).await.unwrap();
    gate
}

/// Until a statement with these words in it waits for a lock.
async fn held_up(shop: &Shop, words: &str) {
    let waits = || async {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND strpos(query, $1) > 0",
        )
        .bind(words)
        .fetch_one(&shop.database)
        .await
        .unwrap();
        (waiting > 0).then_some(())
    };
    eventually("a statement to wait at the gate", Duration::from_secs(10), waits).await;
}

/// A refund of one euro.
fn refund(staff: &Buyer<'_>, key: &str, order: &str) -> RequestBuilder {
    let body = json!({"reason": "Scratched", "amount": {"amount": 100, "currency": "EUR"}});
    let request = staff.request(Method::POST, &format!("/orders/{order}/refunds"));
    request.header("Idempotency-Key", key).json(&body)
}

/// The answer to a request that is sent again, with pauses, until it is neither refused for now nor lost.
async fn settled(request: impl Fn() -> RequestBuilder) -> Answer {
    let answered = || async {
        let answer = send(request()).await.ok()?;
        let passing = answer.status == 503 || answer.problem() == (409, "idempotency_in_progress");
        (!passing).then_some(answer)
    };
    eventually("an answer", Duration::from_secs(30), answered).await
}

#[tokio::test]
async fn p4_many_identical_requests_at_once_have_one_effect_and_one_answer() {
    let shop = Shop::open().await;
    let tally = storm(&shop, 5).await;
    assert_eq!(tally.first, 10);
    println!("{tally:?}");
}

#[tokio::test]
async fn p4_a_request_whose_connection_is_cut_has_its_effect_once_or_not_at_all() {
    let shop = Shop::open().await;
    let product = shop.product(5).await;
    let buyer = shop.customer().await;

    // In the middle of its body: no service has got it.
    let order = json!({
        "items": [{"product_id": product, "quantity": 1}],
        "shipping_address": address(),
        "payment_method": "pm_card_visa",
    });
    let body = order.to_string();
    let host = shop.edge.trim_start_matches("http://");
    let head = format!(
        "POST /api/v1/orders HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\nIdempotency-Key: half\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        buyer.token,
        body.len(),
    );
    let mut connection = TcpStream::connect(host).unwrap();
    connection.write_all(format!("{head}{}", &body[..body.len() / 2]).as_bytes()).unwrap();
    drop(connection);
    let answer = settled(|| buyer.order("half", product, 1, "pm_card_visa")).await;
    assert_eq!((answer.status.as_u16(), answer.replayed()), (201, false), "{}", answer.body);

    // With its reservation made and its order not yet: it runs to its end all the same.
    let held = gate(&shop, "orders.orders").await;
    let request = tokio::spawn(buyer.order("cut", product, 2, "pm_card_visa").send());
    held_up(&shop, "WITH placed AS").await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    held.rollback().await.unwrap();
    let answer = settled(|| buyer.order("cut", product, 2, "pm_card_visa")).await;
    assert_eq!((answer.status.as_u16(), answer.replayed()), (201, true), "{}", answer.body);

    buyer.ended(&answer.id()).await;
    shop.eventually(ORDERS_OF, product, 2).await;
    shop.eventually("SELECT reserved::bigint FROM products.stock WHERE product_id = $1", product, 0).await;
    assert_eq!(shop.stock(product).await, (2, 0));
}

/// Sends the request, kills the order service once a statement of it waits at the gate, and returns what
/// the key's retries come to.
async fn killed(
    shop: &Shop,
    key: &str,
    table: &str,
    words: &str,
    request: impl Fn() -> RequestBuilder,
) -> Answer {
    let held = gate(shop, table).await;
    let first = tokio::spawn(send(request()));
    held_up(shop, words).await;
    shop.kill("order");
    let lost = first.await.unwrap();
    assert!(lost.as_ref().map_or(true, |answer| answer.status.is_server_error()), "{lost:?}");
    held.rollback().await.unwrap();
    let back = || async { send(request()).await.ok().filter(|answer| answer.status != 503) };
    let answer = eventually("the service to be back", Duration::from_secs(30), back).await;
    if answer.status == 201 {
        return answer;
    }
    // The dead request's claim is respected while its lease of half a minute runs ...
    assert_eq!(answer.problem(), (409, "idempotency_in_progress"), "{}", answer.body);
    assert!(answer.headers.contains_key("retry-after"));
    // ... which is not waited for here.
    let lapse = "UPDATE orders.claims SET lease_until = now() WHERE key = $1 AND answer_status IS NULL";
    let lapsed = sqlx::query(lapse).bind(key).execute(&shop.database).await.unwrap();
    assert_eq!(lapsed.rows_affected(), 1, "there is one claim");
    settled(request).await
}

#[tokio::test]
async fn p4_a_request_whose_service_is_killed_has_its_effect_once_when_it_is_sent_again() {
    let shop = Shop::open().await;
    let product = shop.product(10).await;
    let (buyer, staff) = (shop.customer().await, shop.staff().await);
    let mut orders = Vec::new();
    // Before the claim is there; and between reservation and order.
    for (table, words) in
        [("orders.claims", "INSERT INTO orders.claims"), ("orders.orders", "WITH placed AS")]
    {
        let key = format!("{table}-{}", Uuid::now_v7());
        let order = || buyer.order(&key, product, 2, "pm_card_visa");
        let answer = killed(&shop, &key, table, words, order).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        let again = settled(order).await;
        assert_eq!((again.replayed(), &again.body), (true, &answer.body));
        orders.push(answer.id());
    }
    for order in &orders {
        assert_eq!(buyer.ended(order).await["status"], "confirmed");
        let ledger = shop.ledger(order).await;
        assert_eq!((&ledger["captured"], &ledger["captures"]), (&json!(2500), &json!(1)), "{ledger}");
    }
    shop.eventually(ORDERS_OF, product, 2).await;
    shop.eventually("SELECT reserved::bigint FROM products.stock WHERE product_id = $1", product, 0).await;
    assert_eq!(shop.stock(product).await, (6, 0));

    let (key, order) = (Uuid::now_v7().to_string(), &orders[0]);
    let request = || refund(&staff, &key, order);
    let answer = killed(&shop, &key, "orders.refunds", "INSERT INTO orders.refunds", request).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let again = settled(request).await;
    assert_eq!((again.replayed(), again.id()), (true, answer.id()));
    let refunded = || async { (shop.ledger(order).await["refunded"] == 100).then_some(()) };
    eventually("the money to go back", Duration::from_secs(30), refunded).await;
    let list = buyer.get(&format!("/orders/{order}/refunds")).await.body;
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
}

#[tokio::test]
async fn p4_a_key_whose_first_attempt_was_refused_for_now_can_be_tried_again() {
    let shop = Shop::open().await;
    let product = shop.product(5).await;
    let buyer = shop.customer().await;
    let order = || buyer.order("later", product, 2, "pm_card_visa");
    // The catalogue answers too late: nobody gets its answer.
    let held = gate(&shop, "products.reservations").await;
    let answer = send(order()).await.unwrap();
    assert_eq!(answer.problem(), (503, "service_unavailable"), "{}", answer.body);
    assert!(answer.headers.contains_key("retry-after"));
    held.rollback().await.unwrap();
    let answer = settled(order).await;
    assert_eq!((answer.status.as_u16(), answer.replayed()), (201, false), "{}", answer.body);
    assert_eq!(buyer.ended(&answer.id()).await["status"], "confirmed");
    shop.eventually(ORDERS_OF, product, 1).await;
    shop.eventually(RESERVATIONS_OF, product, 1).await;
    assert_eq!(shop.stock(product).await, (3, 0));
}

#[tokio::test]
async fn p4_a_key_belongs_to_one_user_one_operation_and_one_body() {
    let shop = Shop::open().await;
    let product = shop.product(10).await;
    let (buyer, other, staff) = (shop.customer().await, shop.customer().await, shop.staff().await);
    let key = Uuid::now_v7().to_string();
    let order = async |who: &Buyer<'_>, quantity| {
        send(who.order(&key, product, quantity, "pm_card_visa")).await.unwrap()
    };
    let first = order(&buyer, 1).await;
    assert_eq!(first.status, 201, "{}", first.body);
    assert_eq!(order(&buyer, 2).await.problem(), (422, "idempotency_key_reused"));
    let others = order(&other, 2).await;
    assert_eq!((others.status.as_u16(), others.replayed()), (201, false), "{}", others.body);
    assert_ne!(others.id(), first.id());
    assert_eq!(other.get(&format!("/orders/{}", first.id())).await.problem(), (404, "not_found"));

    // What was said counts, not how it was written.
    let (id, place) = (product.to_string(), address());
    let spaced = format!(
        "{{ \"payment_method\": \"pm_card_visa\",\n \"shipping_address\": {place},\n\t\"items\":\
         [ {{\"quantity\": 1, \"product_id\": \"{}\"}} ] }}",
        id.to_uppercase(),
    );
    let request = buyer.request(Method::POST, "/orders").header("Content-Type", "application/json");
    let again = send(request.header("Idempotency-Key", &key).body(spaced)).await.unwrap();
    assert_eq!((again.replayed(), again.id()), (true, first.id()), "{}", again.body);

    // A refund under the same key is another matter, and of another order another body.
    for order in [&first, &others] {
        let owner = if order.id() == first.id() { &buyer } else { &other };
        assert_eq!(owner.ended(&order.id()).await["status"], "confirmed");
    }
    let refunded = send(refund(&staff, &key, &first.id())).await.unwrap();
    assert_eq!((refunded.status.as_u16(), refunded.replayed()), (201, false), "{}", refunded.body);
    let elsewhere = send(refund(&staff, &key, &others.id())).await.unwrap();
    assert_eq!(elsewhere.problem(), (422, "idempotency_key_reused"), "{}", elsewhere.body);
    shop.eventually(ORDERS_OF, product, 2).await;
    assert_eq!(shop.stock(product).await, (7, 0));
}

#[tokio::test]
async fn p4_a_refusal_for_good_is_the_keys_answer_for_good() {
    let shop = Shop::open().await;
    let product = shop.product(1).await;
    let (buyer, staff) = (shop.customer().await, shop.staff().await);
    let order = |key: &'static str| send(buyer.order(key, product, 2, "pm_card_visa"));
    let first = order("short").await.unwrap();
    assert_eq!((first.problem(), first.replayed()), ((409, "out_of_stock"), false));
    let more = json!({"delta": 5, "reason": "A delivery"});
    assert_eq!(staff.post(&format!("/products/{product}/stock-adjustments"), &more).await.status, 201);
    let again = order("short").await.unwrap();
    assert_eq!((again.problem(), again.replayed()), ((409, "out_of_stock"), true));
    assert_eq!(again.body["errors"], first.body["errors"]);
    let anew = order("enough").await.unwrap();
    assert_eq!(anew.status, 201, "{}", anew.body);

    let id = anew.id();
    buyer.ended(&id).await;
    let path = format!("/orders/{id}/refunds");
    let key = Uuid::now_v7().to_string();
    let all = json!({"reason": "All of it"});
    let more = json!({"reason": "More", "amount": {"amount": 2501, "currency": "EUR"}});
    let refund = async |key: &str, body: &Value| {
        send(staff.request(Method::POST, &path).header("Idempotency-Key", key).json(body)).await.unwrap()
    };
    for replayed in [false, true] {
        let answer = refund(&key, &more).await;
        assert_eq!((answer.problem(), answer.replayed()), ((409, "refund_exceeds_captured"), replayed));
    }
    assert_eq!(refund(&Uuid::now_v7().to_string(), &all).await.status, 201);
    assert_eq!(buyer.get(&path).await.body["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn p4_what_is_no_key_is_refused_before_anything_is_done() {
    let shop = Shop::open().await;
    let product = shop.product(5).await;
    let (buyer, staff) = (shop.customer().await, shop.staff().await);
    let order = buyer.place(product, 1, "pm_card_visa").await;
    buyer.ended(&order).await;
    let paths = [(&buyer, "/orders".to_owned()), (&staff, format!("/orders/{order}/refunds"))];
    for (who, path) in &paths {
        let body = match *path == "/orders" {
            true => json!({"items": [{"product_id": product, "quantity": 1}],
                "shipping_address": address(), "payment_method": "pm_card_visa"}),
            false => json!({"reason": "None"}),
        };
        let request = || who.request(Method::POST, path).json(&body);
        let missing = send(request()).await.unwrap();
        assert_eq!(missing.problem(), (400, "idempotency_key_missing"), "{path}");
        let long = "k".repeat(256);
        for key in ["", "two words", "clé", "a\tb", &long] {
            let answer = send(request().header("Idempotency-Key", key.as_bytes())).await.unwrap();
            assert_eq!(answer.status, 400, "{path} {key:?} {}", answer.body);
        }
        let twice = request().header("Idempotency-Key", "one").header("Idempotency-Key", "two");
        let answer = send(twice).await.unwrap();
        assert_eq!(answer.problem(), (400, "idempotency_key_invalid"), "{path} {}", answer.body);
    }
    shop.eventually(ORDERS_OF, product, 1).await;
    assert_eq!(buyer.get(&format!("/orders/{order}/refunds")).await.body["items"], json!([]));
    let longest = "k".repeat(255);
    let answer = send(buyer.order(&longest, product, 1, "pm_card_visa")).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.body);
}
