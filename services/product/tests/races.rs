//! Several at once: one wins, and the others are told so.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{answer, form, id, shop};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// The answers to requests sent at the same time.
async fn at_once(requests: impl Iterator<Item = RequestBuilder>) -> Vec<(u16, Value)> {
    let mut calls = JoinSet::new();
    for request in requests {
        calls.spawn(async move { answer(request.send().await.unwrap()).await });
    }
    calls.join_all().await
}

/// How many answers had each status and code.
fn tally(answers: &[(u16, Value)]) -> BTreeMap<(u16, String), usize> {
    let mut tally = BTreeMap::new();
    for (status, body) in answers {
        *tally.entry((*status, body["code"].as_str().unwrap_or_default().to_owned())).or_default() += 1;
    }
    tally
}

fn said(counts: &[(u16, &str, usize)]) -> BTreeMap<(u16, String), usize> {
    counts.iter().map(|(status, code, count)| ((*status, (*code).to_owned()), *count)).collect()
}

#[tokio::test]
async fn of_many_products_of_one_sku_one_is_added_and_of_one_name_all_are() {
    let shop = shop().await;
    let create = |fields: Value| {
        let mut body = form();
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        shop.staff(Method::POST, "/products").json(&body)
    };
    let one_sku = at_once((0..12).map(|_| create(json!({"sku": "ONE", "stock": 3})))).await;
    assert_eq!(tally(&one_sku), said(&[(201, "", 1), (409, "sku_taken", 11)]));
    let one_name = at_once((0..12).map(|_| create(json!({"name": "Storm Lamp"})))).await;
    assert_eq!(tally(&one_name), said(&[(201, "", 12)]), "{one_name:?}");
    let slugs: BTreeSet<&str> =
        one_name.iter().map(|(_, product)| product["slug"].as_str().unwrap()).collect();
    assert_eq!(slugs.len(), 12);
    assert_eq!(shop.get("/products?limit=100").await.1["items"].as_array().unwrap().len(), 13);
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn of_many_patches_with_one_tag_one_is_taken() {
    let shop = shop().await;
    let path = format!("/products/{}", shop.stocked(1).await);
    let tag = shop.anyone(Method::GET, &path).send().await.unwrap().headers()["etag"].clone();
    let patch = |n: usize| {
        let patch = shop.staff(Method::PATCH, &path).header("if-match", &tag);
        patch.json(&json!({"name": format!("Lamp {n}")}))
    };
    let answers = at_once((0..12).map(patch)).await;
    assert_eq!(tally(&answers), said(&[(200, "", 1), (412, "precondition_failed", 11)]));
    let (_, taken) = answers.iter().find(|(status, _)| *status == 200).unwrap();
    assert_eq!(&shop.get(&path).await.1, taken);
}

#[tokio::test]
async fn a_product_is_archived_once() {
    let shop = shop().await;
    let path = format!("/products/{}", shop.stocked(1).await);
    let archive = |_| shop.staff(Method::DELETE, &path).header("if-match", "*");
    let answers = at_once((0..12).map(archive)).await;
    assert_eq!(tally(&answers), said(&[(204, "", 1), (404, "not_found", 11)]));
    let events: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&shop.pool).await.unwrap();
    assert_eq!(events, 2, "added, archived");
}

#[tokio::test]
async fn adjustments_at_once_take_no_more_than_there_is() {
    let shop = shop().await;
    let product = shop.stocked(5).await;
    let path = format!("/products/{product}/stock-adjustments");
    let take = |_| shop.staff(Method::POST, &path).json(&json!({"delta": -1, "reason": "broken"}));
    let answers = at_once((0..12).map(take)).await;
    assert_eq!(tally(&answers), said(&[(201, "", 5), (409, "insufficient_stock", 7)]));
    let left: BTreeSet<i64> = answers.iter().filter_map(|(_, entry)| entry["on_hand"].as_i64()).collect();
    assert_eq!(left, (0..5).collect());
    assert_eq!(shop.stock(&product).await, (0, 0));
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn of_images_put_in_one_place_at_once_one_stays() {
    let shop = shop().await;
    let product = shop.product(json!({})).await;
    let path = format!("/products/{}", id(&product));
    let bytes = |n: usize| [b"\x89PNG\r\n\x1A\n", n.to_string().as_bytes()].concat();
    let put = |n: usize| shop.staff(Method::PUT, &format!("{path}/images/0")).body(bytes(n));
    let answers = at_once((0..8).map(put)).await;
    assert_eq!(tally(&answers), said(&[(200, "", 7), (201, "", 1)]), "{answers:?}");
    let kept = shop.anyone(Method::GET, &format!("{path}/images/0")).send().await.unwrap();
    let kept = kept.bytes().await.unwrap();
    assert!((0..8).any(|n| bytes(n) == kept), "{kept:?}");
    assert_eq!(shop.get(&path).await.1["images"], json!([format!("/api/v1{path}/images/0")]));
    let listed = "SELECT count(*) FROM products.discarded_objects";
    let listed: i64 = sqlx::query_scalar(listed).fetch_one(&shop.pool).await.unwrap();
    assert_eq!(listed, 7, "those that were replaced are to be deleted");
}
