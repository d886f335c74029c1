//! Events and lists, as SDKs read them.

use crate::support::{Sandbox, id};
use reqwest::StatusCode;
use serde_json::{Value, json};

fn ids(list: &Value) -> Vec<&str> {
    let items = list["data"].as_array().expect("a list").iter();
    items.map(|item| item["id"].as_str().expect("an id")).collect()
}

#[tokio::test]
async fn events_are_listed_newest_first_also_after_a_restart() {
    let sandbox = Sandbox::start().await;
    let paid = sandbox.client.captured("pm_card_visa").await;
    sandbox.client.post("/v1/refunds", &[("payment_intent", id(&paid)), ("amount", "100")]).await;
    let before = sandbox.client.get("/v1/events").await.2;
    let kinds: Vec<_> = before["data"].as_array().unwrap().iter().map(|event| &event["type"]).collect();
    assert_eq!(
        kinds,
        [
            "charge.refunded",
            "refund.created",
            "payment_intent.succeeded",
            "payment_intent.amount_capturable_updated"
        ]
    );
    assert_eq!(before["data"][2]["data"]["object"]["amount_received"], 2500);
    let sandbox = sandbox.restart().await;
    let api = &sandbox.client;
    assert_eq!(api.get("/v1/events").await.2, before);
    for event in before["data"].as_array().unwrap() {
        assert_eq!(api.get(&format!("/v1/events/{}", event["id"].as_str().unwrap())).await.2, *event);
    }
    for (query, expected) in [
        ("type=refund.created", &kinds[1..2]),
        ("types[]=refund.created&types[]=charge.refunded", &kinds[..2]),
        ("limit=2", &kinds[..2]),
    ] {
        let list = api.get(&format!("/v1/events?{query}")).await.2;
        let found: Vec<_> = list["data"].as_array().unwrap().iter().map(|event| &event["type"]).collect();
        assert_eq!(found, expected, "{query}");
    }
    let (status, _, body) = api.get("/v1/events?type=a&types[]=b").await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::BAD_REQUEST, &"parameters_exclusive".into()));
    assert_eq!(api.get("/v1/events/evt_none").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn lists_are_read_in_both_directions() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.insert(0, id(&api.intent("pm_card_visa").await).to_owned());
    }
    let list = api.get("/v1/payment_intents").await.2;
    assert_eq!(ids(&list), made);
    for (query, expected, has_more) in [
        (format!("ending_before={}", made[3]), &made[..3], false),
        (format!("limit=2&ending_before={}", made[3]), &made[1..3], true),
        (format!("limit=2&starting_after={}", made[1]), &made[2..4], true),
        (format!("ending_before={}", made[0]), &[], false),
        (format!("starting_after={}", made[4]), &[], false),
        ("created[lt]=1".to_owned(), &[], false),
        ("created[gt]=1&created[lte]=99999999999".to_owned(), &made[..], false),
    ] {
        let list = api.get(&format!("/v1/payment_intents?{query}")).await.2;
        assert_eq!(
            (ids(&list), &list["has_more"]),
            (expected.iter().map(String::as_str).collect(), &json!(has_more)),
            "{query}"
        );
    }
    let both = format!("/v1/payment_intents?starting_after={}&ending_before={}", made[0], made[1]);
    assert_eq!(api.get(&both).await.2["error"]["code"], "parameters_exclusive");
}

#[tokio::test]
async fn what_can_be_expanded_is_and_nothing_else() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let paid = api.captured("pm_card_visa").await;
    let plain = api.get(&paid).await.2;
    let full = api.get(&format!("{paid}?expand[]=latest_charge")).await.2;
    assert_eq!(full["latest_charge"]["id"], plain["latest_charge"]);
    assert_eq!(
        (&full["latest_charge"]["paid"], &full["latest_charge"]["amount_captured"]),
        (&json!(true), &json!(2500))
    );
    let card = |brand: &str, last4: &str| json!({"card": {"brand": brand, "last4": last4}, "type": "card"});
    assert_eq!(full["latest_charge"]["payment_method_details"], card("visa", "4242"));
    let list = api.get("/v1/payment_intents?expand[]=data.latest_charge").await.2;
    assert_eq!(list["data"], json!([full]));
    let (_, _, refund) =
        api.post("/v1/refunds", &[("payment_intent", id(&paid)), ("expand[]", "payment_intent")]).await;
    assert_eq!(refund["payment_intent"]["id"], plain["id"]);
    for (name, brand, last4) in [
        ("pm_card_mastercard", "mastercard", "4444"),
        ("pm_card_amex", "amex", "0005"),
        ("pm_card_visa_debit", "visa", "5556"),
        ("pm_card_de", "visa", "0016"),
    ] {
        let intent = api.intent(name).await;
        assert_eq!(api.post(&format!("{intent}/confirm"), &[]).await.0, StatusCode::OK, "{name}");
        let (_, _, taken) = api.post(&format!("{intent}/capture"), &[("expand[]", "latest_charge")]).await;
        assert_eq!(taken["latest_charge"]["payment_method_details"], card(brand, last4), "{name}");
    }
    for path in [format!("{paid}?expand[]=customer"), "/v1/refunds?expand[]=payment_intent".to_owned()] {
        let (status, _, body) = api.get(&path).await;
        assert_eq!((status, &body["error"]["param"]), (StatusCode::BAD_REQUEST, &"expand".into()), "{path}");
    }
}
