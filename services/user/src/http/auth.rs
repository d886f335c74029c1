//! Sign-up, sign-in, sign-out, and the public keys.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use service::Problem;
use service::auth::Role;
use service::extract::Json;
use service::validate::Invalid;

use crate::account::{self, Account, Email, NewAccount};
use crate::app::App;
use crate::session::{self, RefreshToken, SignedIn};
use crate::signing::TOKEN_LIFETIME;
use crate::{throttle, user_agent};

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/api/v1/auth/register", post(register))
        .route("/api/v1/auth/login", post(login))
        .route("/api/v1/auth/refresh", post(refresh))
        .route("/api/v1/auth/logout", post(logout))
        .route("/.well-known/jwks.json", get(jwks))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Registration {
    email: String,
    password: String,
    name: String,
}

async fn register(
    State(app): State<App>,
    Json(form): Json<Registration>,
) -> Result<(StatusCode, Json<Account>), Problem> {
    let new = NewAccount::parse(form.email, form.name, form.password)?;
    let hash = app.hasher.hash(new.password).await?;
    let mut transaction = app.pool.begin().await?;
    let account = account::register(&mut transaction, &new.email, &new.name, Role::Customer, &hash).await?;
    transaction.commit().await?;
    app.outbox.wake();
    Ok((StatusCode::CREATED, Json(account)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    email: String,
    password: String,
}

async fn login(
    State(app): State<App>,
    headers: HeaderMap,
    Json(form): Json<Login>,
) -> Result<impl IntoResponse, Problem> {
    let mut invalid = Invalid::new();
    let email = Email::parse(&mut invalid, form.email);
    invalid.check()?;
    let refused =
        || Problem::unauthorized("invalid_credentials", "The e-mail address or the password is wrong.");
    let email = email.ok_or_else(refused)?;

    // Not held while the password waits for its turn to be hashed.
    let mut connection = app.pool.acquire().await?;
    throttle::check(&mut connection, &email).await?;
    let credentials = account::credentials(&mut connection, &email).await?;
    drop(connection);

    let stored = credentials.as_ref().map(|known| known.password_hash.clone());
    let matches = app.hasher.verify(form.password, stored).await?;
    let mut transaction = app.pool.begin().await?;
    let Some(account) = credentials.filter(|known| matches && !known.disabled) else {
        throttle::failed(&mut transaction, &email).await?;
        transaction.commit().await?;
        return Err(refused());
    };
    throttle::succeeded(&mut transaction, &email).await?;
    let device = headers.get(header::USER_AGENT).and_then(user_agent::describe);
    let signed_in = session::open(&mut transaction, &account, device.as_deref()).await?;
    transaction.commit().await?;
    tokens(&app, &signed_in.ok_or_else(refused)?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Presented {
    refresh_token: String,
}

async fn refresh(State(app): State<App>, Json(form): Json<Presented>) -> Result<impl IntoResponse, Problem> {
    let refused =
        || Problem::unauthorized("invalid_refresh_token", "The refresh token is not valid; sign in again.");
    let presented = RefreshToken::parse(&form.refresh_token).ok_or_else(refused)?;
    let mut transaction = app.pool.begin().await?;
    let signed_in = session::refresh(&mut transaction, &presented).await?;
    transaction.commit().await?;
    tokens(&app, &signed_in.ok_or_else(refused)?)
}

/// 204 for a token that is unknown or spent too: it opens nothing any more.
async fn logout(State(app): State<App>, Json(form): Json<Presented>) -> Result<StatusCode, Problem> {
    if let Some(presented) = RefreshToken::parse(&form.refresh_token) {
        let mut connection = app.pool.acquire().await?;
        session::close(&mut connection, &presented).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize)]
struct Tokens {
    access_token: String,
    token_type: &'static str,
    /// Seconds.
    expires_in: i64,
    refresh_token: String,
}

/// RFC 6749, section 5.1, `no-store` included.
fn tokens(app: &App, signed_in: &SignedIn) -> Result<impl IntoResponse + use<>, Problem> {
    let tokens = Tokens {
        access_token: app.keys.sign(signed_in.account, signed_in.role, signed_in.session)?,
        token_type: "Bearer",
        expires_in: TOKEN_LIFETIME,
        refresh_token: signed_in.refresh_token.encode(),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(tokens)))
}

async fn jwks(State(app): State<App>) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(app.keys.published()))
}
