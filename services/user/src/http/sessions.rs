//! Where the caller is signed in.

use axum::extract::State;
use axum::http::StatusCode;
use service::Problem;
use service::extract::{Json, Path, Query};
use service::page::{Page, PageParams, PageQuery};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::App;
use super::caller::Caller;
use crate::session::{self, Session};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, sign_out_everywhere)).routes(routes!(sign_out))
}

/// List where the caller is signed in
///
/// Newest first.
#[utoipa::path(
    get, path = "/api/v1/me/sessions", operation_id = "list_sessions", tag = "sessions",
    params(PageParams),
    responses((status = 200, description = "A page of sessions.", body = Page<Session>, example = json!({"items": [{"id": "018f5c3e-7a00-7000-8000-000000000001", "current": true, "user_agent": "Firefox on Linux", "created_at": "2026-11-23T09:00:00Z", "last_used_at": "2026-11-23T09:15:00Z"}], "next_cursor": null}))),
    security(("token" = [])),
)]
async fn list(
    State(app): State<App>,
    Caller(user): Caller,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Session>>, Problem> {
    let (limit, after) = (page.limit()?, page.after::<Uuid>()?);
    let mut connection = app.pool.acquire().await?;
    let sessions = session::list(&mut connection, &user, after, limit + 1).await?;
    Ok(Json(Page::new(sessions, limit, |session| session.id)))
}

/// Sign out everywhere
///
/// The session that asks ends too.
#[utoipa::path(
    delete, path = "/api/v1/me/sessions", operation_id = "delete_sessions", tag = "sessions",
    responses((status = 204, description = "All have ended.")),
    security(("token" = [])),
)]
async fn sign_out_everywhere(State(app): State<App>, Caller(user): Caller) -> Result<StatusCode, Problem> {
    let mut connection = app.pool.acquire().await?;
    session::revoke_all(&mut connection, user.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sign out one session
#[utoipa::path(
    delete, path = "/api/v1/me/sessions/{id}", operation_id = "delete_session", tag = "sessions",
    params(("id" = Uuid, Path, description = "The session.")),
    responses((status = 204, description = "It has ended.")),
    security(("token" = [])),
)]
async fn sign_out(
    State(app): State<App>,
    Caller(user): Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let mut connection = app.pool.acquire().await?;
    if session::revoke_own(&mut connection, user.id, id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found("There is no such session."))
    }
}
