//! What the payment provider tells of its own accord.

mod common;

use common::{Shop, order_of};
use serde_json::{Value, json};

#[tokio::test]
async fn only_signed_and_fresh_messages_are_taken() {
    let shop = Shop::open().await;
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"whsec_test");
    let body = json!({"type": "payment_intent.succeeded", "data": {"object": {"id": "pi_none"}}}).to_string();
    let post = |time: i64, body: String| {
        let signature = aws_lc_rs::hmac::sign(&key, format!("{time}.{body}").as_bytes());
        let header = format!("t={time},v1={}", hex::encode(signature));
        let request = shop.client.post(format!("{}/payments/webhook", shop.base));
        common::send(request.header("Stripe-Signature", header).body(body))
    };
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    assert_eq!(post(now - 3600, body.clone()).await.problem(), (400, "invalid_signature"));
    assert_eq!(post(now + 3600, body.clone()).await.problem(), (400, "invalid_signature"));
    let unsigned = shop.client.post(format!("{}/payments/webhook", shop.base)).body(body.clone());
    assert_eq!(common::send(unsigned).await.problem(), (400, "invalid_signature"));
    assert_eq!(post(now, "{}".to_owned()).await.problem(), (400, "malformed_json"));
    assert_eq!(post(now, "x".repeat(1024 * 1024 + 1)).await.problem(), (413, "payload_too_large"));
    for _ in 0..2 {
        assert_eq!(post(now, body.clone()).await.status, 204, "of an intent that nobody knows");
    }
}

#[tokio::test]
async fn messages_twice_and_out_of_order_change_nothing() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let buyer = shop.customer();
    let id = buyer.buy(thing, 1).await;
    let seen = || async { (shop.hooks.count() >= 2).then_some(()) };
    testing::eventually("authorisation and capture to be told", seen).await;
    let before = buyer.get(&format!("/orders/{id}")).await.body;
    shop.hooks.shuffle().await;
    settled(&shop).await;
    assert_eq!(buyer.get(&format!("/orders/{id}")).await.body, before);
    let ledger = shop.ledger(&id).await;
    assert_eq!((&ledger["captures"], &ledger["refunded"]), (&json!(1), &json!(0)));
    assert_eq!(shop.events(&id).await.len(), 2);
}

/// No saga has a call to make or a message to follow up.
async fn settled(shop: &Shop) {
    let at_rest = || async {
        let busy = "SELECT count(*) FROM orders.sagas WHERE busy OR news > news_read OR lease_until > now()";
        let busy: i64 = sqlx::query_scalar(busy).fetch_one(&shop.pool).await.expect("the database answers");
        (busy == 0).then_some(())
    };
    testing::eventually("all sagas to rest", at_rest).await;
}

#[tokio::test]
async fn a_payment_that_succeeds_after_its_cancellation_goes_back() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let buyer = shop.customer();
    let id = buyer.place(&order_of(thing, 1, "pm_card_late_success")).await.id();
    let asked = || async {
        let order = buyer.get(&format!("/orders/{id}")).await.body;
        (order["payment"]["status"] == "unknown").then_some(())
    };
    testing::eventually("the payment to be under way", asked).await;
    buyer.post(&format!("/orders/{id}/cancel")).await;
    buyer.until(&id, "cancelled", "voided").await;
    let order = buyer.until(&id, "cancelled", "refunded").await;
    assert_eq!(order["refunded"], order["total"]);
    let ledger = shop.ledger(&id).await;
    assert_eq!((&ledger["captured"], &ledger["refunded"]), (&json!(1000), &json!(1000)));
    assert_eq!(shop.provider_refunds(&id).await.len(), 1);
    shop.hooks.shuffle().await;
    settled(&shop).await;
    assert_eq!(shop.provider_refunds(&id).await.len(), 1);
}

#[tokio::test]
async fn a_refund_made_at_the_provider_is_counted_once_and_ours_not_twice() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, staff) = (shop.customer(), shop.staff());
    let id = buyer.buy(thing, 3).await;
    assert_eq!(staff.refund(&id, &json!({"reason": "scratched", "amount": eur(500)})).await.status, 201);
    staff.until_refunded(&id, 500).await;
    let made = shop.refund_at_provider(&id, 700).await;
    assert!(made["id"].as_str().unwrap().starts_with("re_"));
    let order = staff.until_refunded(&id, 1200).await;
    assert_eq!((&order["status"], &order["payment"]["status"]), (&json!("confirmed"), &json!("captured")));
    shop.hooks.shuffle().await;
    settled(&shop).await;
    assert_eq!(staff.get(&format!("/orders/{id}")).await.body["refunded"]["amount"], 1200);
    let too_much = staff.refund(&id, &json!({"reason": "all", "amount": eur(1801)})).await;
    assert_eq!(too_much.problem(), (409, "refund_exceeds_captured"));

    shop.refund_at_provider(&id, 1800).await;
    let order = staff.until_refunded(&id, 3000).await;
    assert_eq!((&order["status"], &order["payment"]["status"]), (&json!("confirmed"), &json!("refunded")));
    let told = shop.events(&id).await.into_iter().filter(|(kind, _, _)| kind == "order.refunded.v1").count();
    assert_eq!(told, 3);
}

#[tokio::test]
async fn a_cancellation_counts_what_went_back_at_the_provider_even_unheard() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let buyer = shop.customer();
    let id = buyer.buy(thing, 1).await;
    shop.hooks.block(true);
    shop.refund_at_provider(&id, 400).await;
    assert_eq!(buyer.post(&format!("/orders/{id}/cancel")).await.body["status"], "cancelled");
    // Asking for all of it is refused, and what was made there is found.
    let order = buyer.until(&id, "cancelled", "refunded").await;
    assert_eq!(order["refunded"]["amount"], 1000);
    assert_eq!(shop.ledger(&id).await["refunded"], 1000);
}

fn eur(amount: i64) -> Value {
    json!({"amount": amount, "currency": "EUR"})
}
