//! One effect per `Idempotency-Key`.

use std::collections::HashSet;

use crate::support::Sandbox;
use reqwest::StatusCode;
use tokio::task::JoinSet;

const CREATE: crate::support::Form<'static> = &[
    ("amount", "2500"),
    ("currency", "eur"),
    ("payment_method_types[]", "card"),
    ("payment_method", "pm_card_visa"),
    ("confirm", "true"),
    ("metadata[order_id]", "o1"),
];

#[tokio::test]
async fn thirty_two_at_once_with_one_key_make_one_intent() {
    let sandbox = Sandbox::start().await;
    let mut requests = JoinSet::new();
    for _ in 0..32 {
        let api = sandbox.client.clone();
        requests.spawn(async move { api.post_with_key("k", "/v1/payment_intents", CREATE).await });
    }
    let (mut ids, mut first) = (HashSet::new(), 0);
    for (status, replayed, body) in requests.join_all().await {
        if status == StatusCode::CONFLICT {
            assert_eq!(body["error"]["code"], "idempotency_key_in_use");
            continue;
        }
        assert_eq!(status, StatusCode::OK, "{body}");
        first += u32::from(!replayed);
        ids.insert(body["id"].as_str().unwrap().to_owned());
    }
    assert_eq!((ids.len(), first), (1, 1));
    assert_eq!(sandbox.client.ledger().await, [2500, 2500, 0, 0, 1]);
}

#[tokio::test]
async fn a_key_belongs_to_one_path_and_its_parameters() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let first = api.post_with_key("k", "/v1/payment_intents", CREATE).await;
    assert_eq!((first.0, first.1), (StatusCode::OK, false));

    let other = [("amount", "2501"), ("currency", "eur")];
    for (path, form) in [("/v1/payment_intents", &other[..]), ("/v1/payment_intents/pi_x/cancel", &[])] {
        let (status, _, body) = api.post_with_key("k", path, form).await;
        assert_eq!((status, &body["error"]["type"]), (StatusCode::BAD_REQUEST, &"idempotency_error".into()));
    }
    let mut reordered = CREATE.to_vec();
    reordered.reverse();
    let again = api.post_with_key("k", "/v1/payment_intents", &reordered).await;
    assert_eq!(again, (first.0, true, first.2));
}

#[tokio::test]
async fn a_key_is_in_use_until_its_first_request_has_ended() {
    let sandbox = Sandbox::with(|config| config.slow_millis = 2000).await;
    let api = sandbox.client.clone();
    let intent = api.intent("pm_card_slow").await;
    let path = format!("{intent}/confirm");
    let first = tokio::spawn({
        let (api, path) = (api.clone(), path.clone());
        async move { api.post_with_key("k", &path, &[]).await }
    });
    api.until_status(&intent, "processing").await;
    let (status, _, body) = api.post_with_key("k", &path, &[]).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::CONFLICT, &"idempotency_key_in_use".into()));
    let first = first.await.unwrap();
    assert_eq!((first.0, first.1), (StatusCode::OK, false));
    assert_eq!(api.post_with_key("k", &path, &[]).await, (first.0, true, first.2));
}

#[tokio::test]
async fn a_decline_is_stored_and_a_bad_request_is_not() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let intent = api.intent("pm_card_chargeDeclined").await;
    let confirm = format!("{intent}/confirm");
    let first = api.post_with_key("decline", &confirm, &[]).await;
    assert_eq!(first.0, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(api.post_with_key("decline", &confirm, &[]).await, (first.0, true, first.2));

    let bad = [("amount", "0"), ("currency", "eur")];
    let (status, _, _) = api.post_with_key("k", "/v1/payment_intents", &bad).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, replayed, _) = api.post_with_key("k", "/v1/payment_intents", CREATE).await;
    assert_eq!((status, replayed), (StatusCode::OK, false));
    let (status, _, _) = api.post_with_key(&"k".repeat(256), "/v1/payment_intents", CREATE).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}
