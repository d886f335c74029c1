//! Several requests at once: one wins, and the others are refused.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::{
    Shop, answer, form, id, is_reserved, reservation, shop, shop_with, shop_with_broker, untimed,
};
use proto::product::v1 as wire;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

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
async fn who_add_products_and_have_to_wait_leave_others_their_connections() {
    let shop = shop_with(&["--database-connections=4"]).await;
    let mut gate = testing::begin(&shop.pool).await;
    sqlx::query("LOCK TABLE products.products IN SHARE MODE").execute(&mut *gate).await.unwrap();
    let mut adders = JoinSet::new();
    for _ in 0..8 {
        let request = shop.staff(Method::POST, "/products").json(&form());
        adders.spawn(async move { answer(request.send().await.unwrap()).await });
    }
    let waiting = async || {
        let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                       WHERE NOT l.granted AND d.datname = current_database()";
        sqlx::query_scalar::<_, i64>(waiting).fetch_one(&shop.pool).await.unwrap()
    };
    testing::eventually("two to wait", async || (waiting().await == 2).then_some(())).await;
    // For less time than anybody waits in vain, those of other tests too.
    for _ in 0..3 {
        assert_eq!(shop.get("/products?limit=1").await.0, 200);
        assert_eq!(waiting().await, 2);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    gate.rollback().await.unwrap();
    let added = adders.join_all().await;
    assert_eq!(tally(&added), said(&[(201, "", 8)]), "{added:?}");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_buyers_at_once_exactly_20_get_one_of_20_units() {
    let shop = Arc::new(shop().await);
    let lamp = shop.stocked(20).await;
    let buyers: Vec<_> = (0..64)
        .map(|_| {
            let (shop, lamp) = (shop.clone(), lamp.clone());
            tokio::spawn(async move { is_reserved(&shop.reserve(Uuid::now_v7(), &[(&lamp, 1)]).await) })
        })
        .collect();
    let mut won = 0;
    for buyer in buyers {
        won += u32::from(buyer.await.unwrap());
    }
    assert_eq!(won, 20);
    assert_eq!(shop.stock(&lamp).await, (20, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_reserved_through_two_replicas_at_once_are_reserved_once() {
    let shop = Arc::new(shop().await);
    let replica = shop.replica().await;
    let lamp = shop.stocked(10_000).await;
    for _ in 0..30 {
        let orders: Vec<Uuid> = (0..20).map(|_| Uuid::now_v7()).collect();
        let asked: Vec<_> = (0..8)
            .map(|n| {
                let mut client = if n % 2 == 0 { shop.grpc.clone() } else { replica.clone() };
                let mut reservations: Vec<_> =
                    orders.iter().map(|order| reservation(*order, &[(&lamp, 3)])).collect();
                // From both ends, or the replicas would never stand in each other's way.
                if n % 2 == 1 {
                    reservations.reverse();
                }
                let request = shop.call(wire::ReserveRequest { reservations });
                tokio::spawn(async move {
                    let results = client.reserve(request).await.unwrap().into_inner().results;
                    let outcomes = results.into_iter().map(|result| untimed(result.outcome.unwrap()));
                    let mut outcomes: Vec<_> = outcomes.collect();
                    if n % 2 == 1 {
                        outcomes.reverse();
                    }
                    outcomes
                })
            })
            .collect();
        let mut answers = Vec::new();
        for task in asked {
            answers.push(task.await.unwrap());
        }
        assert!(answers[0].iter().all(is_reserved));
        assert!(answers.iter().all(|answer| *answer == answers[0]));
    }
    assert_eq!(shop.stock(&lamp).await, (10_000, 30 * 20 * 3));
    shop.assert_books_balance().await;
}

/// A small generator (Knuth's MMIX constants), so that a run can be repeated by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// Any deadlock shows as a call that failed; any lost or doubled unit in the books.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_all_operations_at_once_no_call_fails_and_the_books_balance() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let shop = Arc::new(shop_with_broker().await);
    let replica = shop.replica().await;
    let mut products = Vec::new();
    for _ in 0..6 {
        products.push(shop.stocked(40).await);
    }
    let orders: Vec<Uuid> = (0..60).map(|_| Uuid::now_v7()).collect();
    let until = Instant::now() + Duration::from_secs(5);
    let workers: Vec<_> = (0..12)
        .map(|worker: u64| {
            let (shop, products, orders) = (shop.clone(), products.clone(), orders.clone());
            let client = if worker.is_multiple_of(2) { shop.grpc.clone() } else { replica.clone() };
            let dice = Dice(seed + worker);
            tokio::spawn(async move { random_calls(&shop, client, &products, &orders, dice, until).await })
        })
        .collect();
    let mut calls = 0;
    for worker in workers {
        calls += worker.await.unwrap();
    }
    println!("{calls} calls");
    crate::common::applied(&shop).await;
    shop.assert_books_balance().await;
}

async fn random_calls(
    shop: &Shop,
    mut client: proto::product::v1::product_service_client::ProductServiceClient<tonic::transport::Channel>,
    products: &[String],
    orders: &[Uuid],
    mut dice: Dice,
    until: Instant,
) -> usize {
    let mut calls = 0;
    while calls < 10 || Instant::now() < until {
        calls += 1;
        let some: Vec<Uuid> = (0..=dice.roll(8)).map(|_| orders[dice.roll(orders.len())]).collect();
        let order_ids = some.iter().map(Uuid::to_string).collect();
        match dice.roll(10) {
            0..=3 => {
                let reservations = some.iter().map(|_| {
                    // New orders too, or all would soon have ended.
                    let order =
                        if dice.roll(2) == 0 { Uuid::now_v7() } else { orders[dice.roll(orders.len())] };
                    let lines: Vec<(&str, u32)> = (0..=dice.roll(4))
                        .map(|_| (products[dice.roll(products.len())].as_str(), 1 + dice.roll(2) as u32))
                        .collect();
                    reservation(order, &lines)
                });
                let reservations = reservations.collect();
                client.reserve(shop.call(wire::ReserveRequest { reservations })).await.unwrap();
            }
            4 => drop(client.commit(shop.call(wire::CommitRequest { order_ids })).await.unwrap()),
            5 => drop(client.release(shop.call(wire::ReleaseRequest { order_ids })).await.unwrap()),
            6 => {
                // Runs some out, the open ones being the ones that hold stock.
                sqlx::query(
                    "UPDATE products.reservations SET expires_at = now() WHERE order_id IN (
                         SELECT order_id FROM products.reservations WHERE state = 'reserved'
                         ORDER BY order_id LIMIT 5 FOR UPDATE SKIP LOCKED)",
                )
                .execute(&shop.pool)
                .await
                .unwrap();
            }
            7 => {
                // Commits open ones, so that there are sales to cancel.
                let open: Vec<Uuid> = sqlx::query_scalar(
                    "SELECT order_id FROM products.reservations WHERE state = 'reserved' LIMIT 4",
                )
                .fetch_all(&shop.pool)
                .await
                .unwrap();
                let order_ids = open.iter().map(Uuid::to_string).collect();
                client.commit(shop.call(wire::CommitRequest { order_ids })).await.unwrap();
            }
            8 => {
                let product = &products[dice.roll(products.len())];
                let delta = [-3, 5, 10][dice.roll(3)];
                let adjustment = json!({"delta": delta, "reason": "count"});
                let (status, body) =
                    shop.post(&format!("/products/{product}/stock-adjustments"), &adjustment).await;
                assert!(status == 201 || body["code"] == "insufficient_stock", "{status} {body}");
            }
            _ => crate::common::cancel(shop, &some).await,
        }
    }
    calls
}
