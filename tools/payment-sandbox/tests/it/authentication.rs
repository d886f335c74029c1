//! 3-D Secure: customers who have to prove who they are.

use crate::support::{Answer, Api, DEADLINE, Sandbox};
use reqwest::{Method, StatusCode, redirect};
use serde_json::{Value, json};

const CARD: &str = "pm_card_threeDSecure2Required";
const BACK: &str = "https://shop.test/orders/1?from=bank";

async fn confirm(api: &Api, intent: &str, form: crate::support::Form<'_>) -> Answer {
    api.post(&format!("{intent}/confirm"), form).await
}

/// The address of the page that a confirmation with a way back leads to.
async fn page(api: &Api, intent: &str) -> String {
    let (status, _, body) = confirm(api, intent, &[("return_url", BACK)]).await;
    assert_eq!((status, &body["status"]), (StatusCode::OK, &"requires_action".into()), "{body}");
    let action = &body["next_action"];
    assert_eq!(
        (&action["type"], &action["redirect_to_url"]["return_url"]),
        (&"redirect_to_url".into(), &BACK.into())
    );
    action["redirect_to_url"]["url"].as_str().expect("an address").to_owned()
}

/// What a customer does there: status, `Location` and text of the answer.
async fn act(page: &str, outcome: Option<&str>) -> (StatusCode, Option<String>, String) {
    let browser = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .timeout(DEADLINE)
        .build()
        .expect("a client");
    let request = match outcome {
        None => browser.get(page),
        Some(outcome) => browser.post(page).form(&[("outcome", outcome)]),
    };
    let answer = request.send().await.expect("an answer");
    let location = answer.headers().get("location").map(|at| at.to_str().expect("ASCII").to_owned());
    (answer.status(), location, answer.text().await.expect("a text"))
}

#[tokio::test]
async fn a_customer_who_proves_who_they_are_has_paid_and_comes_back() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    for card in [CARD, "pm_card_authenticationRequired", "pm_card_authenticationRequiredOnSetup"] {
        let intent = api.intent(card).await;
        let page = page(api, &intent).await;
        assert!(page.starts_with(&format!("{}/3d_secure/", api.base)), "{page}");
        let (status, _, html) = act(&page, None).await;
        assert!(status == StatusCode::OK && html.contains("2500 eur"), "{html}");
        assert_eq!(api.get(&intent).await.2["status"], "requires_action", "reading it does nothing");
        let refused = act(&page, Some("maybe")).await.0;
        assert_eq!(refused, StatusCode::BAD_REQUEST);

        let (status, location, _) = act(&page, Some("complete")).await;
        let intent = api.get(&intent).await.2;
        let back = format!(
            "{BACK}&payment_intent={}&payment_intent_client_secret={}&redirect_status=succeeded",
            intent["id"].as_str().unwrap(),
            intent["client_secret"].as_str().unwrap()
        );
        assert_eq!((status, location), (StatusCode::SEE_OTHER, Some(back)));
        assert_eq!((&intent["status"], &intent["next_action"]), (&"requires_capture".into(), &Value::Null));
        assert_eq!(act(&page, None).await.0, StatusCode::NOT_FOUND, "once");
        assert_eq!(act(&page, Some("fail")).await.0, StatusCode::NOT_FOUND, "once");
    }
    assert_eq!(api.ledger().await, [7500, 0, 0, 7500, 0]);
    let asked = api.until_events("payment_intent.requires_action", 3).await;
    assert_eq!(asked[0]["data"]["object"]["status"], "requires_action");
}

#[tokio::test]
async fn a_customer_who_fails_has_paid_nothing_and_may_try_again() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let intent = api.intent(CARD).await;
    let first = page(api, &intent).await;
    let (status, location, _) = act(&first, Some("fail")).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert!(location.unwrap().ends_with("redirect_status=failed"));
    let failed = api.get(&intent).await.2;
    assert_eq!(
        (&failed["status"], &failed["payment_method"]),
        (&"requires_payment_method".into(), &Value::Null)
    );
    let error = &failed["last_payment_error"];
    assert_eq!(
        (&error["type"], &error["code"]),
        (&"invalid_request_error".into(), &"payment_intent_authentication_failure".into())
    );
    assert_eq!(api.until_events("payment_intent.payment_failed", 1).await[0]["data"]["object"], failed);
    assert_eq!(api.ledger().await, [0, 0, 0, 0, 0]);

    let (_, _, again) = confirm(api, &intent, &[("payment_method", CARD), ("return_url", BACK)]).await;
    let second = again["next_action"]["redirect_to_url"]["url"].as_str().unwrap();
    assert_ne!(second, first);
    assert_eq!(act(&first, Some("complete")).await.0, StatusCode::NOT_FOUND, "the first is over");
    assert_eq!(act(second, Some("complete")).await.0, StatusCode::SEE_OTHER);
    assert_eq!(api.get(&intent).await.2["status"], "requires_capture");
}

