use axum::Router;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use order_core::ids::RefundId;
use service::money::Currency;
use uuid::Uuid;

use super::http::record;
use super::*;

const SECRET: &str = "sk_test_payments";

async fn refusing(status: u16, kind: &str) -> Payments {
    answering(status, json!({"type": kind})).await
}

/// A provider that answers everything with this error.
async fn answering(status: u16, error: Value) -> Payments {
    answers(status, json!({"error": error})).await
}

/// A provider that answers everything with this.
async fn answers(status: u16, body: Value) -> Payments {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let status = StatusCode::from_u16(status).unwrap();
    let answer = move || async move { (status, axum::Json(body)) };
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

async fn create(payments: &Payments, order: OrderId) -> Result<Creation, NoAnswer> {
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
    match payments.post(INTENTS, INTENTS, form, format!("{order}-create")).await {
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
        assert!(matches!(create(&payments, Uuid::now_v7().into()).await, Ok(Creation::Created(_))));
    }
    assert_eq!(create(&payments, order).await, Ok(Creation::Created(made.clone())));
    assert_eq!(made_for(&payments, order).await, [made]);
}

#[tokio::test]
async fn a_key_under_which_an_earlier_version_made_nothing_leads_to_one_intent() {
    let (payments, order) = (sandbox().await, OrderId::from(Uuid::now_v7()));
    let form = [("amount", "2500".to_owned()), ("currency", "eur".to_owned())];
    let others = earlier(&payments, order, &form).await;
    let Ok(Creation::Created(made)) = create(&payments, order).await else { panic!("it is made") };
    assert_ne!(made, others);
    assert_eq!(create(&payments, order).await, Ok(Creation::Created(made.clone())));
    assert_eq!(made_for(&payments, order).await, [made]);
}

#[tokio::test]
async fn only_two_kinds_of_error_are_about_the_payment() {
    let (order, refund) = (OrderId::from(Uuid::now_v7()), Uuid::now_v7().into());
    let declined = Ok(Creation::Refused(DeclineReason::Declined));
    assert_eq!(create(&refusing(402, "card_error").await, order).await, declined);
    // A parameter of ours that is wrong says nothing about the order: it is kept.
    assert_eq!(create(&refusing(400, "invalid_request_error").await, order).await, Err(NoAnswer));
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
            create(&payments, order).await.err(),
            payments.confirm(payment, "1.0").await.err(),
            payments.capture(payment, "1.0").await.err(),
            payments.cancel(payment, "1.0").await.err(),
            payments.retrieve(payment).await.err(),
            payments.refund(payment, refund, Money::new(1, Currency::EUR)).await.err(),
        ];
        assert!(answers.iter().all(|answer| *answer == Some(NoAnswer)), "{status} {kind}: {answers:?}");
        assert_eq!(payments.refunds(payment).await, Err(NoAnswer), "{status} {kind}");
    }
}

#[tokio::test]
async fn a_capture_tells_which_card_was_charged() {
    for (method, brand, last4) in [
        ("pm_card_visa", "visa", "4242"),
        ("pm_card_mastercard", "mastercard", "4444"),
        ("pm_card_amex", "amex", "0005"),
    ] {
        let (payments, order) = (sandbox().await, OrderId::from(Uuid::now_v7()));
        let (placed_at, total) = (OffsetDateTime::now_utc(), Money::new(2500, Currency::EUR));
        let new = NewIntent { order, placed_at, amount: total, method };
        let Ok(Creation::Created(intent)) = payments.create(new).await else { panic!("it is made") };
        let payment = Payment { intent: &intent, order, total };
        let held = Ok(Intent::Authorised);
        assert_eq!(payments.confirm(payment, "1.0").await, held);
        assert_eq!(payments.retrieve(payment).await, held);
        let taken = Ok(Intent::Captured(Some(Card::new(brand, last4).unwrap())));
        assert_eq!(payments.capture(payment, "2.0").await, taken);
        assert_eq!(payments.retrieve(payment).await, taken);
    }
}

