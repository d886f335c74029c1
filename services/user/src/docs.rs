//! The whole shop's OpenAPI document, and Swagger UI to read it with, both parts of the program. `cargo dockside openapi`
//! makes the document from the code of all three services, and the tests hold it current.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware;
use axum::response::Response;
use axum::routing::get;
use utoipa_swagger_ui::{Config, SwaggerUi};

const ADDRESS: &str = "/api/v1/openapi.json";

/// What the reader needs: its own scripts and styles, styles inline too (one of its pictures has some), pictures that it
/// carries in itself, and calls to this API.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let document = || async {
        let headers =
            [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "public, max-age=300")];
        (headers, include_str!("../../../docs/openapi.json"))
    };
    let reader: Router<S> = SwaggerUi::new("/docs").config(Config::from(ADDRESS)).into();
    let reader = reader.layer(middleware::map_response(async |mut response: Response| {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY);
        response
    }));
    reader.route(ADDRESS, get(document))
}
