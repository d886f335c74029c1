//! A service's OpenAPI 3.1 document, made from its routes.
//!
//! A handler's `#[utoipa::path]` describes what is special about it, with the codes of its own problems
//! (`x-problems`). What follows from the kind of operation is added here: a body can be malformed, a token
//! missing, a path lead nowhere.

pub mod schema;

use std::collections::BTreeMap;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::routing::get;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;

use crate::parameters::{self, Known};

type Problems = BTreeMap<u16, Vec<String>>;

/// The document of `routes`, named `title`; `token` describes the tokens that callers show.
pub fn document<S: Clone + Send + Sync + 'static>(
    title: &str,
    token: &str,
    routes: OpenApiRouter<S>,
) -> Value {
    let mut document = serde_json::to_value(routes.into_openapi()).unwrap_or_default();
    document["info"] = json!({
        "title": title,
        "version": "1",
        "license": {"name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT"},
    });
    document["components"]["securitySchemes"] = json!({
        "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": token},
    });
    document["components"]["schemas"]["Problem"] = problem_schema();
    let paths = document["paths"].as_object_mut();
    let operations = paths.into_iter().flatten().filter_map(|(_, path)| path.as_object_mut());
    for (method, operation) in operations.flatten().filter(|(_, operation)| operation.is_object()) {
        complete(method, operation);
    }
    link(&mut document["paths"]);
    describe_inline(&mut document);
    document
}

/// Moves the description and the default of a field into the field's schema. Beside a schema that is written out, utoipa
/// makes them a schema of their own, of an object, which no text or number can be.
fn describe_inline(value: &mut Value) {
    let Value::Object(fields) = value else {
        return value.as_array_mut().into_iter().flatten().for_each(describe_inline);
    };
    let annotations = |name: &String| matches!(name.as_str(), "type" | "description" | "default");
    if let Some([schema, annotation]) =
        fields.get_mut("allOf").and_then(Value::as_array_mut).map(Vec::as_mut_slice)
        && let (Value::Object(schema), Value::Object(annotation)) = (schema, annotation)
        && annotation.len() > 1
        && annotation.get("type").is_some_and(|kind| kind == "object")
        && annotation.keys().all(annotations)
    {
        annotation.remove("type");
        schema.append(annotation);
        let schema = std::mem::take(schema);
        fields.remove("allOf");
        fields.extend(schema);
    }
    fields.values_mut().for_each(describe_inline);
}

/// Links each answer that says what was made to the operations that its id is enough for: at
/// `<path>/{id}` it can be read and deleted, at `<path>/{id}/<verb>` something done with it.
fn link(paths: &mut Value) {
    let mut links: Vec<(String, String)> = Vec::new();
    for (path, operations) in paths.as_object().into_iter().flatten() {
        let Some((collection, verb)) = path.split_once("/{id}") else { continue };
        let methods: &[&str] = if verb.is_empty() { &["get", "delete"] } else { &["post"] };
        let enough = methods.iter().map(|method| &operations[*method]);
        let enough = enough.filter(|operation| operation["requestBody"].is_null());
        let ids = enough.filter_map(|operation| operation["operationId"].as_str());
        links.extend(ids.map(|id| (collection.to_owned(), id.to_owned())));
    }
    for (collection, id) in links {
        if let Some(made) =
            paths.pointer_mut(&format!("/{}/post/responses/201", collection.replace('/', "~1")))
        {
            made["links"][&id] = json!({"operationId": id, "parameters": {"id": "$response.body#/id"}});
        }
    }
}

/// The routes as axum takes them, and the document at `/openapi.json`. Query parameters that the document does not
/// have are refused.
pub fn router<S: Clone + Send + Sync + 'static>(
    title: &str,
    token: &str,
    routes: OpenApiRouter<S>,
) -> Router<S> {
    let (router, openapi) = routes.split_for_parts();
    let document = document::<S>(title, token, OpenApiRouter::with_openapi(openapi));
    let (text, known) = (document.to_string(), Known::of(&document));
    let checked = middleware::from_fn(move |request, next| parameters::check(known.clone(), request, next));
    let answer = move || async move { ([(header::CONTENT_TYPE, "application/json")], text) };
    router.route_layer(checked).route("/openapi.json", get(answer))
}

