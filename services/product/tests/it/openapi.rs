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
    let document = product::openapi();
    let operations = operations(&document);
    assert_eq!(operations.len(), 21);
    let mut ids = Vec::new();
    for (name, operation) in operations {
        ids.push(operation["operationId"].as_str().unwrap());
        let summary = operation["summary"].as_str().unwrap();
        assert!(!summary.is_empty() && !summary.ends_with('.'), "{name}: {summary}");
        let answers = operation["responses"].as_object().unwrap().values();
        let contents =
            answers.chain(operation.get("requestBody")).filter_map(|body| body["content"].as_object());
        // JSON can't hold the bytes of an image.
        let contents = contents.flatten().filter(|(_, content)| content["schema"]["format"] != "binary");
        for (kind, content) in contents {
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
fn the_types_that_an_import_takes_are_in_the_document() {
    let document = product::openapi();
    let operations = operations(&document);
    let (_, import) = operations.iter().find(|(name, _)| name.ends_with("/product-imports")).unwrap();
    let mut kinds: Vec<&str> =
        import["requestBody"]["content"].as_object().unwrap().keys().map(String::as_str).collect();
    kinds.sort_unstable();
    let wanted = [
        "application/atom+xml",
        "application/rss+xml",
        "application/x-ndjson",
        "application/xml",
        "text/csv",
        "text/tab-separated-values",
        "text/xml",
    ];
    assert_eq!(kinds, wanted);
}

#[test]
fn no_route_is_left_out_of_the_document() {
    let found = testing::routes::undocumented(env!("CARGO_MANIFEST_DIR"), &[]);
    assert!(found.is_empty(), "{found:#?}");
}

/// The parameters of an operation in one place, by name.
fn parameters<'a>(operation: &'a Value, place: &str) -> Vec<(&'a str, &'a Value)> {
    let all = operation["parameters"].as_array().into_iter().flatten();
    let here = all.filter(|parameter| parameter["in"] == place);
    here.map(|parameter| (parameter["name"].as_str().unwrap_or_default(), parameter)).collect()
}

#[test]
fn a_search_is_described_with_all_that_it_may_ask() {
    let document = product::openapi();
    let parameters = parameters(&document["paths"]["/api/v1/products"]["get"], "query");
    let names: Vec<&str> = parameters.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        [
            "q",
            "category",
            "currency",
            "min_price",
            "max_price",
            "in_stock",
            "sort",
            "status",
            "facets",
            "attributes.NAME",
            "limit",
            "cursor"
        ]
    );
    for (name, parameter) in &parameters {
        assert_eq!(parameter["required"], false, "{name}");
        assert!(parameter["description"].is_string(), "{name}");
    }
    let schema = |wanted: &str| &parameters.iter().find(|(name, _)| *name == wanted).unwrap().1["schema"];
    assert_eq!(schema("sort")["enum"], json!(["relevance", "newest", "price", "-price", "name"]));
    assert_eq!(
        (&schema("min_price")["minimum"], &schema("min_price")["maximum"]),
        (&json!(0), &json!(i64::MAX))
    );
    assert_eq!((&schema("limit")["minimum"], &schema("limit")["maximum"]), (&json!(1), &json!(100)));
}

#[test]
fn preconditions_are_described_where_they_are_checked() {
    let document = product::openapi();
    let product = &document["paths"]["/api/v1/products/{id}"];
    for method in ["patch", "delete"] {
        let (name, parameter) = parameters(&product[method], "header")[0];
        assert_eq!((name, &parameter["required"]), ("If-Match", &json!(true)), "{method}");
        for status in ["412", "428"] {
            assert!(product[method]["responses"][status].is_object(), "{method} {status}");
        }
    }
    let image = &document["paths"]["/api/v1/products/{id}/images/{n}"];
    for get in [&product["get"], &image["get"]] {
        let (name, parameter) = parameters(get, "header")[0];
        assert_eq!((name, &parameter["required"]), ("If-None-Match", &json!(false)));
        for status in ["200", "304"] {
            assert!(get["responses"][status]["headers"]["ETag"].is_object(), "{status}");
        }
    }
}

#[test]
fn an_adjustment_of_nothing_is_described_as_wrong() {
    let document = product::openapi();
    let validator = jsonschema::validator_for(&document["components"]["schemas"]["StockAdjustment"]).unwrap();
    let accepts = |delta: i64, reason: &str| validator.is_valid(&json!({"delta": delta, "reason": reason}));
    assert!(accepts(1, "found") && accepts(-1_000_000, "x"));
    assert!(!accepts(0, "found") && !accepts(1_000_001, "found") && !accepts(1, " "));
}
