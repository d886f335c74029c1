//! Requests that are sent again with their Idempotency-Key, because their answers were lost.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

use crate::common::{Shop, form, id, shop};
use futures_util::future::join_all;
use identity::Role;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

/// Status, whether it is an earlier request's answer, and the body.
async fn send(request: RequestBuilder) -> (u16, bool, Value) {
    let response = request.send().await.unwrap();
    let replayed = response.headers().get("idempotency-replayed").is_some_and(|value| value == "true");
    let (status, body) = crate::common::answer(response).await;
    (status, replayed, body)
}

/// Posts to `path` as whoever holds `token`.
fn post(shop: &Shop, token: &str, path: &str, key: &str, body: &Value) -> RequestBuilder {
    shop.anyone(Method::POST, path).bearer_auth(token).header("idempotency-key", key).json(body)
}

async fn count(shop: &Shop, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&shop.pool).await.unwrap()
}

#[tokio::test]
async fn an_adjustment_that_is_repeated_counts_once() {
    let shop = shop().await;
    let product = shop.stocked(5).await;
    let path = format!("/products/{product}/stock-adjustments");
    let token = shop.token(Role::Staff);
    let delivery = json!({"delta": 3, "reason": "a delivery"});
    let (status, replayed, entry) = send(post(&shop, &token, &path, "k-1", &delivery)).await;
    assert_eq!((status, replayed, &entry["on_hand"]), (201, false, &json!(8)));
    let spaced = r#"{ "reason": "a delivery",  "delta": 3 }"#;
    let again = shop.anyone(Method::POST, &path).bearer_auth(&token).header("idempotency-key", "k-1");
    let again = send(again.header("content-type", "application/json").body(spaced)).await;
    assert_eq!(again, (201, true, entry));
    assert_eq!(shop.stock(&product).await, (8, 0));

    // Another body or product; another key, another user, no key.
    let other = json!({"delta": 4, "reason": "a delivery"});
    let elsewhere = format!("/products/{}/stock-adjustments", shop.stocked(5).await);
    for (path, body) in [(&path, &other), (&elsewhere, &delivery)] {
        let (status, _, problem) = send(post(&shop, &token, path, "k-1", body)).await;
        assert_eq!((status, &problem["code"]), (422, &json!("idempotency_key_reused")));
    }
    assert_eq!(send(post(&shop, &token, &path, "k-2", &delivery)).await.2["on_hand"], 11);
    assert_eq!(send(post(&shop, &shop.token(Role::Staff), &path, "k-1", &delivery)).await.2["on_hand"], 14);
    for on_hand in [17, 20] {
        assert_eq!(shop.post(&path, &delivery).await.1["on_hand"], on_hand);
    }
    for bad in ["", "two words", &"k".repeat(256)] {
        let (status, _, problem) = send(post(&shop, &token, &path, bad, &delivery)).await;
        assert_eq!((status, &problem["code"]), (400, &json!("idempotency_key_invalid")), "{bad}");
    }
    assert_eq!(shop.stock(&product).await, (20, 0));
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn a_refusal_is_the_answer_to_its_key_even_when_there_is_stock_by_then() {
    let shop = shop().await;
    let product = shop.stocked(1).await;
    let path = format!("/products/{product}/stock-adjustments");
    let token = shop.token(Role::Staff);
    let lost = json!({"delta": -2, "reason": "lost"});
    let first = send(post(&shop, &token, &path, "k", &lost)).await;
    assert_eq!((first.0, first.1, &first.2["code"]), (409, false, &json!("insufficient_stock")));
    assert_eq!(shop.post(&path, &json!({"delta": 5, "reason": "found"})).await.0, 201);
    let again = send(post(&shop, &token, &path, "k", &lost)).await;
    assert_eq!((again.0, again.1, &again.2["code"]), (409, true, &json!("insufficient_stock")));
    assert_eq!(shop.stock(&product).await, (6, 0));
}

#[tokio::test]
async fn of_many_requests_with_one_key_at_once_one_counts() {
    let shop = shop().await;
    let product = shop.stocked(0).await;
    let path = format!("/products/{product}/stock-adjustments");
    let token = shop.token(Role::Staff);
    let delivery = json!({"delta": 1, "reason": "a delivery"});
    let made = form();
    let answers = join_all((0..32).map(async |n| match n % 2 {
        0 => send(post(&shop, &token, &path, "k", &delivery)).await,
        _ => send(post(&shop, &token, "/products", "k", &made)).await,
    }));
    for (status, _, problem) in answers.await {
        assert!(status == 201 || status == 503 || problem["code"] == "idempotency_in_progress", "{problem}");
    }
    assert_eq!(shop.stock(&product).await, (1, 0));
    assert_eq!(count(&shop, "SELECT count(*) FROM products.products").await, 2);
    assert!(send(post(&shop, &token, &path, "k", &delivery)).await.1, "it is the first one's answer");
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn whoever_repeats_the_making_of_a_product_gets_the_one_that_was_made() {
    let shop = shop().await;
    let token = shop.token(Role::Staff);
    let new = form();
    let first = post(&shop, &token, "/products", "k", &new).send().await.unwrap();
    let again = post(&shop, &token, "/products", "k", &new).send().await.unwrap();
    for header in ["location", "etag", "content-type"] {
        assert_eq!(first.headers()[header], again.headers()[header], "{header}");
    }
    let (first, again) = (crate::common::answer(first).await, crate::common::answer(again).await);
    assert_eq!((first.0, &first), (201, &again));
    assert_eq!(shop.get(&format!("/products/{}", id(&first.1))).await.1, first.1);
    let (status, _, problem) = send(post(&shop, &token, "/products", "k-2", &new)).await;
    assert_eq!((status, &problem["code"]), (409, &json!("sku_taken")));
}

#[tokio::test]
async fn an_answer_whose_transaction_fails_is_not_kept() {
    let shop = shop().await;
    let product = shop.stocked(5).await;
    let path = format!("/products/{product}/stock-adjustments");
    let token = shop.token(Role::Staff);
    let break_it = "CREATE FUNCTION products.fail() RETURNS trigger LANGUAGE plpgsql AS $$
                        BEGIN RAISE EXCEPTION 'no'; END $$;
                    CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON products.idempotency_keys
                        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION products.fail()";
    sqlx::raw_sql(break_it).execute(&shop.pool).await.unwrap();
    let delivery = json!({"delta": 3, "reason": "a delivery"});
    assert_eq!(send(post(&shop, &token, &path, "k", &delivery)).await.0, 500);
    assert_eq!(shop.stock(&product).await, (5, 0));
    sqlx::raw_sql("DROP FUNCTION products.fail CASCADE").execute(&shop.pool).await.unwrap();
    let (status, replayed, entry) = send(post(&shop, &token, &path, "k", &delivery)).await;
    assert_eq!((status, replayed, &entry["on_hand"]), (201, false, &json!(8)));
}

#[tokio::test]
async fn a_key_is_kept_for_a_day_after_its_answer() {
    let shop = shop().await;
    let path = format!("/products/{}/stock-adjustments", shop.stocked(5).await);
    let (token, delivery) = (shop.token(Role::Staff), json!({"delta": 3, "reason": "a delivery"}));
    for key in ["old", "young"] {
        assert_eq!(send(post(&shop, &token, &path, key, &delivery)).await.0, 201);
    }
    let age = "UPDATE products.idempotency_keys
               SET answered_at = now() - CASE key WHEN 'old' THEN interval '24 hours 1 second' ELSE interval '23 hours' END";
    sqlx::query(age).execute(&shop.pool).await.unwrap();
    // A replica sweeps when it starts.
    shop.replica().await;
    testing::eventually("the old key is gone", async || {
        let old = "SELECT count(*) FROM products.idempotency_keys WHERE key = 'old'";
        (count(&shop, old).await == 0).then_some(())
    })
    .await;
    assert!(send(post(&shop, &token, &path, "young", &delivery)).await.1, "it is kept");
    assert!(
        Uuid::parse_str(send(post(&shop, &token, &path, "old", &delivery)).await.2["id"].as_str().unwrap())
            .is_ok()
    );
}
