//! Where the caller is signed in.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{delete, get};
use service::Problem;
use service::extract::{Json, Path, Query};
use service::page::{Page, PageQuery};
use uuid::Uuid;

use super::caller::Caller;
use crate::app::App;
use crate::session::{self, Session};

pub(crate) fn router() -> Router<App> {
    Router::new().route("/api/v1/me/sessions", get(list)).route("/api/v1/me/sessions/{id}", delete(sign_out))
}

/// Newest first.
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
