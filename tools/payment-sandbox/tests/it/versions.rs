//! What is taken by which version, and amounts as the provider counts them.

use crate::support::{Answer, Api, Form, Sandbox, answer};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const OLD: &str = "2022-11-15";
const PINNED: &str = "2025-08-27.basil";
const BOTH: &str = "2026-08-26.dahlia";
const NEW: &str = "2026-10-28.endive";

const INTENTS: &str = "/v1/payment_intents";

async fn post(api: &Api, version: &str, path: &str, form: Form<'_>) -> Answer {
    answer(api.request(Method::POST, path).header("Stripe-Version", version).form(form)).await
}

/// Code and parameter of a refusal, or the status of the intent.
fn outcome((status, _, body): &Answer) -> Value {
    match *status {
        StatusCode::OK => body["status"].clone(),
        StatusCode::BAD_REQUEST => json!([body["error"]["code"], body["error"]["param"]]),
        _ => panic!("{status} {body}"),
    }
}

#[tokio::test]
async fn from_2023_08_16_on_a_confirmation_says_where_to_return_to_or_which_methods_do_not_lead_away() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let base =
        [("amount", "700"), ("currency", "eur"), ("payment_method", "pm_card_visa"), ("confirm", "true")];
    let refused = json!([null, "return_url"]);
    for (version, more, expected) in [
        (OLD, &[][..], json!("succeeded")),
        ("2023-08-16", &[], refused.clone()),
        (PINNED, &[], refused.clone()),
        (PINNED, &[("automatic_payment_methods[enabled]", "true")], refused.clone()),
        (OLD, &[("automatic_payment_methods[enabled]", "true")], refused.clone()),
        (PINNED, &[("return_url", "https://shop.test/back")], json!("succeeded")),
        (PINNED, &[("payment_method_types[]", "card")], json!("succeeded")),
        (PINNED, &[("payment_method_types[0]", "card")], json!("succeeded")),
        (PINNED, &[("automatic_payment_methods[enabled]", "false")], json!("succeeded")),
        (
            PINNED,
            &[
                ("automatic_payment_methods[enabled]", "true"),
                ("automatic_payment_methods[allow_redirects]", "never"),
            ],
            json!("succeeded"),
        ),
        (
            PINNED,
            &[
                ("automatic_payment_methods[enabled]", "true"),
                ("automatic_payment_methods[allow_redirects]", "always"),
            ],
            refused.clone(),
        ),
        (
            PINNED,
            &[("automatic_payment_methods[enabled]", "true"), ("payment_method_types[]", "card")],
            json!(["parameters_exclusive", null]),
        ),
    ] {
        let form = [&base[..], more].concat();
        assert_eq!(outcome(&post(api, version, INTENTS, &form).await), expected, "{version} {more:?}");
    }

    // Whatever was said at creation counts, whichever version confirms.
    for (version, expected) in [(OLD, json!("succeeded")), (PINNED, refused)] {
        let made = post(api, version, INTENTS, &base[..3]).await.2;
        let confirm = format!("{INTENTS}/{}/confirm", made["id"].as_str().unwrap());
        assert_eq!(outcome(&post(api, NEW, &confirm, &[]).await), expected, "{version}");
        let status = if version == OLD { "succeeded" } else { "requires_confirmation" };
        assert_eq!(api.get(confirm.trim_end_matches("/confirm")).await.2["status"], status);
    }
}

#[tokio::test]
async fn methods_are_named_as_the_version_names_them() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let (types, allowed) = ("payment_method_types[]", "allowed_payment_method_types[]");
    for (version, name, taken) in [
        (PINNED, types, true),
        (PINNED, allowed, false),
        (BOTH, types, true),
        (BOTH, allowed, true),
        (NEW, types, false),
        (NEW, allowed, true),
    ] {
        let outcome = outcome(
            &post(api, version, INTENTS, &[("amount", "700"), ("currency", "eur"), (name, "card")]).await,
        );
        let unknown = json!(["parameter_unknown", name.replace("[]", "[0]")]);
        assert_eq!(
            outcome,
            if taken { json!("requires_payment_method") } else { unknown },
            "{version} {name}"
        );
    }
}

