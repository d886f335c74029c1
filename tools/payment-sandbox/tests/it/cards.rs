//! What each test card does.

use std::time::{Duration, Instant};

use crate::support::{Sandbox, id};
use reqwest::StatusCode;

#[tokio::test]
async fn good_cards_authorise_on_confirm_and_pay_on_capture() {
    for card in [
        "pm_card_visa",
        "pm_card_mastercard",
        "pm_card_amex",
        "pm_card_discover",
        "pm_card_de",
        "pm_card_threeDSecureOptional",
        "pm_card_cvcCheckFail",
    ] {
        let sandbox = Sandbox::start().await;
        let api = &sandbox.client;
        let intent = api.intent(card).await;
        assert_eq!(api.ledger().await, [0, 0, 0, 0, 0]);

        let (status, _, body) = api.post(&format!("{intent}/confirm"), &[]).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body["status"], "requires_capture");
        assert_eq!(body["amount_capturable"], 2500);
        assert_eq!(body["payment_method"], card);
        assert!(body["latest_charge"].as_str().unwrap().starts_with("ch_"));
        assert_eq!(api.ledger().await, [2500, 0, 0, 2500, 0]);

        let (status, _, body) = api.post(&format!("{intent}/capture"), &[]).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body["status"], "succeeded");
        assert_eq!((&body["amount_received"], &body["amount_capturable"]), (&2500.into(), &0.into()));
        assert_eq!(api.ledger().await, [2500, 2500, 0, 0, 1]);
    }
}

#[tokio::test]
async fn declined_cards_leave_the_intent_ready_for_another_card() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    for (card, code, decline_code) in [
        ("pm_card_chargeDeclined", "card_declined", Some("generic_decline")),
        ("pm_card_visa_chargeDeclined", "card_declined", Some("generic_decline")),
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", Some("insufficient_funds")),
        ("pm_card_chargeDeclinedLostCard", "card_declined", Some("lost_card")),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", Some("insufficient_funds")),
        ("pm_card_visa_chargeDeclinedLostCard", "card_declined", Some("lost_card")),
        ("pm_card_visa_chargeDeclinedStolenCard", "card_declined", Some("stolen_card")),
        ("pm_card_visa_chargeDeclinedVelocityLimitExceeded", "card_declined", Some("card_velocity_exceeded")),
        ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", None),
        ("pm_card_chargeDeclinedProcessingError", "processing_error", None),
        ("pm_card_radarBlock", "card_declined", Some("fraudulent")),
    ] {
        let intent = api.intent(card).await;
        let (status, _, body) = api.post(&format!("{intent}/confirm"), &[]).await;
        let error = &body["error"];
        assert_eq!(status, StatusCode::PAYMENT_REQUIRED, "{card}");
        assert_eq!((&error["type"], &error["code"]), (&"card_error".into(), &code.into()), "{card}");
        assert_eq!(error["decline_code"].as_str(), decline_code, "{card}");
        assert_eq!(error["payment_intent"]["status"], "requires_payment_method", "{card}");

        let (_, _, now) = api.get(&intent).await;
        assert_eq!(now, error["payment_intent"], "{card}");
        assert_eq!(now["last_payment_error"]["code"], code, "{card}");
        assert!(now["payment_method"].is_null(), "{card}");
    }
    assert_eq!(api.ledger().await, [0, 0, 0, 0, 0]);

    let intent = api.intent("pm_card_chargeDeclined").await;
    api.post(&format!("{intent}/confirm"), &[]).await;
    let (status, _, body) =
        api.post(&format!("{intent}/confirm"), &[("payment_method", "pm_card_visa")]).await;
    assert_eq!((status, &body["status"]), (StatusCode::OK, &"requires_capture".into()));
    assert!(body["last_payment_error"].is_null());
}

#[tokio::test]
async fn an_unknown_card_is_refused_at_create_and_at_confirm() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let intent = api.intent("pm_card_visa").await;
    let create = [("amount", "100"), ("currency", "eur"), ("payment_method", "pm_card_nope")];
    let others = ["pm_card_nope", "pm_card_", "visa", "pm_1Example", "4242424242424242", "pm_card_visa "];
    for card in others {
        let (status, _, body) = api.post(&format!("{intent}/confirm"), &[("payment_method", card)]).await;
        assert_eq!((status, &body["error"]["code"]), (StatusCode::BAD_REQUEST, &"resource_missing".into()));
    }
    for (path, form) in
        [("/v1/payment_intents".to_owned(), &create[..]), (format!("{intent}/confirm"), &create[2..])]
    {
        let (status, _, body) = api.post(&path, form).await;
        assert_eq!((status, &body["error"]["code"]), (StatusCode::BAD_REQUEST, &"resource_missing".into()));
        assert_eq!(body["error"]["param"], "payment_method");
    }
    assert_eq!(api.get(&intent).await.2["status"], "requires_confirmation");
}

