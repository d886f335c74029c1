//! The rules of intents, refunds, parameters and the ledger.

use crate::support::{Api, Sandbox, id};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[tokio::test]
async fn automatic_capture_pays_on_confirm_and_confirm_can_come_with_create() {
    let sandbox = Sandbox::start().await;
    let form = [
        ("amount", "700"),
        ("currency", "EUR"),
        ("payment_method", "pm_card_visa"),
        ("confirm", "true"),
        ("metadata[order_id]", "o1"),
        ("payment_method_types[]", "card"),
    ];
    let (status, _, body) = sandbox.client.post("/v1/payment_intents", &form).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(
        (&body["status"], &body["capture_method"], &body["currency"], &body["amount_received"]),
        (&json!("succeeded"), &json!("automatic_async"), &json!("eur"), &json!(700))
    );
    assert_eq!(body["metadata"], json!({ "order_id": "o1" }));
    assert_eq!(sandbox.client.ledger().await, [700, 700, 0, 0, 1]);
}

#[tokio::test]
async fn a_decline_at_create_leaves_an_intent() {
    let sandbox = Sandbox::start().await;
    let form = [
        ("amount", "700"),
        ("currency", "eur"),
        ("payment_method_types[]", "card"),
        ("payment_method", "pm_card_chargeDeclined"),
        ("confirm", "true"),
    ];
    let (status, _, body) = sandbox.client.post("/v1/payment_intents", &form).await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
    let intent = &body["error"]["payment_intent"];
    let path = format!("/v1/payment_intents/{}", intent["id"].as_str().unwrap());
    assert_eq!(sandbox.client.get(&path).await.2, *intent);
}

#[tokio::test]
async fn a_partial_capture_releases_the_rest() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let intent = api.authorized("pm_card_visa").await;
    let capture = format!("{intent}/capture");
    let (status, _, body) = api.post(&capture, &[("amount_to_capture", "2501")]).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::BAD_REQUEST, &"amount_too_large".into()));
    let (status, _, body) = api.post(&capture, &[("amount_to_capture", "1000")]).await;
    assert_eq!((status, &body["amount_received"]), (StatusCode::OK, &1000.into()));
    assert_eq!(api.ledger().await, [2500, 1000, 0, 0, 1]);
}

#[tokio::test]
async fn an_intent_without_a_card_wants_one() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let create = [("amount", "100"), ("currency", "eur"), ("payment_method_types[]", "card")];
    let (_, _, body) = api.post("/v1/payment_intents", &create).await;
    assert_eq!(body["status"], "requires_payment_method");
    let confirm = format!("/v1/payment_intents/{}/confirm", body["id"].as_str().unwrap());
    let (status, _, body) = api.post(&confirm, &[]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(body["error"]["code"], "payment_intent_unexpected_state");
    let (status, _, _) = api.post(&confirm, &[("payment_method", "pm_card_visa")]).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn operations_are_refused_in_the_wrong_state_and_show_the_intent() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let fresh = api.intent("pm_card_visa").await;
    let open = api.authorized("pm_card_visa").await;
    let paid = api.captured("pm_card_visa").await;
    let canceled = api.authorized("pm_card_visa").await;
    let (status, _, body) =
        api.post(&format!("{canceled}/cancel"), &[("cancellation_reason", "abandoned")]).await;
    assert_eq!((status, &body["cancellation_reason"]), (StatusCode::OK, &"abandoned".into()));

    for (intent, operation) in [
        (&fresh, "capture"),
        (&open, "confirm"),
        (&paid, "confirm"),
        (&paid, "capture"),
        (&paid, "cancel"),
        (&canceled, "confirm"),
        (&canceled, "capture"),
        (&canceled, "cancel"),
    ] {
        let before = api.get(intent).await.2;
        let (status, _, body) = api.post(&format!("{intent}/{operation}"), &[]).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{operation}: {body}");
        assert_eq!(body["error"]["code"], "payment_intent_unexpected_state", "{operation}");
        assert_eq!(body["error"]["payment_intent"], before, "{operation}");
        assert_eq!(api.get(intent).await.2, before, "{operation}");
    }
}

async fn refund(api: &Api, intent: &str, form: crate::support::Form<'_>) -> (StatusCode, Value) {
    let form = [&[("payment_intent", id(intent))], form].concat();
    let (status, _, body) = api.post("/v1/refunds", &form).await;
    (status, body)
}

