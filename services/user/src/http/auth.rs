//! Sign-up, sign-in, sign-out, and the public keys.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use identity::Role;
use serde::{Deserialize, Serialize};
use service::Problem;
use service::db::Connection;
use service::extract::Json;
use service::validate::Invalid;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::verifications::VerificationRequested;
use crate::account::{self, Account, Email, Language, NewAccount};
use crate::device::{self, Device};
use crate::mail_requests::Wish;
use crate::notification::{AccountMail, Recipient, Signed, write_to};
use crate::password::{Asker, Match, NewPassword};
use crate::session::{self, Credentials, RefreshToken, SignedIn};
use crate::signing::TOKEN_LIFETIME;
use crate::throttle::{self, Lane};
use crate::token::Token;
use crate::verification::{self, Opening};
use crate::{quota, schema, user_agent};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(logout))
        .routes(routes!(jwks))
}

pub(super) fn keys() -> Router<App> {
    Router::new().route("/.well-known/jwks.json", get(jwks))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Registration {
    #[schema(format = Email, max_length = 254)]
    email: String,
    #[schema(schema_with = schema::new_password)]
    password: String,
    #[schema(schema_with = schema::up_to_100)]
    name: String,
    /// What mails are to be written in; English without it.
    #[serde(default)]
    #[schema(inline)]
    language: Language,
}

/// Open an account
///
/// With `EMAIL_VERIFICATION=required` nothing is opened yet: a mail with a token goes to the address, and the answer is 202, the
/// same one for an address that has an account. That one is told in a mail that somebody tried.
#[utoipa::path(
    post, path = "/api/v1/auth/register", operation_id = "register", tag = "accounts",
    request_body(content = Registration, example = json!({"email": "ada@example.com", "password": "correct horse 7", "name": "Ada Lovelace"})),
    responses(
        (status = 201, description = "The account.", body = Account, example = json!({"id": "018f5c3e-7a00-7000-8000-000000000001", "email": "ada@example.com", "name": "Ada Lovelace", "role": "customer", "language": "en", "created_at": "2026-11-23T09:00:00Z"})),
        (status = 202, description = "A mail is on its way to the address; the account is opened with the token in it.", body = VerificationRequested, example = json!({"expires_in": 86400})),
    ),
    security(()),
    extensions(("x-problems" = json!({"409": ["email_taken"], "429": ["too_many_mails"]}))),
)]
async fn register(
    State(app): State<App>,
    headers: HeaderMap,
    Json(form): Json<Registration>,
) -> Result<Response, Problem> {
    let NewAccount { email, name, password, language } =
        NewAccount::parse(form.email, form.name, form.password, form.language)?;
    let caller = quota::caller(&headers);
    let network = quota::caller_network(&headers);
    let asker = Asker::of(email.key(), network.clone());
    if app.mail_requests.verifies() {
        app.mail_requests.admit(Wish::Verification, caller).await?;
        let new = Opening { name, language, password_hash: app.hasher.hash(password, &asker).await? };
        let mut transaction = service::db::begin(&app.pool).await?;
        let link = app.mail_requests.verification_link();
        verification::register(&mut transaction, &email, &new, network.as_deref(), link).await?;
        transaction.commit().await?;
        return Ok(VerificationRequested::answer().into_response());
    }
    let hash = app.hasher.hash(password, &asker).await?;
    let mut transaction = service::db::begin(&app.pool).await?;
    let account = account::register(&mut transaction, &email, &name, Role::Customer, language, &hash).await?;
    transaction.commit().await?;
    app.outbox.wake();
    Ok((StatusCode::CREATED, Json(account)).into_response())
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Login {
    #[schema(format = Email, max_length = 254)]
    email: String,
    #[schema(schema_with = schema::text)]
    password: String,
}

/// Sign in
///
/// An unknown address and a wrong password get the same answer in the same time. The password of the newest registration whose
/// address is not verified yet gets 403 `email_not_verified`, whether or not the address has an account.
///
/// A client that sends the `device_token` of an earlier sign-in in `X-Device-Token` is not slowed down by what others guess. Of a
/// sign-in without it, but for the first, the account's owner gets a mail, at most three of them an hour.
#[utoipa::path(
    post, path = "/api/v1/auth/login", operation_id = "login", tag = "sessions",
    params(("X-Device-Token" = Option<String>, Header, description = "The device tokens that earlier sign-ins gave to this client, with commas between.", nullable = false)),
    request_body(content = Login, example = json!({"email": "ada@example.com", "password": "correct horse 7"})),
    responses((status = 200, description = "An access token, and a refresh token to get the next.", body = Tokens, headers(("Cache-Control" = String, description = "`no-store`.")), example = json!({"access_token": "eyJ0eXAiOiJhdCtqd3QifQ.e30.c2ln", "token_type": "Bearer", "expires_in": 900, "refresh_token": "q0fH0fZ3V1y8w1mQm2b7cA3xk5s9d6e4r2t1u0i8o7p", "device_token": "k3fH0fZ3V1y8w1mQm2b7cA3xk5s9d6e4r2t1u0i8o7p"}))),
    security(()),
    extensions(("x-problems" = json!({"401": ["invalid_credentials"], "403": ["email_not_verified"], "429": ["too_many_attempts"]}))),
)]
async fn login(
    State(app): State<App>,
    headers: HeaderMap,
    Json(form): Json<Login>,
) -> Result<impl IntoResponse, Problem> {
    let mut invalid = Invalid::new();
    let email = Email::parse(&mut invalid, &form.email);
    invalid.check()?;
    let refused =
        || Problem::unauthorized("invalid_credentials", "The e-mail address or the password is wrong.");
    let email = email.ok_or_else(refused)?;

    // Not held while the password waits for its turn to be hashed.
    let mut connection = app.pool.acquire().await?;
    let credentials = account::credentials(&mut connection, &email).await?;
    // Whoever they belong to, so that each address takes the same time.
    let devices = device::find(&mut connection, &device::presented(&headers)).await?;
    let device =
        credentials.as_ref().and_then(|known| devices.into_iter().find(|device| device.account == known.id));
    let lane = device.map_or_else(|| Lane::address(&email), |device| Lane::device(device.id));
    throttle::check(&mut connection, &lane).await?;
    // For every address, so that each takes the same time.
    let registered = match app.mail_requests.verifies() {
        true => verification::newest_hash(&mut connection, &email).await?,
        false => None,
    };
    drop(connection);

    let network = quota::caller_network(&headers);
    let asker = match device {
        Some(device) => Asker::known(device.account, network),
        None => Asker::of(email.key(), network),
    };
    let tried = credentials.as_ref().map(|known| known.id);
    let stored = credentials.as_ref().map(|known| known.password_hash.clone());
    let matched = app.hasher.verify(form.password.clone(), stored, &asker).await?;
    // The same whether or not the address has an account: whoever registers it learns nothing by the password that they chose.
    let waits = match registered {
        Some(registered) if matched.is_none() => {
            app.hasher.verify(form.password.clone(), Some(registered), &asker).await?.is_some()
        }
        _ => false,
    };
    let mut transaction = service::db::begin(&app.pool).await?;
    if waits {
        // It counts neither as a failure nor as a sign-in: a stranger may have registered the address of an account.
        throttle::check(&mut transaction, &lane).await?;
        transaction.commit().await?;
        let detail = "The account is opened when its address is verified, with the token in the mail.";
        let problem = Problem::new(StatusCode::FORBIDDEN, "email_not_verified", detail);
        return Err(problem);
    }
    let Some(account) = credentials.filter(|known| matched.is_some() && !known.disabled) else {
        throttle::failed(&mut transaction, &lane, tried).await?;
        transaction.commit().await?;
        return Err(refused());
    };
    throttle::succeeded(&mut transaction, &lane).await?;
    let agent = headers.get(header::USER_AGENT).and_then(user_agent::describe);
    let mut signed_in = enter(&app, &mut transaction, &account, device, agent.as_deref()).await?;
    transaction.commit().await?;
    if signed_in.is_none() && matched == Some(Match::AsTyped) {
        // Another sign-in may have renewed the hash meanwhile. No connection is held while this one is hashed.
        let now = account::credentials(&mut *app.pool.acquire().await?, &email).await?;
        if let Some(now) = now.filter(|now| !now.disabled)
            && app
                .hasher
                .verify(form.password.clone(), Some(now.password_hash.clone()), &asker)
                .await?
                .is_some()
        {
            let mut transaction = service::db::begin(&app.pool).await?;
            signed_in = enter(&app, &mut transaction, &now, device, agent.as_deref()).await?;
            transaction.commit().await?;
        }
    }
    let (signed_in, device_token) = signed_in.ok_or_else(refused)?;
    if matched == Some(Match::AsTyped) {
        renew_hash(&app, &account, &form.password, &asker).await;
    }
    tokens(&app, &signed_in, device_token)
}

