//! The public API's adapter.

mod audited;
mod categories;
mod etag;
mod exports;
mod images;
mod imports;
mod products;
mod stock;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use identity::Verifier;
use messaging::Outbox;
use serde_json::Value;
use service::db::Pool;
use service::money::Currency;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use crate::objects::Objects;
use crate::product::reads::Reads;

const TITLE: &str = "Dockside product";

#[derive(Clone)]
pub struct App {
    pub pool: Pool,
    pub outbox: Outbox,
    pub reads: Reads,
    pub verifier: Arc<Verifier>,
    pub objects: Objects,
    pub stopping: CancellationToken,
    pub default_currency: Option<Currency>,
    /// Products that may still be added at once.
    adders: Arc<Semaphore>,
    /// Imports and exports that may still start.
    imports: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    /// KiB of images that may still be received.
    image_memory: Arc<Semaphore>,
}

impl App {
    pub fn new(
        pool: Pool,
        outbox: Outbox,
        verifier: Arc<Verifier>,
        objects: Objects,
        stopping: CancellationToken,
        default_currency: Option<Currency>,
    ) -> Self {
        let adders = Arc::new(Semaphore::new(products::ADDERS));
        let imports = Arc::new(Semaphore::new(imports::AT_ONCE));
        let exports = Arc::new(Semaphore::new(exports::AT_ONCE));
        let image_memory = Arc::new(Semaphore::new(images::MEMORY));
        let reads = Reads::new(pool.clone());
        Self {
            pool,
            outbox,
            reads,
            verifier,
            objects,
            stopping,
            default_currency,
            adders,
            imports,
            exports,
            image_memory,
        }
    }
}

impl FromRef<App> for Arc<Verifier> {
    fn from_ref(app: &App) -> Self {
        app.verifier.clone()
    }
}

pub fn router(app: App) -> Router {
    service::openapi::router(TITLE, identity::TOKEN_DESCRIPTION, routes()).with_state(app)
}

/// The OpenAPI document of this service.
pub fn document() -> Value {
    service::openapi::document(TITLE, identity::TOKEN_DESCRIPTION, routes())
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(categories::router())
        .merge(products::router())
        .merge(imports::router())
        .merge(exports::router())
        .merge(images::router())
        .merge(stock::router())
        .merge(audited::router())
}
