//! The whole shop's OpenAPI document, and Swagger UI to read it with, both parts of the program. `cargo dockside openapi`
//! makes the document from the code of all three services, and the tests hold it current.

use axum::Router;
use axum::http::header;
use axum::routing::get;
use utoipa_swagger_ui::{Config, SwaggerUi};

const ADDRESS: &str = "/api/v1/openapi.json";

pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let document = || async {
        let headers =
            [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "public, max-age=300")];
        (headers, include_str!("../../../docs/openapi.json"))
    };
    let reader: Router<S> = SwaggerUi::new("/docs").config(Config::from(ADDRESS)).into();
    reader.route(ADDRESS, get(document))
}
