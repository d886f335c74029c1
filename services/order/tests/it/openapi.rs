//! The OpenAPI document against itself and against the code.

use serde_json::{Value, json};

/// Every operation, with its method and path.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for method in ["get", "put", "post", "patch", "delete"] {
            if let Some(operation) = item.get(method) {
                all.push((format!("{method} {path}"), operation));
            }
        }
    }
    all
}

#[test]
fn every_operation_has_an_id_a_summary_and_examples_that_validate() {
    let document = order::openapi();
    let operations = operations(&document);
    assert_eq!(operations.len(), 22);
    let mut ids = Vec::new();
    for (name, operation) in operations {
        ids.push(operation["operationId"].as_str().unwrap());
        let summary = operation["summary"].as_str().unwrap();
        assert!(!summary.is_empty() && !summary.ends_with('.'), "{name}: {summary}");
        let answers = operation["responses"].as_object().unwrap().values();
        let contents =
            answers.chain(operation.get("requestBody")).filter_map(|body| body["content"].as_object());
        for (kind, content) in contents.flatten() {
            let example = content.get("example").unwrap_or_else(|| panic!("{name}, {kind} has no example"));
            assert_eq!(
                example.is_object(),
                kind.ends_with("json") && !kind.ends_with("ndjson"),
                "{name}, {kind}"
            );
            let schema = json!({"components": document["components"], "allOf": [content["schema"]]});
            let errors: Vec<String> = jsonschema::validator_for(&schema)
                .unwrap()
                .iter_errors(example)
                .map(|error| error.to_string())
                .collect();
            assert!(errors.is_empty(), "{name}, {kind}: {errors:?}");
        }
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn no_route_is_left_out_of_the_document() {
    let found = testing::routes::undocumented(env!("CARGO_MANIFEST_DIR"), &[]);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn what_the_document_says_of_bodies_is_what_is_accepted() {
    let document = order::openapi();
    let accepts = |schema: &str, body: &Value| {
        let schema =
            json!({"components": document["components"], "$ref": format!("#/components/schemas/{schema}")});
        jsonschema::validator_for(&schema).unwrap().is_valid(body)
    };
    let id = "018f5c3e-7a00-7000-8000-000000000001";
    let line = |quantity: i64| json!({"product_id": id, "quantity": quantity});
    let place = json!({"name": "Zoë 🚢", "line1": "1", "city": "Hull", "postal_code": "1", "country": "GB"});
    let order = json!({"shipping_address": place, "payment_method": "pm_card_visa"});
    assert!(accepts("OrderRequest", &order));
    assert!(accepts("OrderRequest", &json!({"address_id": id, "payment_method": "pm_1"})));
    assert!(!accepts("OrderRequest", &json!({"payment_method": "pm_1"})), "no address");
    for (field, bad) in [
        ("address_id", json!(id)), // as well as the other
        ("address_id", json!(null)),
        ("shipping_address", json!(null)),
        ("items", json!(null)),
        ("items", json!([])),
        ("items", json!([line(0)])),
        ("items", json!([line(1000)])),
        ("items", json!([{"product_id": id, "quantity": 1, "unit_price": 1}])),
        ("payment_method", json!("visa")),
        ("payment_method", json!("pm_a-b")),
        ("status", json!("confirmed")),
    ] {
        let mut order = order.clone();
        order[field] = bad;
        assert!(!accepts("OrderRequest", &order), "{order}");
    }

    let refund = json!({"reason": "torn"});
    assert!(accepts("RefundRequest", &refund));
    for (field, bad) in [
        ("reason", json!(" ")),
        ("reason", json!("x".repeat(501))),
        ("amount", json!(null)),
        ("amount", json!({"amount": 0, "currency": "EUR"})),
        ("amount", json!({"amount": 1, "currency": "EUR", "x": 1})),
        ("restock", json!(null)),
        ("restock", json!([line(0)])),
        ("status", json!("succeeded")),
    ] {
        let mut refund = refund.clone();
        refund[field] = bad;
        assert!(!accepts("RefundRequest", &refund), "{refund}");
    }
    assert!(!accepts("CartQuantity", &json!({"quantity": 0})));
    assert!(!accepts("Tracking", &json!({"carrier": "\n", "tracking_number": "1"})));
}
