//! What admins do with accounts.

use axum::extract::State;
use identity::Role;
use serde::{Deserialize, Deserializer};
use service::Problem;
use service::extract::{Body, Json, Path, Query};
use service::page::{Page, PageParams, PageQuery};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::App;
use super::caller::Admin;
use crate::account::{self, Change, Email, Managed};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show, change))
}

#[derive(Deserialize)]
struct ListQuery {
    #[serde(flatten)]
    page: PageQuery,
    /// The whole address, in any case.
    email: Option<String>,
}

/// List accounts
///
/// Newest first.
#[utoipa::path(
    get, path = "/api/v1/users", operation_id = "list_users", tag = "users",
    params(PageParams, ("email" = Option<String>, Query, description = "The whole address, in any case.", pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")),
    responses((status = 200, description = "A page of accounts.", body = Page<Managed>, example = json!({"items": [{"id": "018f5c3e-7a00-7000-8000-000000000001", "email": "ada@example.com", "name": "Ada Lovelace", "role": "customer", "language": "en", "created_at": "2026-11-23T09:00:00Z", "disabled": false}], "next_cursor": null}))),
    security(("token" = ["admin"])),
)]
async fn list(
    _: Admin,
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Managed>>, Problem> {
    let (limit, after) = (query.page.limit()?, query.page.after::<Uuid>()?);
    let mut connection = app.pool.acquire().await?;
    let accounts = match query.email {
        Some(email) => match Email::read(&email) {
            Some(email) => account::with_email(&mut connection, &email, after).await?,
            None => Vec::new(),
        },
        None => account::list(&mut connection, after, limit + 1).await?,
    };
    Ok(Json(Page::new(accounts, limit, |account| account.id())))
}

/// Get an account
#[utoipa::path(
    get, path = "/api/v1/users/{id}", operation_id = "get_user", tag = "users",
    params(("id" = Uuid, Path, description = "The account.")),
    responses((status = 200, description = "The account.", body = Managed, example = json!({"id": "018f5c3e-7a00-7000-8000-000000000001", "email": "ada@example.com", "name": "Ada Lovelace", "role": "customer", "language": "en", "created_at": "2026-11-23T09:00:00Z", "disabled": false}))),
    security(("token" = ["admin"])),
)]
async fn show(_: Admin, State(app): State<App>, Path(id): Path<Uuid>) -> Result<Json<Managed>, Problem> {
    let mut connection = app.pool.acquire().await?;
    account::managed(&mut connection, id).await?.map(Json).ok_or_else(absent)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Patch {
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    role: Option<Role>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    disabled: Option<bool>,
}

/// A field that may be left out, but not be null.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Change the role of an account, or disable it
///
/// Signs the account out everywhere when anything changes. An admin does not change the own account.
#[utoipa::path(
    patch, path = "/api/v1/users/{id}", operation_id = "update_user", tag = "users",
    params(("id" = Uuid, Path, description = "The account.")),
    request_body(content((Patch = "application/json", example = json!({"role": "staff"})), (Patch = "application/merge-patch+json", example = json!({"role": "staff"})))),
    responses((status = 200, description = "The account.", body = Managed, example = json!({"id": "018f5c3e-7a00-7000-8000-000000000001", "email": "ada@example.com", "name": "Ada Lovelace", "role": "customer", "language": "en", "created_at": "2026-11-23T09:00:00Z", "disabled": false}))),
    security(("token" = ["admin"])),
    extensions(("x-problems" = json!({"409": ["own_account", "last_admin"]}))),
)]
async fn change(
    Admin(admin): Admin,
    State(app): State<App>,
    Path(id): Path<Uuid>,
    body: Body,
) -> Result<Json<Managed>, Problem> {
    let mut connection = app.pool.acquire().await?;
    account::managed(&mut connection, id).await?.ok_or_else(absent)?;
    drop(connection);
    let patch: Patch = body.json(&["application/json", "application/merge-patch+json"])?;
    let change = Change { role: patch.role, disabled: patch.disabled };
    let mut transaction = service::db::begin(&app.pool).await?;
    let account = account::administer(&mut transaction, admin, id, change).await?;
    transaction.commit().await?;
    account.map(Json).ok_or_else(absent)
}

pub(super) fn absent() -> Problem {
    Problem::not_found("There is no such user.")
}
