//! The HTTP API of the order service.

mod cart;
mod events;
mod fulfilment;
mod orders;
mod refunds;
mod webhook;

use axum::Router;

use crate::app::App;

pub fn router(app: App) -> Router {
    Router::new()
        .merge(cart::router())
        .merge(orders::router())
        .merge(fulfilment::router())
        .merge(refunds::router())
        .merge(events::router())
        .merge(webhook::router())
        .with_state(app)
}
