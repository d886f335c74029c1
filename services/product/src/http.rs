//! The public API's adapter.

mod etag;
mod images;
mod imports;
mod products;
mod stock;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRef, State};
use messaging::Outbox;
use serde::Serialize;
use serde_json::Value;
use service::Problem;
use service::auth::Verifier;
use service::db::Pool;
use service::extract::Json;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::category::{self, Category};
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
    /// Products that may still be added at once.
    adders: Arc<Semaphore>,
    /// Imports that may still start.
    imports: Arc<Semaphore>,
    /// KiB of images that may still be received.
    image_room: Arc<Semaphore>,
}

impl App {
    pub fn new(
        pool: Pool,
        outbox: Outbox,
        verifier: Arc<Verifier>,
        objects: Objects,
        stopping: CancellationToken,
    ) -> Self {
        let adders = Arc::new(Semaphore::new(products::ADDERS));
        let imports = Arc::new(Semaphore::new(imports::AT_ONCE));
        let image_room = Arc::new(Semaphore::new(images::ROOM));
        let reads = Reads::new(pool.clone());
        Self { pool, outbox, reads, verifier, objects, stopping, adders, imports, image_room }
    }
}

impl FromRef<App> for Arc<Verifier> {
    fn from_ref(app: &App) -> Self {
        app.verifier.clone()
    }
}

pub fn router(app: App) -> Router {
    service::openapi::router(TITLE, routes()).with_state(app)
}

/// The OpenAPI document of this service.
pub fn document() -> Value {
    service::openapi::document(TITLE, routes())
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(categories))
        .merge(products::router())
        .merge(imports::router())
        .merge(images::router())
        .merge(stock::router())
}

#[derive(Serialize, ToSchema)]
struct Categories {
    items: Vec<Category>,
}

/// Get the tree of categories
#[utoipa::path(
    get, path = "/api/v1/categories", operation_id = "list_categories", tag = "products",
    responses((status = 200, description = "The top categories with all below them.", body = Categories, example = json!({"items": [{"slug": "clothing", "name": "Clothing", "product_count": 41, "children": [{"slug": "jackets", "name": "Jackets", "product_count": 12, "children": []}]}]}))),
    security(()),
)]
async fn categories(State(app): State<App>) -> Result<Json<Categories>, Problem> {
    let items = category::tree(&mut *app.pool.acquire().await?).await?;
    Ok(Json(Categories { items }))
}
