//! The caller's addresses.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use service::Problem;
use service::extract::{Body, Json, Path, Query};
use service::page::{Page, PageQuery};
use uuid::Uuid;

use super::caller::{Caller, signed_out};
use crate::address::{self, Address, Place};
use crate::app::App;

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/api/v1/me/addresses", get(list).post(add))
        .route("/api/v1/me/addresses/{id}", get(show).put(replace).delete(remove))
}

/// Newest first.
async fn list(
    State(app): State<App>,
    Caller(user): Caller,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Address>>, Problem> {
    let (limit, after) = (page.limit()?, page.after::<Uuid>()?);
    let mut connection = app.pool.acquire().await?;
    let addresses = address::list(&mut connection, user.id, after, limit + 1).await?;
    Ok(Json(Page::new(addresses, limit, |address| address.id)))
}

async fn add(
    State(app): State<App>,
    Caller(user): Caller,
    Json(place): Json<Place>,
) -> Result<impl IntoResponse, Problem> {
    place.check()?;
    let mut transaction = app.pool.begin().await?;
    let address = address::add(&mut transaction, user.id, place).await?.ok_or_else(signed_out)?;
    transaction.commit().await?;
    let location = format!("/api/v1/me/addresses/{}", address.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(address)))
}

async fn show(
    State(app): State<App>,
    Caller(user): Caller,
    Path(id): Path<Uuid>,
) -> Result<Json<Address>, Problem> {
    let mut connection = app.pool.acquire().await?;
    let address = address::find(&mut connection, user.id, id).await?;
    address.map(Json).ok_or_else(absent)
}

async fn replace(
    State(app): State<App>,
    Caller(user): Caller,
    Path(id): Path<Uuid>,
    body: Body,
) -> Result<Json<Address>, Problem> {
    let mut connection = app.pool.acquire().await?;
    address::find(&mut connection, user.id, id).await?.ok_or_else(absent)?;
    let place: Place = body.json(&["application/json"])?;
    place.check()?;
    let address = address::replace(&mut connection, user.id, id, place).await?;
    address.map(Json).ok_or_else(absent)
}

async fn remove(
    State(app): State<App>,
    Caller(user): Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let mut connection = app.pool.acquire().await?;
    if address::remove(&mut connection, user.id, id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(absent())
    }
}

fn absent() -> Problem {
    Problem::not_found("There is no such address.")
}
