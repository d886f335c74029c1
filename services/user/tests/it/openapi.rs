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
    let document = user::openapi();
    let operations = operations(&document);
    assert_eq!(operations.len(), 28);
    let mut ids = Vec::new();
    for (name, operation) in operations {
        ids.push(operation["operationId"].as_str().unwrap());
        let summary = operation["summary"].as_str().unwrap();
        assert!(!summary.is_empty() && !summary.ends_with('.'), "{name}: {summary}");
        let answers = operation["responses"].as_object().unwrap().values();
        let contents =
            answers.chain(operation.get("requestBody")).filter_map(|body| body["content"].as_object());
        for (kind, content) in contents.flatten() {
            assert!(!content["example"].is_null(), "{name}, {kind} has no example");
            let schema = json!({"components": document["components"], "allOf": [content["schema"]]});
            let errors: Vec<String> = jsonschema::validator_for(&schema)
                .unwrap()
                .iter_errors(&content["example"])
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
    // The whole shop's document and its reader.
    let found = testing::routes::undocumented(
        env!("CARGO_MANIFEST_DIR"),
        &["docs::router()", "\"/.well-known/jwks.json\", get(jwks)"],
    );
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn what_the_document_says_of_bodies_is_what_is_accepted() {
    let document = user::openapi();
    let accepts = |schema: &str, body: &Value| {
        let schema =
            json!({"components": document["components"], "$ref": format!("#/components/schemas/{schema}")});
        jsonschema::validator_for(&schema).unwrap().is_valid(body)
    };
    let place = json!({"name": "Zoë 🚢", "line1": "1", "city": "Hull", "postal_code": "1", "country": "GB"});
    assert!(accepts("ShippingAddress", &place));
    for (field, bad) in [
        ("name", json!(" ")),
        ("name", json!("a\u{0}b")),
        ("line1", json!("x".repeat(201))),
        ("line2", json!("\n")),
        ("country", json!("UK")),
        ("id", json!("x")),
    ] {
        let mut place = place.clone();
        place[field] = bad;
        assert!(!accepts("ShippingAddress", &place), "{place}");
    }
    assert!(accepts("Patch", &json!({})));
    for bad in [json!({"role": null}), json!({"disabled": null}), json!({"role": "root"}), json!({"x": 1})] {
        assert!(!accepts("Patch", &bad), "{bad}");
    }
}

#[tokio::test]
async fn the_reader_runs_its_own_scripts_alone() {
    let app = crate::app::App::start().await;
    for path in ["/docs/", "/docs/index.html", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs"]
    {
        let answer = app.request(reqwest::Method::GET, path).send().await.expect("the service answers");
        let policy = answer.headers()["content-security-policy"].to_str().expect("text").to_owned();
        assert!(policy.contains("default-src 'none'; script-src 'self';"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
    }
}