#[test]
fn a_charge_that_names_no_card_is_taken_all_the_same() {
    let (intent, order) = (IntentId::from("pi".to_owned()), OrderId::from(Uuid::now_v7()));
    let payment = Payment { intent: &intent, order, total: Money::new(1, Currency::EUR) };
    let said = |charge: Value| {
        let body = json!({"id": "pi", "status": "succeeded", "latest_charge": charge});
        intent_of(Answer::Done(body.to_string()), payment)
    };
    let card = |brand: Value, last4: Value| {
        said(json!({"id": "ch", "payment_method_details": {"card": {"brand": brand, "last4": last4}}}))
    };
    let named = Ok(Intent::Captured(Some(Card::new("unknown", "4242").unwrap())));
    assert_eq!(card(json!(null), json!("4242")), named);
    for unnamed in [
        said(json!(null)),
        said(json!("ch_1")),
        said(json!({"id": "ch"})),
        said(json!({"payment_method_details": {"type": "sepa_debit", "sepa_debit": {"last4": "3000"}}})),
        card(json!("visa"), json!(null)),
        card(json!("visa"), json!(4242)),
        card(json!("visa"), json!("4242424242424242")),
    ] {
        assert_eq!(unnamed, Ok(Intent::Captured(None)));
    }
}

#[tokio::test]
async fn owners_of_cards_learn_why_they_were_declined_unless_it_tells_of_theft() {
    let order = OrderId::from(Uuid::now_v7());
    let intent = IntentId::from("pi".to_owned());
    let payment = Payment { intent: &intent, order, total: Money::new(1, Currency::EUR) };
    for (code, decline_code, reason) in [
        ("card_declined", json!("insufficient_funds"), DeclineReason::InsufficientFunds),
        ("expired_card", json!(null), DeclineReason::ExpiredCard),
        ("incorrect_cvc", json!(null), DeclineReason::IncorrectDetails),
        ("card_declined", json!("card_not_supported"), DeclineReason::CardNotSupported),
        ("card_declined", json!("card_velocity_exceeded"), DeclineReason::LimitExceeded),
        ("card_declined", json!("authentication_required"), DeclineReason::AuthenticationFailed),
        ("processing_error", json!(null), DeclineReason::TryAgainLater),
        ("card_declined", json!("generic_decline"), DeclineReason::Declined),
        ("card_declined", json!("lost_card"), DeclineReason::Declined),
        ("card_declined", json!("stolen_card"), DeclineReason::Declined),
        ("card_declined", json!("restricted_card"), DeclineReason::Declined),
        ("card_declined", json!("fraudulent"), DeclineReason::Declined),
        ("card_declined", json!("invented_since"), DeclineReason::Declined),
    ] {
        let error = json!({"type": "card_error", "code": code, "decline_code": decline_code});
        let payments = answering(402, error.clone()).await;
        assert_eq!(create(&payments, order).await, Ok(Creation::Refused(reason)), "{error}");
        let declined = Ok(Intent::Declined(reason));
        assert_eq!(payments.confirm(payment, "1.0").await, declined, "{error}");
        let body = json!({"id": "pi", "status": "requires_payment_method", "last_payment_error": error});
        assert_eq!(intent_of(Answer::Done(body.to_string()), payment), declined, "{error}");
    }
    let large = json!({"type": "invalid_request_error", "code": "amount_too_large", "param": "amount"});
    let refused = Ok(Creation::Refused(DeclineReason::AmountNotAccepted));
    assert_eq!(create(&answering(400, large).await, order).await, refused);
}

#[tokio::test]
async fn only_what_can_never_go_back_ends_a_refund() {
    let (refund, intent) = (RefundId::from(Uuid::now_v7()), IntentId::from("pi".to_owned()));
    let total = Money::new(1, Currency::EUR);
    let payment = Payment { intent: &intent, order: Uuid::now_v7().into(), total };
    let asked = async |error| answering(400, error).await.refund(payment, refund, total).await;
    for ends in [
        json!({"type": "invalid_request_error", "code": "charge_already_refunded"}),
        json!({"type": "invalid_request_error", "param": "amount"}),
    ] {
        let answer = asked(ends.clone()).await;
        let failed = answer == Ok(RefundAnswer::Refused);
        assert!(failed, "{ends}: {answer:?}");
    }
    for mistake in [
        // For as long as the dispute lasts.
        json!({"type": "invalid_request_error", "code": "charge_disputed"}),
        json!({"type": "invalid_request_error", "code": "parameter_unknown", "param": "metadata[refund_id]"}),
        json!({"type": "invalid_request_error", "code": "resource_missing", "param": "payment_intent"}),
        json!({"type": "invalid_request_error"}),
    ] {
        assert_eq!(asked(mistake.clone()).await, Err(NoAnswer), "{mistake}");
    }
}

