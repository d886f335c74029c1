//! The HTTP API of the order service.

mod cart;
mod orders;

use axum::Router;

use crate::app::App;

pub fn router(app: App) -> Router {
    Router::new().merge(cart::router()).merge(orders::router()).with_state(app)
}
