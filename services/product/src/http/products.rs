//! `/products`.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::Value;
use service::Problem;
use service::auth::Staff;
use service::extract::{Body, Json, Path, Query};

use super::{App, etag};
use crate::product::{self, Form, NewProduct, Product, search, store};

pub fn router() -> Router<App> {
    Router::new()
        .route("/api/v1/products", get(list).post(create))
        .route("/api/v1/products/{product}", get(read).patch(update).delete(archive))
}

async fn list(
    State(app): State<App>,
    Query(params): Query<search::Params>,
) -> Result<Json<search::Answer>, Problem> {
    let search = params.parse()?;
    Ok(Json(search::run(&app.pool, &search).await?))
}

async fn read(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut connection = app.pool.acquire().await?;
    let product = store::find(&mut connection, &name).await?.ok_or_else(product::not_found)?;
    if etag::is_held(&headers, &product) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag::of(&product))]).into_response());
    }
    Ok(tagged(product))
}

async fn create(State(app): State<App>, _: Staff, Json(body): Json<Value>) -> Result<Response, Problem> {
    let new = NewProduct::parse(body)?;
    let mut transaction = app.pool.begin().await?;
    let product = product::create(&mut transaction, new).await?;
    transaction.commit().await?;
    app.outbox.wake();
    let location = [(header::LOCATION, format!("/api/v1/products/{}", product.id))];
    Ok((StatusCode::CREATED, location, tagged(product)).into_response())
}

async fn update(
    State(app): State<App>,
    _: Staff,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let mut transaction = app.pool.begin().await?;
    let product = store::find_locked(&mut transaction, &name).await?.ok_or_else(product::not_found)?;
    let patch = body.json(&["application/merge-patch+json", "application/json"])?;
    let form = product::merge_patch(&product, patch)?;
    product::require_category(&mut transaction, &form.category).await?;
    etag::require_current(&headers, &product)?;
    if form == Form::from(&product) {
        return Ok(tagged(product));
    }
    let product = product::update(&mut transaction, product.id, &form).await?;
    transaction.commit().await?;
    app.outbox.wake();
    Ok(tagged(product))
}

async fn archive(
    State(app): State<App>,
    _: Staff,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let mut transaction = app.pool.begin().await?;
    let product = store::find_locked(&mut transaction, &name).await?.ok_or_else(product::not_found)?;
    etag::require_current(&headers, &product)?;
    product::archive(&mut transaction, product.id).await?;
    transaction.commit().await?;
    app.outbox.wake();
    Ok(StatusCode::NO_CONTENT)
}

fn tagged(product: Product) -> Response {
    ([(header::ETAG, etag::of(&product))], Json(product)).into_response()
}
