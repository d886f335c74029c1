//! Refuses query parameters that an operation does not have: a filter with a misspelt name must not list
//! everything.
//!
//! The OpenAPI document says which there are. A name that ends in `.NAME` stands for all with the same
//! beginning. A caller who may not call at all gets that error first (401, 403). So the operations for
//! signed-in callers refuse parameters once the caller is known, by [`refuse_unknown`].

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Query, Request};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use crate::{FieldError, Problem};

/// The query parameters of each operation.
#[derive(Debug, Default)]
pub(crate) struct Known(HashMap<(String, String), Operation>);

#[derive(Debug)]
struct Operation {
    names: Vec<String>,
    is_open: bool,
}

/// The errors of the parameters, for the code that authenticates the caller.
#[derive(Clone)]
struct Refusal(Problem);

impl Known {
    /// Of the operations in an OpenAPI document.
    pub(crate) fn of(document: &Value) -> Arc<Self> {
        let mut known = HashMap::new();
        for (path, operations) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in operations.as_object().into_iter().flatten() {
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                let names = parameters.filter(|parameter| parameter["in"] == "query");
                let names = names.filter_map(|parameter| parameter["name"].as_str().map(str::to_owned));
                let needs_token = |need: &Value| need.as_object().is_some_and(|need| !Map::is_empty(need));
                let security = operation["security"].as_array().into_iter().flatten();
                let is_open =
                    security.clone().count() == 0 || security.clone().any(|need| !needs_token(need));
                known.insert(
                    (method.to_uppercase(), path.clone()),
                    Operation { names: names.collect(), is_open },
                );
            }
        }
        Arc::new(Self(known))
    }

    fn operation(&self, request: &Request) -> Option<&Operation> {
        let path = request.extensions().get::<MatchedPath>()?.as_str().to_owned();
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        self.0.get(&(method.to_string(), path))
    }
}

/// Passes a request whose parameters exist.
pub(crate) async fn check(known: Arc<Known>, mut request: Request, next: Next) -> Response {
    if request.uri().query().is_none_or(str::is_empty) {
        return next.run(request).await;
    }
    let Some(operation) = known.operation(&request) else { return next.run(request).await };
    // A query that can't be parsed is refused by the code that parses it.
    let given = Query::<Vec<(String, String)>>::try_from_uri(request.uri());
    let given = given.map(|Query(given)| given).unwrap_or_default();
    let unknown = given.iter().filter(|(name, _)| !operation.has(name));
    let errors: Vec<FieldError> = unknown.map(|(name, _)| operation.unknown(name)).collect();
    if errors.is_empty() {
        return next.run(request).await;
    }
    let problem = Problem::invalid(errors);
    if operation.is_open {
        return problem.into_response();
    }
    request.extensions_mut().insert(Refusal(problem));
    next.run(request).await
}

/// 422 when the request has parameters that don't exist.
pub fn refuse_unknown(parts: &Parts) -> Result<(), Problem> {
    match parts.extensions.get::<Refusal>() {
        Some(Refusal(problem)) => Err(problem.clone()),
        None => Ok(()),
    }
}

impl Operation {
    fn has(&self, name: &str) -> bool {
        let is = |known: &String| match known.strip_suffix("NAME").filter(|family| family.ends_with('.')) {
            Some(family) => name.len() > family.len() && name.starts_with(family),
            None => known == name,
        };
        self.names.iter().any(is)
    }

    fn unknown(&self, name: &str) -> FieldError {
        let nearest = self.names.iter().min_by_key(|known| strsim::damerau_levenshtein(known, name));
        let detail = match nearest {
            Some(nearest) => format!("There is no such parameter here; the nearest is {nearest}."),
            None => "There are no query parameters here.".to_owned(),
        };
        let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        FieldError::new(pointer, "unknown_parameter", detail)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_nearest_parameter_is_named() {
        let names = ["status", "limit", "attributes.NAME"].map(str::to_owned).to_vec();
        let operation = Operation { names, is_open: true };
        for (name, nearest) in
            [("statsu", "status"), ("Limit", "limit"), ("attribute.color", "attributes.NAME")]
        {
            assert!(!operation.has(name), "{name}");
            let detail = operation.unknown(name).detail;
            assert_eq!(detail, format!("There is no such parameter here; the nearest is {nearest}."));
        }
        for name in ["status", "attributes.color", "attributes.a.b"] {
            assert!(operation.has(name), "{name}");
        }
        assert!(!operation.has("attributes."));
        assert_eq!(operation.unknown("a/b").pointer, "/a~1b");
    }

    #[test]
    fn an_operation_is_open_where_no_token_is_needed() {
        let query = json!([{"in": "query", "name": "q"}, {"in": "path", "name": "id"}]);
        let document = json!({"paths": {"/a": {
            "get": {"parameters": query, "security": [{}]},
            "post": {"security": [{"token": ["keeper"]}]},
            "put": {},
        }}});
        let known = Known::of(&document);
        let of = |method: &str| &known.0[&(method.to_owned(), "/a".to_owned())];
        assert_eq!(of("GET").names, ["q"]);
        assert_eq!((of("GET").is_open, of("POST").is_open, of("PUT").is_open), (true, false, true));
    }
}