#[tokio::test]
async fn of_several_disputes_the_one_that_is_open_counts_and_then_a_lost_one() {
    let intent = IntentId::from("pi".to_owned());
    let payment =
        Payment { intent: &intent, order: Uuid::now_v7().into(), total: Money::new(1, Currency::EUR) };
    for (statuses, wanted) in [
        (vec![], None),
        (vec!["needs_response"], Some(Dispute::Open)),
        (vec!["warning_needs_response"], Some(Dispute::Open)),
        (vec!["under_review"], Some(Dispute::Open)),
        (vec!["invented_since"], Some(Dispute::Open)),
        (vec!["won"], Some(Dispute::Won)),
        (vec!["warning_closed"], Some(Dispute::Won)),
        (vec!["lost"], Some(Dispute::Lost)),
        (vec!["won", "lost"], Some(Dispute::Lost)),
        (vec!["won", "lost", "needs_response"], Some(Dispute::Open)),
    ] {
        let data: Vec<Value> =
            statuses.iter().map(|status| json!({"id": "du_1", "status": status})).collect();
        let payments = answers(200, json!({"object": "list", "data": data, "has_more": false})).await;
        assert_eq!(payments.dispute(payment).await, Ok(wanted), "{statuses:?}");
    }
    // A provider without disputes, and one that does not answer.
    let error = json!({"type": "invalid_request_error"});
    assert_eq!(answering(404, error.clone()).await.dispute(payment).await, Ok(None));
    assert_eq!(answering(400, error).await.dispute(payment).await, Err(NoAnswer));
    assert_eq!(refusing(500, "api_error").await.dispute(payment).await, Err(NoAnswer));
}

#[tokio::test]
async fn a_mistake_of_ours_keeps_its_order_and_no_other() {
    let (intent, order) = (IntentId::from("pi".to_owned()), OrderId::from(Uuid::now_v7()));
    let payment = Payment { intent: &intent, order, total: Money::new(1, Currency::EUR) };
    let as_it_was = |status: &str| {
        json!({"id": "pi", "status": status, "amount": 1, "currency": "eur",
        "metadata": {"order_id": order.to_string()}})
    };
    let mistake = json!({"type": "invalid_request_error", "param": "return_url"});
    let mut with_intent = mistake.clone();
    with_intent["payment_intent"] = as_it_was("requires_confirmation");
    for error in [mistake, with_intent] {
        let payments = answering(400, error.clone()).await;
        assert_eq!(payments.confirm(payment, "1").await, Err(NoAnswer), "{error}");
        assert!(payments.is_our_mistake(order), "{error}");
        assert!(!payments.is_our_mistake(Uuid::now_v7().into()), "{error}");
    }
    // It is in another state than we thought: no mistake.
    for (status, is) in [("canceled", Intent::Cancelled), ("processing", Intent::Processing)] {
        let mut error = json!({"type": "invalid_request_error", "code": "payment_intent_unexpected_state"});
        error["payment_intent"] = as_it_was(status);
        let payments = answering(400, error).await;
        assert_eq!(payments.confirm(payment, "1").await, Ok(is));
        assert!(!payments.is_our_mistake(order));
    }
    // Nor is a card that is declined, or that another order has used up.
    let used_up = json!({"type": "invalid_request_error", "param": "payment_method"});
    let mut told = used_up.clone();
    told["payment_intent"] = as_it_was("requires_confirmation");
    let payments = answering(400, told).await;
    assert!(matches!(payments.confirm(payment, "1").await, Ok(Intent::Declined(_))));
    assert!(!payments.is_our_mistake(order));
    // Nobody says how the intent is: it may be held by an attempt whose answer got lost.
    let payments = answering(400, used_up).await;
    assert_eq!(payments.confirm(payment, "1").await, Err(NoAnswer));
    let declined = answering(402, json!({"type": "card_error", "code": "card_declined"})).await;
    assert!(matches!(declined.confirm(payment, "1").await, Ok(Intent::Declined(_))));
    assert!(!declined.is_our_mistake(order));
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
        intent_of(Answer::Done(body.to_string()), payment)
    };
    let authorised = Ok(Intent::Authorised);
    assert_eq!(said("requires_capture", &|body| body["amount_received"] = json!(0)), authorised);
    assert_eq!(said("succeeded", &|_| ()), Ok(Intent::Captured(None)));
    for (field, other) in [
        ("amount", json!(24_901)),
        ("currency", json!("eur")),
        ("metadata", json!({"order_id": Uuid::now_v7().to_string()})),
    ] {
        for status in ["requires_capture", "succeeded"] {
            assert_eq!(said(status, &|body| body[field] = other.clone()), Err(NoAnswer), "{field} {status}");
        }
    }
    // An earlier version sent the order's minor units, whatever the provider makes of them.
    let old = |body: &mut Value| (body["amount"], body["amount_received"]) = (json!(24_900), json!(24_900));
    assert_eq!(said("succeeded", &old), Ok(Intent::Captured(None)));
    // Captured in part, by hand.
    assert_eq!(said("succeeded", &|body| body["amount_received"] = json!(100)), Err(NoAnswer));
    // Nothing is held: nothing to compare.
    assert_eq!(said("canceled", &|body| body["amount"] = json!(1)), Ok(Intent::Cancelled));
}

