//! Reports that the payment provider sends by webhook.

use crate::common::{Answer, Shop, order_of};
use serde_json::{Value, json};

impl Shop {
    /// Posts as the provider would, signed at that time.
    async fn post_webhook(&self, time: i64, kind: Option<&str>, body: &str) -> Answer {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"whsec_test");
        let signature = aws_lc_rs::hmac::sign(&key, format!("{time}.{body}").as_bytes());
        let header = format!("t={time},v1={}", hex::encode(signature));
        let request = self.client.post(format!("{}/payments/webhook", self.base));
        let request = request.header("Stripe-Signature", header).body(body.to_owned());
        crate::common::send(
            kind.into_iter().fold(request, |request, kind| request.header("Content-Type", kind)),
        )
        .await
    }
}

fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

#[tokio::test]
async fn only_signed_and_fresh_messages_are_taken() {
    let shop = Shop::open().await;
    let body = json!({"type": "payment_intent.succeeded", "data": {"object": {"id": "pi_none"}}}).to_string();
    let json = Some("application/json; charset=utf-8");
    for time in [now() - 3600, now() + 3600] {
        assert_eq!(shop.post_webhook(time, json, &body).await.problem(), (400, "invalid_signature"));
    }
    let unsigned = shop.client.post(format!("{}/payments/webhook", shop.base)).body(body.clone());
    assert_eq!(crate::common::send(unsigned).await.problem(), (400, "invalid_signature"));
    for kind in [json, json, None] {
        assert_eq!(shop.post_webhook(now(), kind, &body).await.status, 204, "of an intent that nobody knows");
    }
}

#[tokio::test]
async fn what_the_provider_did_not_sign_changes_nothing() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let buyer = shop.customer();
    let id = buyer.buy(thing, 1).await;
    let seen = || async { (shop.hooks.count() >= 2).then_some(()) };
    testing::eventually("authorisation and capture to be reported", seen).await;
    // From now on only this test sends webhooks, about a payment whose reports would be stored.
    shop.hooks.block(true);
    settled(&shop).await;
    let reports = async || -> i64 {
        let all = "SELECT sum(news)::bigint FROM orders.sagas";
        sqlx::query_scalar(all).fetch_one(&shop.pool).await.expect("the database answers")
    };
    let before = (buyer.get(&format!("/orders/{id}")).await.body, reports().await);
    let body =
        json!({"type": "charge.refunded", "data": {"object": {"id": shop.intent(&id).await}}}).to_string();
    let sign = |secret: &[u8], time: i64, body: &str| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
        hex::encode(aws_lc_rs::hmac::sign(&key, format!("{time}.{body}").as_bytes()))
    };
    let time = now();
    let good = sign(b"whsec_test", time, &body);
    let post = |signature: &str| {
        let request = shop.client.post(format!("{}/payments/webhook", shop.base));
        crate::common::send(request.header("Stripe-Signature", signature).body(body.clone()))
    };
    for signature in [
        &format!("t={time},v1={}", sign(b"whsec_other", time, &body)),
        &format!("t={time},v1={}", sign(b"", time, &body)),
        &format!("t={time},v1={}", sign(b"whsec_test", time, "{}")),
        &format!("t={},v1={good}", time + 1),
        &format!("t={time},v0={good}"),
        &format!("t={time},v1={}", &good[..62]),
        &format!("v1={good}"),
        &format!("t=now,v1={good}"),
        &good,
        "",
    ] {
        assert_eq!(post(signature).await.problem(), (400, "invalid_signature"), "{signature}");
    }
    assert_eq!((buyer.get(&format!("/orders/{id}")).await.body, reports().await), before);
    // While a secret is replaced the provider signs with both.
    let both = format!("t={time},v1={},v1={good}", sign(b"whsec_other", time, &body));
    assert_eq!(post(&both).await.status, 204);
    assert_eq!(reports().await, before.1 + 1, "this one is stored");
}