#[tokio::test]
async fn refunds_never_exceed_what_was_captured() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let intent = api.captured("pm_card_visa").await;
    let code = |body: &Value| body["error"]["code"].clone();

    let (status, first) =
        refund(api, &intent, &[("amount", "1000"), ("reason", "duplicate"), ("metadata[refund_id]", "r1")])
            .await;
    assert_eq!(status, StatusCode::OK, "{first}");
    assert_eq!(first["metadata"], json!({ "refund_id": "r1" }));
    assert_eq!(
        (&first["status"], &first["amount"], &first["reason"], &first["payment_intent"]),
        (&json!("succeeded"), &json!(1000), &json!("duplicate"), &json!(id(&intent)))
    );
    let (status, body) = refund(api, &intent, &[("amount", "1501")]).await;
    assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "amount_too_large".into()));
    let (status, rest) = refund(api, &intent, &[]).await;
    assert_eq!((status, &rest["amount"]), (StatusCode::OK, &1500.into()));
    let (status, body) = refund(api, &intent, &[("amount", "1")]).await;
    assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "charge_already_refunded".into()));
    assert_eq!(api.ledger().await, [2500, 2500, 2500, 0, 1]);

    let open = api.authorized("pm_card_visa").await;
    let (status, body) = refund(api, &open, &[]).await;
    assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "payment_intent_unexpected_state".into()));

    let (_, _, got) = api.get(&format!("/v1/refunds/{}", first["id"].as_str().unwrap())).await;
    assert_eq!(got, first);
    let (_, _, list) = api.get(&format!("/v1/refunds?payment_intent={}", id(&intent))).await;
    assert_eq!(list["data"], json!([rest, first]), "newest first");
    assert_eq!((&list["object"], &list["has_more"]), (&json!("list"), &json!(false)));
    let (_, _, page) = api.get("/v1/refunds?limit=1").await;
    assert_eq!((&page["data"], &page["has_more"]), (&json!([rest]), &json!(true)));
    let (_, _, page) =
        api.get(&format!("/v1/refunds?limit=1&starting_after={}", rest["id"].as_str().unwrap())).await;
    assert_eq!((&page["data"], &page["has_more"]), (&json!([first]), &json!(false)));
}

#[tokio::test]
async fn intents_are_listed_newest_first_in_pages() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let none = json!({ "object": "list", "data": [], "has_more": false, "url": "/v1/payment_intents" });
    assert_eq!(api.get("/v1/payment_intents").await.2, none);
    let mut newest_first = Vec::new();
    for order in 0..11 {
        let intent = api.intent_of(&format!("o{order}"), "pm_card_visa").await;
        newest_first.insert(0, api.get(&intent).await.2);
    }
    let (_, _, list) = api.get("/v1/payment_intents").await;
    assert_eq!(
        (list["data"].as_array().unwrap().as_slice(), &list["has_more"]),
        (&newest_first[..10], &json!(true))
    );
    let (mut found, mut query) = (Vec::new(), "limit=4".to_owned());
    loop {
        let (status, _, page) = api.get(&format!("/v1/payment_intents?{query}")).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        found.extend(page["data"].as_array().unwrap().clone());
        if page["has_more"] == false {
            break;
        }
        assert!(found.len() % 4 == 0 && found.len() < 11, "{page}");
        query = format!("limit=4&starting_after={}", found.last().unwrap()["id"].as_str().unwrap());
    }
    assert_eq!(found, newest_first);

    for (query, code, param) in [
        ("limit=0", "parameter_invalid_integer", "limit"),
        ("limit=101", "parameter_invalid_integer", "limit"),
        ("created[gte]=today", "parameter_invalid_integer", "created[gte]"),
        ("created[gte]=99999999999999999999", "parameter_invalid_integer", "created[gte]"),
        ("created[gte]=-1", "parameter_invalid_integer", "created[gte]"),
        ("created[after]=1", "parameter_unknown", "created[after]"),
        ("customer=cus_1", "parameter_unknown", "customer"),
        ("ending_before=pi_none", "resource_missing", "ending_before"),
        ("starting_after=pi_none", "resource_missing", "starting_after"),
    ] {
        let (status, _, body) = api.get(&format!("/v1/payment_intents?{query}")).await;
        let error = (&body["error"]["code"], &body["error"]["param"]);
        assert_eq!((status, error), (StatusCode::BAD_REQUEST, (&code.into(), &param.into())), "{query}");
    }
}

