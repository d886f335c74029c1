//! The HTTP API of the order service.

mod audited;
mod cart;
mod customers;
mod events;
mod examples;
mod fulfilment;
mod lines;
mod notes;
mod orders;
pub mod problems;
mod refunds;
mod saga;
mod search;
mod webhook;

use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::Router;
use axum::extract::{FromRef, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use identity::Verifier;
use order_core::ids::OrderId;
use serde_json::Value;
use service::db::Pool;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

pub use customers::Customers;

use crate::cart::Carts;
use crate::changes::Changes;
use crate::checkout::Checkout;
use crate::events::stream::OrderStream;
use crate::fulfilment::Fulfilment;
use crate::order::reads::Reads;
use crate::refunds::Refunds;
use crate::saga::runner::Sagas;

const TITLE: &str = "Dockside order";

/// What handlers work with.
#[derive(Clone, FromRef)]
pub struct App {
    pub pool: Pool,
    pub reads: Reads,
    pub verifier: Arc<Verifier>,
    pub carts: Carts,
    pub changes: Changes,
    pub fulfilment: Fulfilment,
    pub checkout: Checkout,
    pub refunds: Refunds,
    pub sagas: Sagas,
    pub webhook_key: WebhookKey,
    pub stream: OrderStream,
    pub stopping: Stopping,
    pub customers: Customers,
}

/// Cancelled when open streams are to end.
#[derive(Clone)]
pub struct Stopping(pub CancellationToken);

/// What the payment provider signs its webhooks with.
#[derive(Clone)]
pub struct WebhookKey(pub hmac::Key);

pub fn router(app: App) -> Router {
    service::openapi::router(TITLE, identity::TOKEN_DESCRIPTION, routes())
        .with_state(app)
        .route_layer(middleware::from_fn(about_order))
}

/// Adds the order's id from the path to all log lines of a request.
async fn about_order(request: Request, next: Next) -> Response {
    let rest = request.uri().path().strip_prefix("/api/v1/orders/");
    let id = rest.and_then(|rest| rest.split('/').next()?.parse::<OrderId>().ok());
    if let Some(id) = id {
        log_order(id);
    }
    next.run(request).await
}

/// Adds the order's id to the log lines of the request from now on.
fn log_order(id: OrderId) {
    tracing::Span::current().record("order.id", tracing::field::display(id));
}

/// The OpenAPI document of this service.
pub fn document() -> Value {
    service::openapi::document(TITLE, identity::TOKEN_DESCRIPTION, routes())
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(cart::router())
        .merge(orders::router())
        .merge(search::router())
        .merge(saga::router())
        .merge(fulfilment::router())
        .merge(notes::router())
        .merge(refunds::router())
        .merge(events::router())
        .merge(webhook::router())
        .merge(audited::router())
}
