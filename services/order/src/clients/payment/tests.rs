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
    Payments::new(url, SECRET, Some("https://shop.test/{order_id}"), Duration::from_secs(10)).unwrap()
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
    let (order, refund) = (OrderId::from(Uuid::now_v7()), Uuid::now_v7().into());
    assert_eq!(create(&refusing(402, "card_error").await, order).await, Input::Refused);
    // A parameter of ours that is wrong says nothing about the order: it is kept.
    assert_eq!(create(&refusing(400, "invalid_request_error").await, order).await, Input::NoAnswer);
    let intent = IntentId::from("pi".to_owned());
    let payment = Payment { intent: &intent, order, total: Money::new(1, Currency::EUR) };
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
            payments.confirm(payment, "1.0").await,
            payments.capture(payment, "1.0").await,
            payments.cancel(payment, "1.0").await,
            payments.retrieve(payment).await,
            payments.refund(payment, refund, Money::new(1, Currency::EUR)).await,
        ];
        assert!(answers.iter().all(|answer| *answer == Input::NoAnswer), "{status} {kind}: {answers:?}");
        assert_eq!(payments.refunds(payment).await, None, "{status} {kind}");
    }
}

#[test]
fn what_is_held_is_compared_with_the_order() {
    let (intent, order) = (IntentId::from("pi".to_owned()), OrderId::from(Uuid::now_v7()));
    let total = Money::new(24_900, "ISK".parse().unwrap());
    let payment = Payment { intent: &intent, order, total };
    let said = |status: &str, change: &dyn Fn(&mut Value)| {
        let mut body = json!({
            "id": "pi", "status": status, "amount": 2_490_000, "amount_received": 2_490_000, "currency": "isk",
            "metadata": {"order_id": order.to_string()},
        });
        change(&mut body);
        fact(Answer::Done(body.to_string()), payment)
    };
    let authorised = Input::IntentReported(IntentStatus::Authorised);
    assert_eq!(said("requires_capture", &|body| body["amount_received"] = json!(0)), authorised);
    assert_eq!(said("succeeded", &|_| ()), Input::IntentReported(IntentStatus::Captured));
    for (field, other) in [
        ("amount", json!(24_901)),
        ("currency", json!("eur")),
        ("metadata", json!({"order_id": Uuid::now_v7().to_string()})),
    ] {
        for status in ["requires_capture", "succeeded"] {
            assert_eq!(
                said(status, &|body| body[field] = other.clone()),
                Input::NoAnswer,
                "{field} {status}"
            );
        }
    }
    // An earlier version sent the order's minor units, whatever the provider makes of them.
    let old = |body: &mut Value| (body["amount"], body["amount_received"]) = (json!(24_900), json!(24_900));
    assert_eq!(said("succeeded", &old), Input::IntentReported(IntentStatus::Captured));
    // Captured in part, by hand.
    assert_eq!(said("succeeded", &|body| body["amount_received"] = json!(100)), Input::NoAnswer);
    // Nothing is held: nothing to compare.
    assert_eq!(
        said("canceled", &|body| body["amount"] = json!(1)),
        Input::IntentReported(IntentStatus::Cancelled)
    );
}

#[test]
fn a_customer_who_has_to_act_learns_where() {
    let (intent, order) = (IntentId::from("pi".to_owned()), OrderId::from(Uuid::now_v7()));
    let payment = Payment { intent: &intent, order, total: Money::new(1, Currency::EUR) };
    let asked = |next_action: Value| {
        let body = json!({
            "id": "pi", "status": "requires_action", "client_secret": "pi_secret_1", "next_action": next_action,
        });
        fact(Answer::Done(body.to_string()), payment)
    };
    let url = Some("https://bank.test/3ds".to_owned());
    assert_eq!(
        asked(
            json!({"type": "redirect_to_url", "redirect_to_url": {"url": url, "return_url": "https://shop.test"}})
        ),
        Input::ActionRequired(NextAction { redirect_url: url, client_secret: None })
    );
    assert_eq!(
        asked(json!({"type": "use_stripe_sdk", "use_stripe_sdk": {"any": 1}})),
        Input::ActionRequired(NextAction {
            redirect_url: None,
            client_secret: Some("pi_secret_1".to_owned())
        })
    );
}

#[tokio::test]
async fn a_key_that_is_refused_is_remembered_until_it_is_taken() {
    let order = Uuid::now_v7().into();
    for status in [401, 403] {
        let payments = refusing(status, "invalid_request_error").await;
        assert!(!payments.is_key_refused());
        assert_eq!(create(&payments, order).await, Input::NoAnswer);
        assert!(payments.is_key_refused(), "{status}");
    }
    let payments = sandbox().await;
    note(&payments.faults.key, true);
    assert!(matches!(create(&payments, order).await, Input::Created(_)));
    assert!(!payments.is_key_refused());
}

#[tokio::test]
async fn what_an_earlier_version_took_goes_back_in_the_units_that_it_was_taken_in() {
    let (payments, order) = (sandbox().await, OrderId::from(Uuid::now_v7()));
    let total = Money::new(24_900, "ISK".parse().unwrap());
    let form = [
        ("amount", "24900".to_owned()),
        ("currency", "isk".to_owned()),
        ("payment_method", "pm_card_visa".to_owned()),
        ("confirm", "true".to_owned()),
        ("metadata[order_id]", order.to_string()),
    ];
    let intent = earlier(&payments, order, &form).await;
    let payment = Payment { intent: &intent, order, total };
    assert_eq!(payments.retrieve(payment).await, Input::IntentReported(IntentStatus::Captured));
    let refund = RefundId::from(Uuid::now_v7());
    let Input::RefundReported(report) = payments.refund(payment, refund, total).await else {
        panic!("it is answered")
    };
    assert_eq!((report.amount, report.status, report.ours), (total, RefundStatus::Succeeded, Some(refund)));
    assert_eq!(payments.refunds(payment).await.unwrap()[0].amount, total);
    // All of it went back, and not a hundredth.
    let again = payments.refund(payment, Uuid::now_v7().into(), total).await;
    assert!(matches!(again, Input::RefundReported(report) if report.status == RefundStatus::Failed));
}