/// Adds the answers that an operation has for being one of its kind, and writes out its own problems.
fn complete(method: &str, operation: &mut Value) {
    let mut problems = Problems::new();
    let mut add = |status: u16, code: &str| {
        let codes: &mut Vec<String> = problems.entry(status).or_default();
        if !codes.iter().any(|known| known == code) {
            codes.push(code.to_owned());
        }
    };
    let own = operation.as_object_mut().and_then(|fields| fields.remove("x-problems"));
    for (status, codes) in own.as_ref().and_then(Value::as_object).into_iter().flatten() {
        for code in codes.as_array().into_iter().flatten().filter_map(Value::as_str) {
            add(status.parse().unwrap_or(500), code);
        }
    }
    if let Some(kinds) = operation.pointer("/requestBody/content").and_then(Value::as_object) {
        add(413, "payload_too_large");
        add(415, "unsupported_media_type");
        if kinds.keys().any(|kind| kind.ends_with("json") && !kind.contains("ndjson")) {
            add(400, "malformed_json");
            add(400, "malformed_body");
            add(422, "validation_failed");
        }
    }
    let mut replays = false;
    let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    for parameter in &parameters {
        match (parameter["in"].as_str(), parameter["name"].as_str()) {
            (Some("path"), _) => add(404, "not_found"),
            (Some("query"), Some("cursor")) => add(400, "invalid_cursor"),
            (Some("query"), _) => add(422, "validation_failed"),
            (Some("header"), Some("Idempotency-Key")) => {
                if parameter["required"] == json!(true) {
                    add(400, "idempotency_key_missing");
                }
                add(400, "idempotency_key_invalid");
                add(409, "idempotency_in_progress");
                add(422, "idempotency_key_reused");
                replays = true;
            }
            _ => {}
        }
    }
    let needs = operation["security"].as_array().cloned().unwrap_or_default();
    if let Some(roles) = needs.first().and_then(|need| need["token"].as_array()) {
        add(401, "missing_token");
        add(401, "invalid_token");
        if !roles.is_empty() {
            add(403, "forbidden");
        }
    }
    add(422, "validation_failed");
    add(429, "rate_limited");
    add(500, "internal_error");
    add(503, "service_unavailable");
    if method != "get" {
        add(503, "outcome_unknown");
    }
    for (status, codes) in problems {
        operation["responses"][status.to_string()] = problem_response(status, &codes);
    }
    if replays {
        // Refusals that stay are stored with the key, as what was made is.
        let answers = operation["responses"].as_object_mut().into_iter().flatten();
        for (_, answer) in answers.filter(|(status, _)| matches!(status.as_str(), "201" | "409" | "422")) {
            answer["headers"]["Idempotency-Replayed"] =
                text("`true` when this is the answer to an earlier request with the same key.");
        }
    }
}

fn problem_response(status: u16, codes: &[String]) -> Value {
    let title =
        StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error");
    let mut response = json!({
        "description": format!("`{}`", codes.join("`, `")),
        "content": {"application/problem+json": {
            "schema": {"$ref": "#/components/schemas/Problem"},
            "example": {
                "type": "about:blank",
                "title": title,
                "status": status,
                "code": codes.first(),
                "detail": "What is wrong, for people.",
                "instance": "/api/v1/example",
                "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
            },
        }},
    });
    match status {
        409 if codes.iter().any(|code| code == "idempotency_in_progress") => {
            response["headers"]["Retry-After"] = text("Seconds, with `idempotency_in_progress`.");
        }
        401 => response["headers"]["WWW-Authenticate"] = text("RFC 6750."),
        429 | 503 => response["headers"]["Retry-After"] = text("Seconds."),
        _ => {}
    }
    response
}

/// A header that holds text.
fn text(description: &str) -> Value {
    json!({"description": description, "schema": {"type": "string"}})
}

