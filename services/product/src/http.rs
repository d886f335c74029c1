//! The public API's door.

mod etag;
mod products;
mod stock;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRef, State};
use axum::routing::get;
use messaging::Outbox;
use serde::Serialize;
use service::Problem;
use service::auth::Verifier;
use service::extract::Json;
use sqlx::PgPool;

use crate::category::{self, Category};

#[derive(Clone)]
pub struct App {
    pub pool: PgPool,
    pub outbox: Outbox,
    pub verifier: Arc<Verifier>,
}

impl FromRef<App> for Arc<Verifier> {
    fn from_ref(app: &App) -> Self {
        app.verifier.clone()
    }
}

pub fn router(app: App) -> Router {
    Router::new()
        .route("/api/v1/categories", get(categories))
        .merge(products::router())
        .merge(stock::router())
        .with_state(app)
}

#[derive(Serialize)]
struct Categories {
    items: Vec<Category>,
}

async fn categories(State(app): State<App>) -> Result<Json<Categories>, Problem> {
    let items = category::tree(&mut *app.pool.acquire().await?).await?;
    Ok(Json(Categories { items }))
}