#[tokio::test]
async fn the_slow_card_is_processing_until_its_time_has_passed() {
    let sandbox = Sandbox::with(|config| config.slow_millis = 1500).await;
    let api = sandbox.client.clone();
    let intent = api.intent("pm_card_slow").await;
    let started = Instant::now();
    let confirm = tokio::spawn({
        let (api, path) = (api.clone(), format!("{intent}/confirm"));
        async move { api.post(&path, &[]).await }
    });
    api.until_status(&intent, "processing").await;
    assert_eq!(api.ledger().await, [0, 0, 0, 0, 0]);
    let (status, _, body) = confirm.await.unwrap();
    assert_eq!((status, &body["status"]), (StatusCode::OK, &"requires_capture".into()));
    assert!(started.elapsed() >= Duration::from_millis(1500));
    assert_eq!(api.ledger().await, [2500, 0, 0, 2500, 0]);
}

#[tokio::test]
async fn a_slow_confirm_goes_on_when_its_client_is_gone() {
    let sandbox = Sandbox::with(|config| config.slow_millis = 2000).await;
    let api = &sandbox.client;
    let intent = api.intent("pm_card_slow").await;
    api.post_unanswered("k", &format!("{intent}/confirm"), &[]).await;
    api.until_status(&intent, "requires_capture").await;
}

#[tokio::test]
async fn a_cancelled_intent_is_not_authorised_by_the_slow_confirm_that_it_overtook() {
    let sandbox = Sandbox::with(|config| config.slow_millis = 2000).await;
    let api = sandbox.client.clone();
    let intent = api.intent("pm_card_slow").await;
    let confirm = tokio::spawn({
        let (api, path) = (api.clone(), format!("{intent}/confirm"));
        async move { api.post(&path, &[]).await }
    });
    api.until_status(&intent, "processing").await;
    let (status, _, body) = api.post(&format!("{intent}/cancel"), &[]).await;
    assert_eq!((status, &body["status"]), (StatusCode::OK, &"canceled".into()));

    let (status, _, body) = confirm.await.unwrap();
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(body["error"]["code"], "payment_intent_unexpected_state");
    assert_eq!(body["error"]["payment_intent"]["status"], "canceled");
    assert_eq!(api.get(&intent).await.2["status"], "canceled");
    assert_eq!(api.ledger().await, [0, 0, 0, 0, 0]);
}

#[tokio::test]
async fn the_hanging_card_stays_processing_until_it_is_cancelled() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let intent = api.intent("pm_card_hang").await;
    api.post_unanswered("k", &format!("{intent}/confirm"), &[]).await;
    api.until_status(&intent, "processing").await;
    let (status, _, body) = api.post_with_key("k", &format!("{intent}/confirm"), &[]).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::CONFLICT, &"idempotency_key_in_use".into()));

    let (status, _, body) = api.post(&format!("{intent}/cancel"), &[]).await;
    assert_eq!((status, &body["status"]), (StatusCode::OK, &"canceled".into()));
    assert_eq!(api.ledger().await, [0, 0, 0, 0, 0]);
}

#[tokio::test]
async fn a_lost_confirm_has_authorised_and_its_key_finds_the_answer() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let intent = api.intent("pm_card_confirm_lost").await;
    let confirm = format!("{intent}/confirm");
    api.post_unanswered("k", &confirm, &[]).await;
    api.until_status(&intent, "requires_capture").await;
    assert_eq!(api.ledger().await, [2500, 0, 0, 2500, 0]);
    let (status, replayed, body) = api.post_with_key("k", &confirm, &[]).await;
    assert_eq!((status, replayed), (StatusCode::OK, true));
    assert_eq!(body["status"], "requires_capture");
}

