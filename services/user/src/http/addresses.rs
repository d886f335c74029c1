//! The caller's addresses.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use service::Problem;
use service::extract::{Body, Json, Path, Query};
use service::idempotency::{self, Answer, Request};
use service::page::{Page, PageParams, PageQuery};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::App;
use super::caller::{Caller, signed_out};
use crate::address::{self, Address, Place};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, add)).routes(routes!(show, replace, remove))
}

/// List the own addresses
///
/// Newest first.
#[utoipa::path(
    get, path = "/api/v1/me/addresses", operation_id = "list_addresses", tag = "accounts",
    params(PageParams),
    responses((status = 200, description = "A page of addresses.", body = Page<Address>, example = json!({"items": [{"id": "018f5c3e-7a00-7000-8000-000000000001", "name": "Ada Lovelace", "line1": "12 St James's Square", "city": "London", "postal_code": "SW1Y 4JH", "country": "GB"}], "next_cursor": null}))),
    security(("token" = [])),
)]
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

const ADD: &str = "POST /api/v1/me/addresses";

/// Add an address
///
/// At most fifty are kept. With an `Idempotency-Key` it is safe to repeat.
#[utoipa::path(
    post, path = "/api/v1/me/addresses", operation_id = "create_address", tag = "accounts",
    params(("Idempotency-Key" = Option<String>, Header, description = "Of the caller's choice, 1 to 255 visible ASCII characters; kept for a day.", min_length = 1, max_length = 255, pattern = "^[!-~]+$", nullable = false)),
    request_body(content = Place, example = json!({"name": "Ada Lovelace", "line1": "12 St James's Square", "city": "London", "postal_code": "SW1Y 4JH", "country": "GB"})),
    responses((status = 201, description = "The address.", body = Address, headers(("Location" = String, description = "Where the address is.")), example = json!({"id": "018f5c3e-7a00-7000-8000-000000000001", "name": "Ada Lovelace", "line1": "12 St James's Square", "city": "London", "postal_code": "SW1Y 4JH", "country": "GB"}))),
    security(("token" = [])),
    extensions(("x-problems" = json!({"409": ["too_many_addresses"]}))),
)]
async fn add(
    State(app): State<App>,
    Caller(user): Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Answer, Problem> {
    let key = idempotency::key(&headers)?;
    let sent: Place = body.json(&["application/json"])?;
    // The key stands for what was sent.
    let request = Request::new(user.id, ADD, key, &sent)?;
    let mut transaction = service::db::begin(&app.pool).await?;
    if let Some(answer) = request.earlier(&mut transaction).await? {
        transaction.commit().await?;
        return Ok(answer);
    }
    // After that: an answer stays the answer, whatever rules came since.
    let place = address::checked(sent)?;
    let answer = match address::add(&mut transaction, user.id, place).await {
        Ok(added) => {
            let address = added.ok_or_else(signed_out)?;
            let location = format!("/api/v1/me/addresses/{}", address.id);
            Answer::created(&address)?.with_header(&header::LOCATION, &location)
        }
        Err(full) if full.status == StatusCode::CONFLICT => Answer::refused(&full)?,
        Err(problem) => return Err(problem),
    };
    request.answered(&mut transaction, &answer).await?;
    transaction.commit().await?;
    Ok(answer)
}

/// Get an address
#[utoipa::path(
    get, path = "/api/v1/me/addresses/{id}", operation_id = "get_address", tag = "accounts",
    params(("id" = Uuid, Path, description = "The address.")),
    responses((status = 200, description = "The address.", body = Address, example = json!({"id": "018f5c3e-7a00-7000-8000-000000000001", "name": "Ada Lovelace", "line1": "12 St James's Square", "city": "London", "postal_code": "SW1Y 4JH", "country": "GB"}))),
    security(("token" = [])),
)]
async fn show(
    State(app): State<App>,
    Caller(user): Caller,
    Path(id): Path<Uuid>,
) -> Result<Json<Address>, Problem> {
    let mut connection = app.pool.acquire().await?;
    let address = address::find(&mut connection, user.id, id).await?;
    address.map(Json).ok_or_else(absent)
}

/// Replace an address
#[utoipa::path(
    put, path = "/api/v1/me/addresses/{id}", operation_id = "replace_address", tag = "accounts",
    params(("id" = Uuid, Path, description = "The address.")),
    request_body(content = Place, example = json!({"name": "Ada Lovelace", "line1": "12 St James's Square", "city": "London", "postal_code": "SW1Y 4JH", "country": "GB"})),
    responses((status = 200, description = "The address as it is now.", body = Address, example = json!({"id": "018f5c3e-7a00-7000-8000-000000000001", "name": "Ada Lovelace", "line1": "12 St James's Square", "city": "London", "postal_code": "SW1Y 4JH", "country": "GB"}))),
    security(("token" = [])),
)]
async fn replace(
    State(app): State<App>,
    Caller(user): Caller,
    Path(id): Path<Uuid>,
    body: Body,
) -> Result<Json<Address>, Problem> {
    let mut connection = app.pool.acquire().await?;
    address::find(&mut connection, user.id, id).await?.ok_or_else(absent)?;
    let place = address::checked(body.json(&["application/json"])?)?;
    let address = address::replace(&mut connection, user.id, id, place).await?;
    address.map(Json).ok_or_else(absent)
}

/// Remove an address
#[utoipa::path(
    delete, path = "/api/v1/me/addresses/{id}", operation_id = "delete_address", tag = "accounts",
    params(("id" = Uuid, Path, description = "The address.")),
    responses((status = 204, description = "It is removed.")),
    security(("token" = [])),
)]
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