/// Opens a session, as [`session::open`] does, and a token for a device that is not known yet. If the account
/// has other devices, a mail reports the new one.
async fn enter(
    app: &App,
    connection: &mut Connection,
    account: &Credentials,
    device: Option<Device>,
    user_agent: Option<&str>,
) -> sqlx::Result<Option<(SignedIn, Option<Token>)>> {
    let Some(signed_in) = session::open(connection, account, user_agent, device.is_some()).await? else {
        return Ok(None);
    };
    let Some(new) = device::signed_in(connection, account.id, device).await? else {
        return Ok(Some((signed_in, None)));
    };
    if app.mails
        && new.is_another
        && quota::mail_of_device(connection, account.id).await?
        && let Some(owner) = account::find(connection, account.id).await?
    {
        let mail = AccountMail::NewDevice(Signed { user_agent: user_agent.map(str::to_owned) });
        write_to(connection, &Recipient::owner(&owner), &mail).await?;
    }
    Ok(Some((signed_in, Some(new.token))))
}

/// Replaces the hash of a password that an earlier release took as it was typed, so that it can be typed on
/// any keyboard. If that fails, the next sign-in does it.
async fn renew_hash(app: &App, account: &Credentials, password: &str, asker: &Asker) {
    let renewed = async {
        let new = app.hasher.hash(NewPassword::of_old(password), asker).await?;
        let mut connection = app.pool.acquire().await?;
        Ok::<_, Problem>(
            account::renew_hash(&mut connection, account.id, &account.password_hash, &new).await?,
        )
    };
    if let Err(error) = renewed.await {
        tracing::warn!(code = error.code, "password.not_renewed");
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Presented {
    #[schema(schema_with = schema::text)]
    refresh_token: String,
}

/// Get the next pair of tokens
///
/// The refresh token is spent by it. A retry within a minute gets the same successor, until that one is used; a
/// spent token that comes later ends the session.
#[utoipa::path(
    post, path = "/api/v1/auth/refresh", operation_id = "refresh", tag = "sessions",
    request_body(content = Presented, example = json!({"refresh_token": "q0fH0fZ3V1y8w1mQm2b7cA3xk5s9d6e4r2t1u0i8o7p"})),
    responses((status = 200, description = "A new pair.", body = Tokens, headers(("Cache-Control" = String, description = "`no-store`.")), example = json!({"access_token": "eyJ0eXAiOiJhdCtqd3QifQ.e30.c2ln", "token_type": "Bearer", "expires_in": 900, "refresh_token": "q0fH0fZ3V1y8w1mQm2b7cA3xk5s9d6e4r2t1u0i8o7p"}))),
    security(()),
    extensions(("x-problems" = json!({"401": ["invalid_refresh_token"]}))),
)]
async fn refresh(State(app): State<App>, Json(form): Json<Presented>) -> Result<impl IntoResponse, Problem> {
    let refused =
        || Problem::unauthorized("invalid_refresh_token", "The refresh token is not valid; sign in again.");
    let presented = RefreshToken::parse(&form.refresh_token).ok_or_else(refused)?;
    let mut transaction = service::db::begin(&app.pool).await?;
    let signed_in = session::refresh(&mut transaction, &presented).await?;
    transaction.commit().await?;
    tokens(&app, &signed_in.ok_or_else(refused)?, None)
}

