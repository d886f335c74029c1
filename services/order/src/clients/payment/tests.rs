use axum::Router;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;

const SECRET: &str = "sk_test_payments";

/// A provider that answers everything with this error.
async fn refusing(status: u16, kind: &'static str) -> Payments {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let status = StatusCode::from_u16(status).unwrap();
    let answer = move || async move { (status, axum::Json(json!({"error": {"type": kind}}))) };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    payments(&url)
}

fn payments(url: &str) -> Payments {
    Payments::new(url, SECRET, Duration::from_secs(10)).unwrap()
}

async fn sandbox() -> Payments {
    use clap::Parser;
    let data = std::env::temp_dir().join(format!("dockside-sandbox-{}", Uuid::now_v7()));
    let config = payment_sandbox::Config::parse_from([
        "payment-sandbox",
        "--http-addr=127.0.0.1:0",
        &format!("--data-dir={}", data.display()),
        &format!("--secret-key={SECRET}"),
    ]);
    let sandbox = payment_sandbox::start(config).await.unwrap();
    payments(&format!("http://{}", sandbox.addr))
}

async fn create(payments: &Payments, order: OrderId) -> Input {
    let placed_at = OffsetDateTime::now_utc();
    let amount = Money::new(2500, Currency::EUR);
    payments.create(NewIntent { order, placed_at, amount, method: "pm_card_visa" }).await
}

/// The ids of an order's intents.
async fn made_for(payments: &Payments, order: OrderId) -> Vec<IntentId> {
    let order = order.to_string();
    let ours = |intent: &IntentBody| intent.metadata.get("order_id") == Some(&order);
    let made = payments.list(INTENTS, &[], ours).await.unwrap();
    made.into_iter().map(|intent| intent.id.into()).collect()
}

/// A request as an earlier version made it, under the key of the order's intent; the id of what it made.
async fn earlier(payments: &Payments, order: OrderId, form: &[(&str, String)]) -> IntentId {
    match payments.post(INTENTS, form, format!("{order}-create")).await {
        Answer::Done(body) => {
            serde_json::from_str::<Value>(&body).unwrap()["id"].as_str().unwrap().to_owned().into()
        }
        _ => panic!("the provider makes it"),
    }
}

#[tokio::test]
async fn an_intent_that_an_earlier_version_made_with_other_parameters_is_taken() {
    let (payments, order) = (sandbox().await, OrderId::from(Uuid::now_v7()));
    let form = [
        ("amount", "2500".to_owned()),
        ("currency", "eur".to_owned()),
        ("metadata[order_id]", order.to_string()),
    ];
    let made = earlier(&payments, order, &form).await;
    // More than one page of others since.
    for _ in 0..101 {
        assert!(matches!(create(&payments, Uuid::now_v7().into()).await, Input::Created(_)));
    }
    assert_eq!(create(&payments, order).await, Input::Created(made.clone()));
    assert_eq!(made_for(&payments, order).await, [made]);
}

#[tokio::test]
async fn a_key_under_which_an_earlier_version_made_nothing_leads_to_one_intent() {
    let (payments, order) = (sandbox().await, OrderId::from(Uuid::now_v7()));
    let form = [("amount", "2500".to_owned()), ("currency", "eur".to_owned())];
    let others = earlier(&payments, order, &form).await;
    let Input::Created(made) = create(&payments, order).await else { panic!("it is made") };
    assert_ne!(made, others);
    assert_eq!(create(&payments, order).await, Input::Created(made.clone()));
    assert_eq!(made_for(&payments, order).await, [made]);
}

#[tokio::test]
async fn only_two_kinds_of_error_are_about_the_payment() {
    let (order, refund) = (Uuid::now_v7().into(), Uuid::now_v7().into());
    for (status, kind) in [(402, "card_error"), (400, "invalid_request_error")] {
        assert_eq!(create(&refusing(status, kind).await, order).await, Input::Refused, "{status} {kind}");
    }
    let intent = IntentId::from("pi".to_owned());
    let others = [
        (400, "idempotency_error"),
        (409, "idempotency_error"),
        (401, "invalid_request_error"),
        (424, "api_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
    ];
    for (status, kind) in others {
        let payments = refusing(status, kind).await;
        let answers = [
            create(&payments, order).await,
            payments.confirm(&intent, "1.0").await,
            payments.capture(&intent, "1.0").await,
            payments.cancel(&intent, "1.0").await,
            payments.retrieve(&intent).await,
            payments.refund(&intent, refund, Money::new(1, Currency::EUR)).await,
        ];
        assert!(answers.iter().all(|answer| *answer == Input::NoAnswer), "{status} {kind}: {answers:?}");
        assert_eq!(payments.refunds(&intent, Currency::EUR).await, None, "{status} {kind}");
    }
}