#[tokio::test]
async fn signed_nonsense_is_refused_as_the_document_says_and_never_an_error_of_ours() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let (buyer, json) = (shop.customer(), Some("application/json"));
    // With an intent that is known, so that a report would be stored.
    let id = buyer.buy(thing, 1).await;
    let intent = shop.intent(&id).await;
    let event = |kind: Value, id: Value, payment_intent: Value| {
        let object = json!({"id": id, "payment_intent": payment_intent, "description": "a\u{0}b\n"});
        json!({"type": kind, "data": {"object": object}}).to_string()
    };
    let long = json!("x".repeat(256));
    let (object, of) = ("/data/object/id", "/data/object/payment_intent");
    let mut answers = Vec::new();
    for (body, pointer) in [
        ("{}".to_owned(), "/type"),
        ("[]".to_owned(), ""),
        (json!({"type": "x", "data": {"object": null}}).to_string(), "/data/object"),
        (event(json!(1), json!(intent), json!(null)), "/type"),
        (event(json!("charge.\u{0}"), json!(intent), json!(null)), "/type"),
        (event(json!(""), json!(intent), json!(null)), "/type"),
        (event(long.clone(), json!(intent), json!(null)), "/type"),
        (event(json!("charge.x"), json!(format!("{intent}\u{0}")), json!(null)), object),
        (event(json!("charge.x"), long.clone(), json!(null)), object),
        (event(json!("charge.x"), json!("ch_1"), json!("\u{0}")), of),
    ] {
        let answer = shop.post_webhook(now(), json, &body).await;
        assert_eq!(answer.problem(), (422, "validation_failed"), "{body}");
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{body}");
        answers.push(answer);
    }
    for (body, kind, problem) in [
        ("{".to_owned(), json, (400, "malformed_json")),
        (r#"{"type": "\ud800"}"#.to_owned(), json, (400, "malformed_json")),
        ("\u{0}".to_owned(), None, (400, "malformed_json")),
        ("x".repeat(1024 * 1024 + 1), json, (413, "payload_too_large")),
        ("{}".to_owned(), Some("text/plain"), (415, "unsupported_media_type")),
    ] {
        let answer = shop.post_webhook(now(), kind, &body).await;
        assert_eq!(answer.problem(), problem, "{kind:?}");
        answers.push(answer);
    }
    let taken = shop.post_webhook(now(), json, &event(json!("charge.x"), json!("ch_1"), json!(intent))).await;
    assert_eq!(taken.status, 204, "what is not kept may hold anything");

    // What is about something else than a payment: an account's balance has no id.
    let balance = json!({"object": "balance", "available": [{"amount": 1, "currency": "eur"}]});
    let document = order::openapi();
    let schema = json!({"components": document["components"], "$ref": "#/components/schemas/PaymentEvent"});
    let schema = jsonschema::validator_for(&schema).unwrap();
    for event in [
        json!({"type": "balance.available", "data": {"object": balance}}),
        json!({"type": "x", "data": {"object": {"id": 1, "payment_intent": {"id": "pi_1"}}}}),
        json!({"type": "x", "data": {"object": {"id": "ch_1", "payment_intent": 5}}}),
    ] {
        assert_eq!(shop.post_webhook(now(), json, &event.to_string()).await.status, 204, "{event}");
        assert!(schema.is_valid(&event), "{event}");
    }

    let described = &document["paths"]["/api/v1/payments/webhook"]["post"]["responses"];
    for answer in answers {
        let described = described[answer.status.as_str()]["description"].as_str().unwrap();
        assert!(described.contains(answer.body["code"].as_str().unwrap()), "{}", answer.body);
    }
}

#[tokio::test]
async fn messages_twice_and_out_of_order_change_nothing() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let buyer = shop.customer();
    let id = buyer.buy(thing, 1).await;
    let seen = || async { (shop.hooks.count() >= 2).then_some(()) };
    testing::eventually("authorisation and capture to be reported", seen).await;
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
async fn a_payment_that_succeeds_after_its_deadline_goes_back() {
    let shop = Shop::open_with(&["--payment-deadline-seconds=1"]).await;
    let thing = shop.stock.add(1000, 10);
    let buyer = shop.customer();
    let id = buyer.place(&order_of(thing, 1, "pm_card_late_success")).await.id();
    let order = buyer.until(&id, "cancelled", "refunded").await;
    assert_eq!(order["cancel_reason"], "payment_timeout");
    assert_eq!(order["refunded"], order["total"]);
    let kinds: Vec<String> = shop.events(&id).await.into_iter().map(|(kind, _, _)| kind).collect();
    assert_eq!(kinds, ["order.placed.v1", "order.cancelled.v1"]);
    let ledger = shop.ledger(&id).await;
    assert_eq!((&ledger["captured"], &ledger["refunded"]), (&json!(1000), &json!(1000)));
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
    let announced =
        shop.events(&id).await.into_iter().filter(|(kind, _, _)| kind == "order.refunded.v1").count();
    assert_eq!(announced, 3);
}

#[tokio::test]
async fn a_cancellation_counts_refunds_at_the_provider_even_without_a_webhook() {
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

#[tokio::test]
async fn reports_do_not_hurry_a_refund_that_keeps_failing() {
    let shop = Shop::open().await;
    let thing = shop.stock.add(1000, 10);
    let buyer = shop.customer();
    let id = buyer.buy_with(thing, 1, "pm_card_refundFail").await;
    let body =
        json!({"type": "charge.refunded", "data": {"object": {"id": shop.intent(&id).await}}}).to_string();
    let begun = std::time::Instant::now();
    buyer.post(&format!("/orders/{id}/cancel")).await;
    let fourth = || async {
        assert_eq!(shop.post_webhook(now(), Some("application/json"), &body).await.status, 204);
        let made = shop.provider_refunds(&id).await;
        (made.len() == 4).then_some(made)
    };
    let made = testing::within(std::time::Duration::from_secs(60), "four refunds", fourth).await;
    assert_eq!(made[1]["status"], "failed", "{made:?}");
    // After the first that failed a second, after the next two, then four.
    assert!(begun.elapsed().as_secs() >= 7, "{:?}", begun.elapsed());
}