/// Sign out
///
/// Also 204 for a token that is unknown or spent: it opens nothing any more.
#[utoipa::path(
    post, path = "/api/v1/auth/logout", operation_id = "logout", tag = "sessions",
    request_body(content = Presented, example = json!({"refresh_token": "q0fH0fZ3V1y8w1mQm2b7cA3xk5s9d6e4r2t1u0i8o7p"})),
    responses((status = 204, description = "The session has ended.")),
    security(()),
)]
async fn logout(State(app): State<App>, Json(form): Json<Presented>) -> Result<StatusCode, Problem> {
    if let Some(presented) = RefreshToken::parse(&form.refresh_token) {
        let mut connection = app.pool.acquire().await?;
        session::close(&mut connection, &presented).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize, ToSchema)]
struct Tokens {
    access_token: String,
    #[schema(pattern = "^Bearer$")]
    token_type: &'static str,
    /// Seconds.
    expires_in: i64,
    refresh_token: String,
    /// At a sign-in from a device that is not known: keep it there, and send it in `X-Device-Token` with the next sign-in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    device_token: Option<String>,
}

/// RFC 6749, section 5.1, `no-store` included.
fn tokens(
    app: &App,
    signed_in: &SignedIn,
    device_token: Option<Token>,
) -> Result<impl IntoResponse + use<>, Problem> {
    let tokens = Tokens {
        access_token: app.keys.sign(signed_in.account, signed_in.role, signed_in.session)?,
        token_type: "Bearer",
        expires_in: TOKEN_LIFETIME,
        refresh_token: signed_in.refresh_token.encode(),
        device_token: device_token.map(|token| token.encode()),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(tokens)))
}

/// Get the keys that verify access tokens
#[utoipa::path(
    get, path = "/.well-known/jwks.json", operation_id = "get_public_keys", tag = "sessions",
    responses((status = 200, description = "A set of keys (RFC 7517).", body = PublicKeys, example = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "alg": "EdDSA", "use": "sig"}]}))),
    security(()),
)]
async fn jwks(State(app): State<App>) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(app.keys.published()))
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "only described")]
struct PublicKeys {
    keys: Vec<PublicKey>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "only described")]
struct PublicKey {
    kty: String,
    crv: String,
    x: String,
    kid: String,
    alg: String,
    r#use: String,
}