#[tokio::test]
async fn intents_are_listed_from_a_time_on_though_the_clock_was_set_back() {
    let sandbox = Sandbox::start().await;
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(id(&sandbox.client.intent("pm_card_visa").await).to_owned());
    }
    let log = sandbox.log_file();
    let dir = sandbox.stop().await;
    let mut lines: Vec<Value> =
        std::fs::read_to_string(&log).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    for (line, at) in lines.iter_mut().zip([7_000_999_u64, 5_000_000, 9_000_000]) {
        line["commit"]["at"] = at.into();
    }
    std::fs::write(&log, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let sandbox = Sandbox::with(|config| config.data_dir = dir.path().to_owned()).await;
    let [first, second, third] = [0, 1, 2].map(|place: usize| made[place].as_str());
    for (since, expected) in [
        (0, vec![third, second, first]),
        (5_001, vec![third, first]),
        (7_000, vec![third, first]),
        (7_001, vec![third]),
        (9_001, vec![]),
    ] {
        let (_, _, list) = sandbox.client.get(&format!("/v1/payment_intents?created[gte]={since}")).await;
        let ids = list["data"].as_array().unwrap().iter().map(|intent| intent["id"].as_str().unwrap());
        assert_eq!(ids.collect::<Vec<_>>(), expected, "{since}");
    }
}

#[tokio::test]
async fn refunds_at_once_never_exceed_what_was_captured() {
    let sandbox = Sandbox::start().await;
    let intent = sandbox.client.captured("pm_card_visa").await;
    let mut refunds = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (api, intent) = (sandbox.client.clone(), intent.clone());
        refunds.spawn(async move { refund(&api, &intent, &[("amount", "600")]).await.0 });
    }
    let statuses = refunds.join_all().await;
    assert_eq!(statuses.iter().filter(|status| status.is_success()).count(), 4, "{statuses:?}");
    assert_eq!(sandbox.client.ledger().await, [2500, 2500, 2400, 0, 1]);
}