/// RFC 9457, and what this API adds.
fn problem_schema() -> Value {
    let count = json!({"type": "integer", "minimum": 0});
    json!({
        "type": "object",
        "description": "A problem document (RFC 9457). Programs go by `code`, which is stable.",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string"},
            "instance": {"type": "string"},
            "code": {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"},
            "trace_id": {"type": "string"},
            "imported": {
                "type": "object",
                "description": "What an import had done before it ended early: counts of lines as in its report, and the last line that is dealt with. All lines after it are to be sent again.",
                "required": ["created", "updated", "unchanged", "failed", "last_line"],
                "properties": {"created": count, "updated": count, "unchanged": count, "failed": count, "last_line": count},
            },
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["pointer", "code", "detail"],
                    "properties": {
                        "pointer": {"type": "string", "description": "A JSON pointer (RFC 6901) into the body, or `/name` of a parameter."},
                        "code": {"type": "string"},
                        "detail": {"type": "string"},
                    },
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use axum::extract::State;
    use utoipa_axum::routes;

    use super::*;

    /// Buy it.
    #[utoipa::path(
        post,
        path = "/things/{id}",
        operation_id = "buy_thing",
        params(("id" = String, Path), ("Idempotency-Key" = String, Header)),
        request_body(content = String, content_type = "application/json"),
        responses((status = 201, description = "Bought.")),
        security(("token" = ["keeper"])),
        extensions(("x-problems" = json!({"409": ["sold_out"], "422": ["unknown_thing"]})))
    )]
    async fn buy(State(()): State<()>) {}

    /// Keep it.
    #[utoipa::path(
        post, path = "/things", operation_id = "keep_thing",
        params(("Idempotency-Key" = Option<String>, Header)),
        responses((status = 201, description = "Kept.")),
    )]
    async fn keep(State(()): State<()>) {}

    #[test]
    fn the_description_of_a_field_is_part_of_its_schema() {
        let mut document = json!({"author": {"allOf": [{"type": "string", "description": "An id."},
            {"type": "object", "description": "Who wrote it.", "default": "me"}]}});
        describe_inline(&mut document);
        let described = json!({"type": "string", "description": "Who wrote it.", "default": "me"});
        assert_eq!(document, json!({"author": described}));
        let two_schemas = json!({"allOf": [{"type": "string"}, {"type": "object"}]});
        let mut untouched = two_schemas.clone();
        describe_inline(&mut untouched);
        assert_eq!(untouched, two_schemas);
    }

    #[test]
    fn a_key_that_may_be_left_out_is_never_missing() {
        let document =
            document("Test", "A token.", OpenApiRouter::new().routes(routes!(buy)).routes(routes!(keep)));
        let described = |path: &str| {
            document["paths"][path]["post"]["responses"]["400"]["description"].as_str().unwrap().to_owned()
        };
        assert!(described("/things/{id}").contains("idempotency_key_missing"));
        assert_eq!(described("/things"), "`idempotency_key_invalid`");
    }

    #[test]
    fn what_was_made_links_to_what_its_id_is_enough_for() {
        let operation = |id: &str| json!({"operationId": id, "responses": {"201": {"description": "Made."}}});
        let mut with_body = operation("change_thing");
        with_body["requestBody"] = json!({});
        let mut paths = json!({
            "/things": {"post": operation("make_thing"), "get": operation("list_things")},
            "/things/{id}": {"get": operation("get_thing"), "delete": operation("delete_thing"), "patch": with_body},
            "/things/{id}/stop": {"post": operation("stop_thing")},
            "/things/{id}/parts": {"post": with_body, "get": operation("list_parts")},
        });
        link(&mut paths);
        let links = paths["/things"]["post"]["responses"]["201"]["links"].as_object().unwrap();
        assert_eq!(links.keys().collect::<Vec<_>>(), ["delete_thing", "get_thing", "stop_thing"]);
        assert_eq!(links["get_thing"]["parameters"], json!({"id": "$response.body#/id"}));
        assert!(paths["/things"]["get"]["responses"]["201"].get("links").is_none());
    }

    #[test]
    fn an_operation_has_its_own_problems_and_those_of_its_kind() {
        let document = document("Test", "A token.", OpenApiRouter::new().routes(routes!(buy)));
        let operation = &document["paths"]["/things/{id}"]["post"];
        assert_eq!(operation["summary"], "Buy it.");
        let statuses: Vec<&String> = operation["responses"].as_object().unwrap().keys().collect();
        assert_eq!(
            statuses,
            ["201", "400", "401", "403", "404", "409", "413", "415", "422", "429", "500", "503"]
        );
        let described = |status: &str| operation["responses"][status]["description"].as_str().unwrap();
        assert_eq!(described("422"), "`unknown_thing`, `validation_failed`, `idempotency_key_reused`");
        assert_eq!(described("409"), "`sold_out`, `idempotency_in_progress`");
        let headers = |status: &str| -> Vec<&String> {
            operation["responses"][status]["headers"]
                .as_object()
                .into_iter()
                .flat_map(serde_json::Map::keys)
                .collect()
        };
        assert_eq!(headers("201"), ["Idempotency-Replayed"]);
        assert_eq!(headers("409"), ["Idempotency-Replayed", "Retry-After"]);
        assert_eq!(headers("422"), ["Idempotency-Replayed"]);
        assert_eq!(headers("503"), ["Retry-After"]);
        assert!(operation.get("x-problems").is_none());
        assert_eq!(document["openapi"], "3.1.0");
    }
}