#[tokio::test]
async fn a_card_may_decline_after_its_holder_proved_who_they_are() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    for (card, decline_code) in [
        ("pm_card_threeDSecureRequiredChargeDeclined", "generic_decline"),
        ("pm_card_authenticationRequiredChargeDeclinedInsufficientFunds", "insufficient_funds"),
    ] {
        let intent = api.intent(card).await;
        act(&page(api, &intent).await, Some("complete")).await;
        let declined = api.get(&intent).await.2;
        assert_eq!(declined["status"], "requires_payment_method");
        assert_eq!(declined["last_payment_error"]["decline_code"], decline_code);
    }
    assert_eq!(api.ledger().await, [0, 0, 0, 0, 0]);
}

#[tokio::test]
async fn without_a_way_back_the_page_is_for_the_sdk_and_says_how_it_ended() {
    let sandbox = Sandbox::with(|config| config.public_url = Some("http://bank.test/".into())).await;
    let api = &sandbox.client;
    let intent = api.intent(CARD).await;
    let (_, _, body) = confirm(api, &intent, &[]).await;
    assert_eq!(body["next_action"]["type"], "use_stripe_sdk");
    let page = body["next_action"]["use_stripe_sdk"]["stripe_js"].as_str().unwrap();
    let path = page.strip_prefix("http://bank.test/").expect("the public address");
    let (status, location, html) = act(&format!("{}/{path}", api.base), Some("complete")).await;
    assert_eq!((status, location), (StatusCode::OK, None));
    assert!(html.contains("succeeded"), "{html}");
}

#[tokio::test]
async fn nobody_is_asked_who_is_not_there() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    for (flag, decline_code) in [
        ("off_session", "authentication_required"),
        ("error_on_requires_action", "authentication_not_handled"),
    ] {
        let intent = api.intent(CARD).await;
        let (status, _, body) = confirm(api, &intent, &[(flag, "true")]).await;
        assert_eq!(
            (status, &body["error"]["code"]),
            (StatusCode::PAYMENT_REQUIRED, &"authentication_required".into())
        );
        assert_eq!(body["error"]["decline_code"], decline_code);
        assert_eq!(api.get(&intent).await.2["status"], "requires_payment_method");
    }
    let set_up = api.intent("pm_card_authenticationRequiredSetupForOffSession").await;
    assert_eq!(confirm(api, &set_up, &[("off_session", "true")]).await.2["status"], "requires_capture");
}

#[tokio::test]
async fn a_cancelled_intent_has_nothing_to_prove() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let intent = api.intent(CARD).await;
    let page = page(api, &intent).await;
    let (_, _, body) = api.post(&format!("{intent}/cancel"), &[]).await;
    assert_eq!((&body["status"], &body["next_action"]), (&"canceled".into(), &Value::Null));
    assert_eq!(act(&page, Some("complete")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(act(&format!("{}/3d_secure/pi_none/src_none", api.base), None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(api.ledger().await, [0, 0, 0, 0, 0]);
}

#[tokio::test]
async fn who_does_not_act_in_time_has_failed_also_after_a_restart() {
    let mut sandbox = Sandbox::start().await;
    let intent = sandbox.client.intent(CARD).await;
    page(&sandbox.client, &intent).await;
    sandbox.config.authentication_seconds = 0;
    let sandbox = sandbox.restart().await;
    let failed = sandbox.client.until_status(&intent, "requires_payment_method").await;
    assert_eq!(failed["last_payment_error"]["code"], "payment_intent_authentication_failure");

    let intent = sandbox.client.intent(CARD).await;
    page(&sandbox.client, &intent).await;
    sandbox.client.until_status(&intent, "requires_payment_method").await;
    assert_eq!(sandbox.client.ledger().await, [0, 0, 0, 0, 0]);
}

#[tokio::test]
async fn a_repeated_confirmation_leads_to_the_same_page_and_survives_a_restart() {
    let sandbox = Sandbox::start().await;
    let intent = sandbox.client.intent(CARD).await;
    let (path, form) = (format!("{intent}/confirm"), [("return_url", BACK)]);
    let first = sandbox.client.post_with_key("k", &path, &form).await;
    let before = sandbox.client.get(&intent).await.2;
    let sandbox = sandbox.restart().await;
    let api = &sandbox.client;
    let again = api.post_with_key("k", &path, &form).await;
    assert_eq!((again.1, &again.2), (true, &first.2));
    assert_eq!(api.get(&intent).await.2, before);
    let other = api
        .request(Method::POST, &path)
        .header("Idempotency-Key", "k")
        .form(&[("return_url", "https://a.test")]);
    let refused: Value = other.send().await.unwrap().json().await.unwrap();
    assert_eq!(refused["error"]["type"], json!("idempotency_error"));
}