#[tokio::test]
async fn bad_parameters_are_refused_by_name_and_change_nothing() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let long = "x".repeat(501);
    let none = Value::Null;
    for (change, code, param) in [
        (("amount", ""), json!("parameter_invalid_empty"), "amount"),
        (("amount", "ten"), json!("parameter_invalid_integer"), "amount"),
        (("amount", "+5"), json!("parameter_invalid_integer"), "amount"),
        (("amount", "19.99"), json!("parameter_invalid_integer"), "amount"),
        (("amount", "0"), json!("parameter_invalid_integer"), "amount"),
        (("amount", "-5"), json!("parameter_invalid_integer"), "amount"),
        (("amount", "99999999999999999999999"), json!("parameter_invalid_integer"), "amount"),
        (("currency", ""), json!("parameter_invalid_empty"), "currency"),
        (("currency", "euro"), none.clone(), "currency"),
        (("currency", "xxx"), none.clone(), "currency"),
        (("capture_method", "later"), none.clone(), "capture_method"),
        (("confirm", "yes"), none.clone(), "confirm"),
        (("confirm", "true"), json!("parameter_missing"), "payment_method"),
        (("return_url", "https://shop.test"), none.clone(), "return_url"),
        (("return_url", "shop"), json!("url_invalid"), "return_url"),
        (("off_session", "true"), none.clone(), "off_session"),
        (("error_on_requires_action", "true"), none.clone(), "error_on_requires_action"),
        (("receipt_email", "nobody"), json!("email_invalid"), "receipt_email"),
        (
            ("statement_descriptor_suffix", "twenty-three characters"),
            none.clone(),
            "statement_descriptor_suffix",
        ),
        (("payment_method_types[]", "klarna"), none.clone(), "payment_method_types"),
        (("payment_method_types", "card"), json!("parameter_unknown"), "payment_method_types"),
        (
            ("automatic_payment_methods[allow_redirects]", "never"),
            json!("parameter_missing"),
            "automatic_payment_methods[enabled]",
        ),
        (("automatic_payment_methods[enabled]", "1"), none.clone(), "automatic_payment_methods[enabled]"),
        (("expand[]", "customer"), none.clone(), "expand"),
        (("metadata[order_id]", &long), none.clone(), "metadata[order_id]"),
        (("metadata[]", "x"), json!("parameter_unknown"), "metadata[]"),
        (("captuer_method", "manual"), json!("parameter_unknown"), "captuer_method"),
        (("customer", "cus_1"), json!("parameter_unknown"), "customer"),
        (("payment_method_data[type]", "card"), json!("parameter_unknown"), "payment_method_data[type]"),
    ] {
        let form = [("amount", "100"), ("currency", "eur"), change];
        let (status, _, body) = api.post("/v1/payment_intents", &form).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{change:?}: {body}");
        assert_eq!(body["error"]["type"], "invalid_request_error", "{change:?}");
        assert_eq!((&body["error"]["code"], &body["error"]["param"]), (&code, &param.into()), "{change:?}");
    }
    for (form, param) in [(&[("currency", "eur")], "amount"), (&[("amount", "100")], "currency")] {
        let (status, _, body) = api.post("/v1/payment_intents", form).await;
        assert_eq!((status, &body["error"]["param"]), (StatusCode::BAD_REQUEST, &param.into()));
        assert_eq!(body["error"]["code"], "parameter_missing");
    }
    let (status, _, _) = api.post("/v1/refunds", &[]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _, _) = api.post("/v1/payment_intents?amount=100&currency=eur", &[]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let json = api.request(Method::POST, "/v1/payment_intents").json(&json!({ "amount": 1 }));
    assert_eq!(json.send().await.unwrap().status(), StatusCode::BAD_REQUEST);
    let huge = api.request(Method::POST, "/v1/payment_intents").form(&[("amount", "1".repeat(100_000))]);
    assert_eq!(huge.send().await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(api.get("/ledger").await.2, json!({ "items": [] }));
    assert_eq!(std::fs::read_to_string(sandbox.log_file()).unwrap(), "");
}

#[tokio::test]
async fn unknown_ids_and_paths_are_404() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    for path in ["/v1/payment_intents/pi_none", "/v1/refunds/re_none", "/v1/refunds?payment_intent=pi_none"] {
        let (status, _, body) = api.get(path).await;
        assert_eq!((status, &body["error"]["code"]), (StatusCode::NOT_FOUND, &"resource_missing".into()));
    }
    for operation in ["confirm", "capture", "cancel"] {
        let (status, _, _) = api.post(&format!("/v1/payment_intents/pi_none/{operation}"), &[]).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
    let (status, _, body) = api.post("/v1/refunds", &[("payment_intent", "pi_none")]).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::NOT_FOUND, &"resource_missing".into()));
    assert_eq!(api.get("/v1/payment_intents/%ff").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(api.get("/nowhere").await.0, StatusCode::NOT_FOUND);
    assert_eq!(api.post("/ledger", &[]).await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn the_api_wants_the_key_and_the_ledger_does_not() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let url = format!("{}/v1/payment_intents/pi_none", api.base);
    let known = || api.http.get(&url).bearer_auth("sk_test_dockside");
    for (request, refused) in [
        (api.http.get(&url), StatusCode::UNAUTHORIZED),
        (api.http.get(&url).bearer_auth("sk_test_other"), StatusCode::UNAUTHORIZED),
        (api.http.get(&url).bearer_auth("sk_test_docksid"), StatusCode::UNAUTHORIZED),
        (api.http.get(&url).bearer_auth(""), StatusCode::UNAUTHORIZED),
        (api.http.get(&url).basic_auth("sk_test_dockside", None::<&str>), StatusCode::UNAUTHORIZED),
        (known().header("Stripe-Account", "acct_1"), StatusCode::FORBIDDEN),
        (known().header("Stripe-Version", "2025-08-28.basil"), StatusCode::BAD_REQUEST),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), refused);
        assert!(response.headers()["request-id"].to_str().unwrap().starts_with("req_"));
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["type"], "invalid_request_error");
        assert!(!body.to_string().contains("sk_test_other"), "keys are not repeated: {body}");
    }
    for path in ["/livez", "/ledger"] {
        let response = api.http.get(format!("{}{path}", api.base)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn the_ledger_sums_the_intents_of_each_order() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let first = api.captured("pm_card_visa").await;
    api.captured("pm_card_amex").await;
    api.authorized("pm_card_visa").await;
    let canceled = api.authorized("pm_card_visa").await;
    api.post(&format!("{canceled}/cancel"), &[]).await;
    refund(api, &first, &[("amount", "300")]).await;
    api.intent_of("o2", "pm_card_visa").await;
    api.post("/v1/payment_intents", &[("amount", "50"), ("currency", "eur")]).await;

    let none =
        json!({ "order_id": null, "authorized": 0, "captured": 0, "refunded": 0, "open": 0, "captures": 0 });
    let o1 = json!({ "order_id": "o1", "authorized": 10000, "captured": 5000, "refunded": 300, "open": 2500, "captures": 2 });
    let o2 =
        json!({ "order_id": "o2", "authorized": 0, "captured": 0, "refunded": 0, "open": 0, "captures": 0 });
    assert_eq!(api.get("/ledger").await.2, json!({ "items": [none, o1, o2] }));
    assert_eq!(api.get("/ledger?order_id=o2").await.2, json!({ "items": [o2] }));
    assert_eq!(api.get("/ledger?order_id=o3").await.2, json!({ "items": [] }));
}
