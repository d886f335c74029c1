//! One effect per Idempotency-Key, however many ask at once.

use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Answer, Buyer, Shop, eventually, send};

/// Identical requests at once.
pub const AT_ONCE: usize = 32;

/// The operations that need an Idempotency-Key, each of which [`storm`] has to know.
const OPERATIONS: [&str; 2] = ["POST /api/v1/orders", "POST /api/v1/orders/{id}/refunds"];

/// An access token is good for a quarter of an hour; signed in anew long before.
const SIGN_IN_EVERY: Duration = Duration::from_secs(300);

/// What was answered in a [`storm`].
#[derive(Debug, Default)]
pub struct Tally {
    /// 201 for the first time.
    pub first: usize,
    /// 201 with `Idempotency-Replayed`.
    pub replayed: usize,
    /// 409 `idempotency_in_progress`.
    pub in_progress: usize,
}

/// Method and path of each operation that needs an Idempotency-Key, as the shop's document has them. Those that merely take
/// one are tried where they are: `repeats.rs` of the product service, `addresses.rs` of the user service.
pub async fn operations(shop: &Shop) -> Vec<String> {
    let document = send(shop.request(Method::GET, "/openapi.json")).await.expect("the document").body;
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            if parameters
                .into_iter()
                .any(|parameter| parameter["name"] == "Idempotency-Key" && parameter["required"] == true)
            {
                found.push(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    found.sort();
    found
}

/// This many rounds of an order and a refund of it, each asked for by [`AT_ONCE`] identical requests at once.
/// Panics unless each has one effect: one order, reservation, charge and refund, in one answer.
pub async fn storm(shop: &Shop, rounds: u32) -> Tally {
    assert_eq!(operations(shop).await, OPERATIONS, "each operation that takes a key needs a storm");
    let product = shop.product(rounds).await;
    let mut tally = Tally::default();
    let mut signed_in: Option<(Instant, Buyer<'_>, Buyer<'_>)> = None;
    for _ in 0..rounds {
        let due = signed_in.as_ref().is_none_or(|(since, ..)| since.elapsed() > SIGN_IN_EVERY);
        if due {
            signed_in = Some((Instant::now(), shop.customer().await, shop.staff().await));
        }
        let Some((_, buyer, staff)) = &signed_in else { continue };
        let key = Uuid::now_v7().to_string();
        let placed = at_once(&mut tally, || buyer.order(&key, product, 1, "pm_card_visa")).await;
        let order = placed.id();
        assert_eq!(placed.headers["location"], format!("/api/v1/orders/{order}"));
        buyer.ended(&order).await;
        let refund = json!({"reason": "Storm damage", "amount": {"amount": 100, "currency": "EUR"}});
        let path = format!("/orders/{order}/refunds");
        // The same key: it belongs to one user and one operation.
        let request = || staff.request(Method::POST, &path).header("Idempotency-Key", &key).json(&refund);
        let refunded = at_once(&mut tally, request).await;
        let list = buyer.get(&path).await;
        let ids: Vec<&Value> =
            list.body["items"].as_array().into_iter().flatten().map(|r| &r["id"]).collect();
        assert_eq!(ids, [&json!(refunded.id())], "one refund of {order}");
        let ledger = eventually("the provider's refund", Duration::from_secs(20), || async {
            let ledger = shop.ledger(&order).await;
            (ledger["refunded"].as_i64()? > 0).then_some(ledger)
        });
        let ledger = ledger.await;
        let sums = ["captured", "captures", "refunded"].map(|sum| ledger[sum].as_i64());
        assert_eq!(sums, [Some(1250), Some(1), Some(100)], "{ledger}");
    }
    for (what, sql) in [
        ("orders", "SELECT count(DISTINCT order_id) FROM orders.order_items WHERE product_id = $1"),
        ("reservations", "SELECT count(*) FROM products.reservation_lines WHERE product_id = $1"),
        ("sales", "SELECT count(*) FROM products.stock_ledger WHERE product_id = $1 AND kind = 'sale'"),
    ] {
        let count: i64 =
            sqlx::query_scalar(sql).bind(product).fetch_one(&shop.database).await.expect("the database");
        assert_eq!(count, i64::from(rounds), "{what}");
    }
    assert_eq!(shop.stock(product).await, (0, 0), "one unit each was sold, and none is held");
    tally
}

/// The one answer to [`AT_ONCE`] requests at once, and to one more when they are done.
async fn at_once(tally: &mut Tally, request: impl Fn() -> RequestBuilder) -> Answer {
    let start = std::sync::Arc::new(tokio::sync::Barrier::new(AT_ONCE));
    let requests: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (start, request) = (start.clone(), request());
            tokio::spawn(async move {
                start.wait().await;
                send(request).await
            })
        })
        .collect();
    let mut made = Vec::new();
    for request in requests {
        let answer = request.await.expect("no panic").expect("an answer");
        if answer.status == 201 {
            made.push(answer);
        } else {
            assert_eq!(answer.problem(), (409, "idempotency_in_progress"), "{}", answer.body);
            assert!(answer.headers.contains_key("retry-after"), "{:?}", answer.headers);
            tally.in_progress += 1;
        }
    }
    made.push(send(request()).await.expect("an answer"));
    let (replayed, mut first): (Vec<_>, Vec<_>) = made.into_iter().partition(Answer::replayed);
    assert_eq!(first.len(), 1, "one did the work: {first:?}");
    let first = first.remove(0);
    for again in &replayed {
        assert_eq!((again.status, &again.body), (first.status, &first.body));
        assert_eq!(again.headers.get("location"), first.headers.get("location"));
    }
    tally.first += 1;
    tally.replayed += replayed.len();
    first
}
