//! The HTTP API.

mod addresses;
mod auth;
mod caller;
mod me;
mod sessions;
mod users;

use axum::Router;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::docs;

const TITLE: &str = "Dockside user";

pub(crate) fn router(app: App) -> Router {
    service::openapi::router(TITLE, routes()).merge(docs::router()).with_state(app)
}

/// The OpenAPI document of this service.
pub fn document() -> Value {
    service::openapi::document(TITLE, routes())
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(auth::router())
        .merge(me::router())
        .merge(sessions::router())
        .merge(addresses::router())
        .merge(users::router())
}
