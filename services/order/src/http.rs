//! The HTTP API of the order service.

mod cart;
mod orders;
mod webhook;

use axum::Router;

use crate::app::App;

pub fn router(app: App) -> Router {
    Router::new().merge(cart::router()).merge(orders::router()).merge(webhook::router()).with_state(app)
}