#[test]
fn a_customer_who_has_to_act_learns_where() {
    let (intent, order) = (IntentId::from("pi".to_owned()), OrderId::from(Uuid::now_v7()));
    let payment = Payment { intent: &intent, order, total: Money::new(1, Currency::EUR) };
    let asked = |next_action: Value| {
        let body = json!({
            "id": "pi", "status": "requires_action", "client_secret": "pi_secret_1", "next_action": next_action,
        });
        intent_of(Answer::Done(body.to_string()), payment)
    };
    let url = Some("https://bank.test/3ds".to_owned());
    assert_eq!(
        asked(
            json!({"type": "redirect_to_url", "redirect_to_url": {"url": url, "return_url": "https://shop.test"}})
        ),
        Ok(Intent::ActionRequired(NextAction { redirect_url: url, client_secret: None }))
    );
    assert_eq!(
        asked(json!({"type": "use_stripe_sdk", "use_stripe_sdk": {"any": 1}})),
        Ok(Intent::ActionRequired(NextAction {
            redirect_url: None,
            client_secret: Some("pi_secret_1".to_owned())
        }))
    );
}

#[tokio::test]
async fn a_key_that_is_refused_is_remembered_until_it_is_taken() {
    let order = Uuid::now_v7().into();
    for status in [401, 403] {
        let payments = refusing(status, "invalid_request_error").await;
        assert!(!payments.is_key_refused());
        assert_eq!(create(&payments, order).await, Err(NoAnswer));
        assert!(payments.is_key_refused(), "{status}");
    }
    let payments = sandbox().await;
    record(&payments.faults.key, true);
    assert!(matches!(create(&payments, order).await, Ok(Creation::Created(_))));
    assert!(!payments.is_key_refused());
}

#[tokio::test]
async fn what_an_earlier_version_took_goes_back_in_the_units_that_it_was_taken_in() {
    let (payments, order) = (sandbox().await, OrderId::from(Uuid::now_v7()));
    let total = Money::new(24_900, "ISK".parse().unwrap());
    let form = [
        ("amount", "24900".to_owned()),
        ("currency", "isk".to_owned()),
        // What the version that it was sent with took for granted.
        ("payment_method_types[]", "card".to_owned()),
        ("payment_method", "pm_card_visa".to_owned()),
        ("confirm", "true".to_owned()),
        ("metadata[order_id]", order.to_string()),
    ];
    let intent = earlier(&payments, order, &form).await;
    let payment = Payment { intent: &intent, order, total };
    let taken = Ok(Intent::Captured(Some(Card::new("visa", "4242").unwrap())));
    assert_eq!(payments.retrieve(payment).await, taken);
    let refund = RefundId::from(Uuid::now_v7());
    let Ok(RefundAnswer::Made(made)) = payments.refund(payment, refund, total).await else {
        panic!("it is answered")
    };
    assert_eq!((made.amount, made.status, made.ours), (total, RefundStatus::Succeeded, Some(refund)));
    assert_eq!(payments.refunds(payment).await.unwrap()[0].amount, total);
    // All of it went back, and not a hundredth.
    let again = payments.refund(payment, Uuid::now_v7().into(), total).await;
    assert_eq!(again, Ok(RefundAnswer::Refused));
}
