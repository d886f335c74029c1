//! The caller, by the present state: this service has the sessions, so a sign-out, a changed role or a closed
//! account counts at once here.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use identity::{Role, User};
use service::{Problem, parameters};

use super::App;
use crate::session;

/// The signed-in caller: 401 `invalid_token` also when the session has ended.
pub(super) struct Caller(pub User);

/// 403 for customers.
pub(super) struct Staff(pub User);

/// 403 for all but admins.
pub(super) struct Admin(pub User);

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = Self::of(parts, app).await?;
        parameters::refuse_unknown(parts)?;
        Ok(caller)
    }
}

impl Caller {
    async fn of(parts: &Parts, app: &App) -> Result<Self, Problem> {
        let user = User::of(parts, app).await?;
        let role = session::current_role(&mut *app.pool.acquire().await?, &user).await?;
        Ok(Self(User { role: role.ok_or_else(signed_out)?, ..user }))
    }
}

impl FromRequestParts<App> for Staff {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Caller(user) = Caller::of(parts, app).await?;
        if !user.is_staff() {
            return Err(Problem::forbidden("This is for staff."));
        }
        parameters::refuse_unknown(parts)?;
        Ok(Self(user))
    }
}

impl FromRequestParts<App> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Caller(user) = Caller::of(parts, app).await?;
        if user.role != Role::Admin {
            return Err(Problem::forbidden("This is for admins."));
        }
        parameters::refuse_unknown(parts)?;
        Ok(Self(user))
    }
}

/// The token outlives its session by up to 15 minutes.
pub(super) fn signed_out() -> Problem {
    Problem::unauthorized("invalid_token", "The session has ended; sign in again.")
}
