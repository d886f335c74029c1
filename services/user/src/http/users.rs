//! What admins do with accounts.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde::{Deserialize, Deserializer};
use service::Problem;
use service::auth::Role;
use service::extract::{Body, Json, Path, Query};
use service::page::{Page, PageQuery};
use uuid::Uuid;

use super::caller::Admin;
use crate::account::{self, Change, Managed};
use crate::app::App;

pub(crate) fn router() -> Router<App> {
    Router::new().route("/api/v1/users", get(list)).route("/api/v1/users/{id}", get(show).patch(change))
}

#[derive(Deserialize)]
struct ListQuery {
    #[serde(flatten)]
    page: PageQuery,
    /// The whole address, in any case.
    email: Option<String>,
}

/// Newest first.
async fn list(
    _: Admin,
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Managed>>, Problem> {
    let (limit, after) = (query.page.limit()?, query.page.after::<Uuid>()?);
    let mut connection = app.pool.acquire().await?;
    let accounts = match query.email {
        Some(email) => account::with_email(&mut connection, &email, after).await?,
        None => account::list(&mut connection, after, limit + 1).await?,
    };
    Ok(Json(Page::new(accounts, limit, |account| account.id())))
}

async fn show(_: Admin, State(app): State<App>, Path(id): Path<Uuid>) -> Result<Json<Managed>, Problem> {
    let mut connection = app.pool.acquire().await?;
    account::managed(&mut connection, id).await?.map(Json).ok_or_else(absent)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    #[serde(default, deserialize_with = "given")]
    role: Option<Role>,
    #[serde(default, deserialize_with = "given")]
    disabled: Option<bool>,
}

/// A field that may be left out, but not be null.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Signs the account out everywhere when anything changes.
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
    let mut transaction = app.pool.begin().await?;
    let account = account::administer(&mut transaction, admin.id, id, change).await?;
    transaction.commit().await?;
    account.map(Json).ok_or_else(absent)
}

fn absent() -> Problem {
    Problem::not_found("There is no such user.")
}