#[tokio::test]
async fn a_confirm_that_answers_500_has_authorised() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let intent = api.intent("pm_card_confirm_500").await;
    let first = api.post_with_key("k", &format!("{intent}/confirm"), &[]).await;
    assert_eq!(
        (first.0, &first.2["error"]["type"]),
        (StatusCode::INTERNAL_SERVER_ERROR, &"api_error".into())
    );
    let again = api.post_with_key("k", &format!("{intent}/confirm"), &[]).await;
    assert_eq!(again, (first.0, true, first.2));
    assert_eq!(api.get(&intent).await.2["status"], "requires_capture");
    assert_eq!(api.ledger().await, [2500, 0, 0, 2500, 0]);
}

#[tokio::test]
async fn a_lost_capture_has_paid_once() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let intent = api.authorized("pm_card_capture_lost").await;
    let capture = format!("{intent}/capture");
    api.post_unanswered("k", &capture, &[]).await;
    api.until_status(&intent, "succeeded").await;
    let (status, replayed, body) = api.post_with_key("k", &capture, &[]).await;
    assert_eq!((status, replayed, &body["status"]), (StatusCode::OK, true, &"succeeded".into()));
    let (status, _, body) = api.post_with_key("another", &capture, &[]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(body["error"]["payment_intent"]["status"], "succeeded");
    assert_eq!(api.ledger().await, [2500, 2500, 0, 0, 1]);
}

#[tokio::test]
async fn a_capture_that_answers_500_has_paid() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let intent = api.authorized("pm_card_capture_500").await;
    let (status, _, _) = api.post(&format!("{intent}/capture"), &[]).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(api.get(&intent).await.2["status"], "succeeded");
    assert_eq!(api.ledger().await, [2500, 2500, 0, 0, 1]);
}

#[tokio::test]
async fn a_refused_capture_ends_the_authorisation() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let intent = api.authorized("pm_card_capture_refused").await;
    let (status, _, body) = api.post(&format!("{intent}/capture"), &[]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(body["error"]["code"], "payment_intent_unexpected_state");
    assert_eq!(body["error"]["payment_intent"]["status"], "canceled");
    assert_eq!(body["error"]["payment_intent"]["cancellation_reason"], "automatic");
    assert_eq!(api.ledger().await, [2500, 0, 0, 0, 0]);
}

#[tokio::test]
async fn a_lost_refund_is_made_once_and_its_key_finds_the_answer() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let intent = api.captured("pm_card_refund_lost").await;
    let form = [("payment_intent", id(&intent)), ("amount", "900")];
    api.post_unanswered("k", "/v1/refunds", &form).await;
    assert_eq!(api.ledger().await, [2500, 2500, 900, 0, 1]);
    let (status, replayed, body) = api.post_with_key("k", "/v1/refunds", &form).await;
    assert_eq!((status, replayed, &body["status"]), (StatusCode::OK, true, &"succeeded".into()));
    assert_eq!(api.ledger().await, [2500, 2500, 900, 0, 1]);
}

#[tokio::test]
async fn a_refund_that_answers_500_is_made() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let intent = api.captured("pm_card_refund_500").await;
    let (status, _, _) = api.post("/v1/refunds", &[("payment_intent", id(&intent))]).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(api.ledger().await, [2500, 2500, 2500, 0, 1]);
}

#[tokio::test]
async fn refunds_may_fail_at_once_or_later_and_may_take_their_time() {
    let sandbox = Sandbox::with(|config| config.slow_millis = 1500).await;
    let api = &sandbox.client;
    for (card, first, last, refunded) in [
        ("pm_card_refund_fails_once", "failed", "failed", 0),
        ("pm_card_refundFail", "succeeded", "failed", 0),
        ("pm_card_pendingRefund", "pending", "succeeded", 2500),
    ] {
        let intent = api.intent_of(card, card).await;
        for step in ["confirm", "capture"] {
            assert_eq!(api.post(&format!("{intent}/{step}"), &[]).await.0, StatusCode::OK);
        }
        let (status, _, body) = api.post("/v1/refunds", &[("payment_intent", id(&intent))]).await;
        assert_eq!((status, &body["status"]), (StatusCode::OK, &first.into()), "{card}");
        let refund = format!("/v1/refunds/{}", body["id"].as_str().unwrap());
        api.until_status(&refund, last).await;
        let (_, _, ledger) = api.get(&format!("/ledger?order_id={card}")).await;
        assert_eq!(ledger["items"][0]["refunded"], refunded, "{card}");
        let (status, _, body) = api.post("/v1/refunds", &[("payment_intent", id(&intent))]).await;
        let again = if last == "failed" { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        assert_eq!(status, again, "{card}: {body}");
    }
}
