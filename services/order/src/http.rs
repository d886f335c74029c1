//! The HTTP API of the order service.

mod cart;
mod events;
mod examples;
mod fulfilment;
mod orders;
mod refunds;
mod webhook;

use axum::Router;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

const TITLE: &str = "Dockside order";

pub fn router(app: App) -> Router {
    service::openapi::router(TITLE, routes()).with_state(app)
}

/// The OpenAPI document of this service.
pub fn document() -> Value {
    service::openapi::document(TITLE, routes())
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(cart::router())
        .merge(orders::router())
        .merge(fulfilment::router())
        .merge(refunds::router())
        .merge(events::router())
        .merge(webhook::router())
}