#[tokio::test]
async fn a_version_decides_when_money_is_taken_and_answers_name_it() {
    let sandbox = Sandbox::with(|config| config.api_version = OLD.into()).await;
    let api = &sandbox.client;
    let form = [("amount", "700"), ("currency", "eur")];
    for (version, method) in [(OLD, "automatic"), ("2024-04-10", "automatic_async"), (NEW, "automatic_async")]
    {
        assert_eq!(post(api, version, INTENTS, &form).await.2["capture_method"], method, "{version}");
    }
    // The account's own counts where none is named.
    assert_eq!(api.post(INTENTS, &form).await.2["capture_method"], "automatic");
    for (asked, answered) in [(None, OLD), (Some(NEW), NEW)] {
        let mut request = api.request(Method::GET, INTENTS);
        if let Some(version) = asked {
            request = request.header("Stripe-Version", version);
        }
        assert_eq!(request.send().await.unwrap().headers()["stripe-version"], answered);
    }
    let intent = api.authorized("pm_card_visa").await;
    let event = &api.until_events("payment_intent.amount_capturable_updated", 1).await[0];
    assert_eq!(
        (&event["api_version"], intent.ends_with(event["data"]["object"]["id"].as_str().unwrap())),
        (&OLD.into(), true)
    );
}

#[tokio::test]
async fn amounts_are_counted_as_the_provider_counts_them() {
    let sandbox = Sandbox::start().await;
    let api = &sandbox.client;
    let (small, large, step) = (
        json!(["amount_too_small", "amount"]),
        json!(["amount_too_large", "amount"]),
        json!([null, "amount"]),
    );
    let taken = json!("requires_payment_method");
    for (amount, currency, expected) in [
        ("49", "eur", &small),
        ("50", "EUR", &taken),
        ("29", "gbp", &small),
        ("30", "gbp", &taken),
        ("49", "jpy", &small),
        ("50", "jpy", &taken),
        ("17499", "huf", &small),
        ("17500", "huf", &taken),
        ("999999999999", "eur", &taken),
        ("1000000000000", "eur", &large),
        ("18446744073709551615", "eur", &large),
        ("999999999999", "idr", &taken),
        ("1000000000000", "jpy", &large),
        // Of no decimals, and counted in hundredths.
        ("2490000", "isk", &taken),
        ("24901", "isk", &step),
        ("4000050", "ugx", &step),
        ("500", "ugx", &taken),
        // Of three decimals, the last of them 0.
        ("5120", "kwd", &taken),
        ("5124", "kwd", &step),
        ("1001", "bhd", &step),
        ("1001", "jod", &step),
        ("1001", "omr", &step),
        ("1001", "tnd", &step),
        // Of no decimals here, whatever ISO 4217 says.
        ("1201", "mga", &taken),
        // Not taken at all.
        ("5000", "iqd", &json!([null, "currency"])),
        ("5000", "clf", &json!([null, "currency"])),
    ] {
        let answer = post(api, PINNED, INTENTS, &[("amount", amount), ("currency", currency)]).await;
        assert_eq!(outcome(&answer), *expected, "{amount} {currency}");
    }

    // Parts of payments too.
    let form = [
        ("amount", "5120"),
        ("currency", "kwd"),
        ("capture_method", "manual"),
        ("payment_method_types[]", "card"),
        ("payment_method", "pm_card_visa"),
        ("confirm", "true"),
    ];
    let made = post(api, PINNED, INTENTS, &form).await.2;
    let intent = made["id"].as_str().unwrap();
    let capture = format!("{INTENTS}/{intent}/capture");
    let odd = post(api, PINNED, &capture, &[("amount_to_capture", "5001")]).await;
    assert_eq!(outcome(&odd), json!([null, "amount_to_capture"]));
    assert_eq!(outcome(&post(api, PINNED, &capture, &[("amount_to_capture", "5000")]).await), "succeeded");
    for (amount, expected) in [
        ("1234", &step),
        ("0", &json!(["parameter_invalid_integer", "amount"])),
        ("1230", &json!("succeeded")),
    ] {
        let refund =
            post(api, PINNED, "/v1/refunds", &[("payment_intent", intent), ("amount", amount)]).await;
        assert_eq!(outcome(&refund), *expected, "{amount}");
    }
}
