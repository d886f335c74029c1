//! The caller's own account: profile, password, erasure.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde::Deserialize;
use service::extract::{Body, Json};
use service::validate::Invalid;
use service::{FieldError, Problem};

use super::caller::{Caller, signed_out};
use crate::account::{self, Account};
use crate::app::App;
use crate::password::NewPassword;
use crate::{session, throttle};

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/api/v1/me", get(show).patch(rename).delete(erase))
        .route("/api/v1/me/password", post(change_password))
}

async fn show(State(app): State<App>, Caller(user): Caller) -> Result<Json<Account>, Problem> {
    let mut connection = app.pool.acquire().await?;
    let account = account::find(&mut connection, user.id).await?;
    account.map(Json).ok_or_else(signed_out)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    name: String,
}

async fn rename(State(app): State<App>, Caller(user): Caller, body: Body) -> Result<Json<Account>, Problem> {
    let form: Profile = body.json(&["application/json", "application/merge-patch+json"])?;
    let mut invalid = Invalid::new();
    let name = account::parse_name(&mut invalid, form.name);
    invalid.check()?;
    let name = name.ok_or_else(Problem::internal)?;
    let mut connection = app.pool.acquire().await?;
    let account = account::rename(&mut connection, user.id, &name).await?;
    account.map(Json).ok_or_else(signed_out)
}

/// Erases the account. Repeated it is a 401, since the token went with it.
async fn erase(State(app): State<App>, Caller(user): Caller) -> Result<StatusCode, Problem> {
    let mut transaction = app.pool.begin().await?;
    let erased = account::erase(&mut transaction, user.id).await?;
    transaction.commit().await?;
    app.outbox.wake();
    if erased { Ok(StatusCode::NO_CONTENT) } else { Err(signed_out()) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PasswordChange {
    current_password: String,
    new_password: String,
}

/// Signs out everywhere but here. Wrong guesses count like failed sign-ins.
async fn change_password(
    State(app): State<App>,
    Caller(user): Caller,
    Json(form): Json<PasswordChange>,
) -> Result<StatusCode, Problem> {
    let mut invalid = Invalid::new();
    let new = NewPassword::parse(&mut invalid, "/new_password", form.new_password);
    invalid.check()?;
    let new = new.ok_or_else(Problem::internal)?;

    // Not held while the passwords wait for their turn to be hashed.
    let mut connection = app.pool.acquire().await?;
    let (email, current) = account::own_password(&mut connection, user.id).await?.ok_or_else(signed_out)?;
    throttle::check(&mut connection, &email).await?;
    drop(connection);

    if !app.hasher.verify(form.current_password, Some(current.clone())).await? {
        let mut transaction = app.pool.begin().await?;
        throttle::failed(&mut transaction, &email).await?;
        transaction.commit().await?;
        return Err(wrong_password());
    }
    let new = app.hasher.hash(new).await?;
    let mut transaction = app.pool.begin().await?;
    throttle::succeeded(&mut transaction, &email).await?;
    if !account::change_password(&mut transaction, user.id, &current, &new).await? {
        return Err(wrong_password());
    }
    session::revoke_others(&mut transaction, &user).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Not a 401, which would tell a client to sign in again.
fn wrong_password() -> Problem {
    let (code, detail) = ("wrong_password", "This is not the current password.");
    let error = FieldError::new("/current_password", code, detail);
    Problem::unprocessable(code, detail).with_errors(vec![error])
}
