//! The caller's own account: profile, password, erasure.

use audit::Entry;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use identity::User;
use serde::Deserialize;
use serde_json::json;
use service::extract::{Body, Json, not_null};
use service::failpoint;
use service::validate::Invalid;
use service::{FieldError, Problem};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::caller::{Caller, signed_out};
use super::verifications::VerificationRequested;
use crate::account::{self, Account, Email, Language};
use crate::mail_requests::Wish;
use crate::notification::{self, AccountMail, Recipient, write_to};
use crate::password::{Asker, NewPassword};
use crate::throttle::{self, Lane};
use crate::{device, quota, reset, schema, session, verification};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(show, edit, erase))
        .routes(routes!(change_email))
        .routes(routes!(change_password))
}

/// Get the own account
#[utoipa::path(
    get, path = "/api/v1/me", operation_id = "get_me", tag = "accounts",
    responses((status = 200, description = "The account.", body = Account, example = json!({"id": "018f5c3e-7a00-7000-8000-000000000001", "email": "ada@example.com", "name": "Ada Lovelace", "role": "customer", "language": "en", "created_at": "2026-11-23T09:00:00Z"}))),
    security(("token" = [])),
)]
async fn show(State(app): State<App>, Caller(user): Caller) -> Result<Json<Account>, Problem> {
    let mut connection = app.pool.acquire().await?;
    let account = account::find(&mut connection, user.id).await?;
    account.map(Json).ok_or_else(signed_out)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Profile {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(schema_with = schema::up_to_100)]
    name: Option<String>,
    /// What mails are to be written in.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(inline, nullable = false)]
    language: Option<Language>,
}

/// Change the own name, or the language of mails
#[utoipa::path(
    patch, path = "/api/v1/me", operation_id = "update_me", tag = "accounts",
    request_body(content((Profile = "application/json", example = json!({"name": "Ada King"})), (Profile = "application/merge-patch+json", example = json!({"name": "Ada King"})))),
    responses((status = 200, description = "The account.", body = Account, example = json!({"id": "018f5c3e-7a00-7000-8000-000000000001", "email": "ada@example.com", "name": "Ada Lovelace", "role": "customer", "language": "en", "created_at": "2026-11-23T09:00:00Z"}))),
    security(("token" = [])),
)]
async fn edit(State(app): State<App>, Caller(user): Caller, body: Body) -> Result<Json<Account>, Problem> {
    let form: Profile = body.json(&["application/json", "application/merge-patch+json"])?;
    let mut invalid = Invalid::new();
    if form.name.is_none() && form.language.is_none() {
        invalid.push("/name", "missing_field", "Name what is to be changed: name or language.");
    }
    let name = form.name.and_then(|name| account::parse_name(&mut invalid, name));
    invalid.check()?;
    let mut connection = app.pool.acquire().await?;
    let account = account::edit(&mut connection, user.id, name.as_deref(), form.language).await?;
    account.map(Json).ok_or_else(signed_out)
}

/// Erase the own account
///
/// Personal data goes; orders stay without it. The token ends too, so that a repetition gets 401.
#[utoipa::path(
    delete, path = "/api/v1/me", operation_id = "delete_me", tag = "accounts",
    responses((status = 204, description = "Nothing is kept of this person.")),
    security(("token" = [])),
    extensions(("x-problems" = json!({"409": ["last_admin"]}))),
)]
async fn erase(State(app): State<App>, Caller(user): Caller) -> Result<StatusCode, Problem> {
    let mut transaction = service::db::begin(&app.pool).await?;
    // In the same order as when an account with the same address is opened.
    account::forget_failures(&mut transaction, user.id).await?;
    if let Some((email, _)) = account::own_password(&mut transaction, user.id).await? {
        verification::forget(&mut transaction, &email).await?;
    }
    let erased = account::erase(&mut transaction, user.id).await?;
    if erased {
        audit::forget(&mut transaction, &[user.id]).await?;
        audit::record(&mut transaction, Entry::new(user, "account.erased", "account", user.id)).await?;
    }
    failpoint::hit("user.erasure.written").await?;
    transaction.commit().await?;
    failpoint::hit("user.erasure.committed").await?;
    app.outbox.wake();
    if erased { Ok(StatusCode::NO_CONTENT) } else { Err(signed_out()) }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EmailChange {
    #[schema(schema_with = schema::text)]
    current_password: String,
    #[schema(format = Email, max_length = 254)]
    email: String,
}

/// Change the own e-mail address
///
/// The next sign-in is with the new one, and mails go there. All other sessions end, and a mail tells the old address. With
/// `EMAIL_VERIFICATION=required` nothing changes yet: a mail with a token goes to the new address, and the answer is 202, the same
/// one for an address that has an account. Ten wrong guesses in a session start pauses, as failed sign-ins do.
#[utoipa::path(
    post, path = "/api/v1/me/email", operation_id = "change_email", tag = "accounts",
    request_body(content = EmailChange, example = json!({"current_password": "correct horse 7", "email": "ada@example.org"})),
    responses(
        (status = 200, description = "The account.", body = Account, example = json!({"id": "018f5c3e-7a00-7000-8000-000000000001", "email": "ada@example.org", "name": "Ada Lovelace", "role": "customer", "language": "en", "created_at": "2026-11-23T09:00:00Z"})),
        (status = 202, description = "A mail is on its way to the new address, which counts when its token has come back.", body = VerificationRequested, example = json!({"expires_in": 86400})),
    ),
    security(("token" = [])),
    extensions(("x-problems" = json!({"409": ["email_taken"], "422": ["wrong_password"], "429": ["too_many_attempts", "too_many_mails"]}))),
)]
async fn change_email(
    State(app): State<App>,
    Caller(user): Caller,
    headers: HeaderMap,
    Json(form): Json<EmailChange>,
) -> Result<Response, Problem> {
    let mut invalid = Invalid::new();
    let new = Email::parse(&mut invalid, &form.email);
    invalid.check()?;
    let new = new.ok_or_else(Problem::internal)?;
    let current = verified(&app, &user, &headers, form.current_password).await?;
    if app.mail_requests.verifies() {
        let mut connection = app.pool.acquire().await?;
        let own = account::find(&mut connection, user.id).await?.ok_or_else(signed_out)?;
        let known = account::of_address(&mut connection, &new).await?;
        drop(connection);
        // The owner may write the own address in another form.
        if known.is_none_or(|known| known.id != own.id) {
            app.mail_requests.admit(Wish::Verification, quota::caller(&headers)).await?;
            let mut transaction = service::db::begin(&app.pool).await?;
            let network = quota::caller_network(&headers);
            let link = app.mail_requests.verification_link();
            verification::change(&mut transaction, &own, &new, network.as_deref(), link).await?;
            transaction.commit().await?;
            return Ok(VerificationRequested::answer().into_response());
        }
    }
    let mut transaction = service::db::begin(&app.pool).await?;
    let changed = account::change_email(&mut transaction, user.id, &current, &new).await?;
    let (before, after) = changed.ok_or_else(wrong_password)?;
    // A token may have gone to the old address.
    reset::end_all(&mut transaction, user.id).await?;
    session::revoke_others(&mut transaction, &user).await?;
    let (old, new) = (json!({"email": before.email}), json!({"email": after.email}));
    let entry = Entry::new(user, "email.changed", "account", user.id).personal(user.id, &old, &new);
    audit::record(&mut transaction, entry).await?;
    if app.mails {
        write_to(&mut transaction, &Recipient::owner(&before), &AccountMail::AddressChanged).await?;
    }
    transaction.commit().await?;
    Ok(Json(after).into_response())
}

/// The hash of the caller's password, if it is this one. 422 `wrong_password`, 429 after many guesses in this session.
async fn verified(app: &App, user: &User, headers: &HeaderMap, password: String) -> Result<String, Problem> {
    let lane = Lane::session(user.session);
    // Not held while the password waits for its turn to be hashed.
    let mut connection = app.pool.acquire().await?;
    let (_, current) = account::own_password(&mut connection, user.id).await?.ok_or_else(signed_out)?;
    throttle::check(&mut connection, &lane).await?;
    drop(connection);
    let asker = Asker::known(user.id, quota::caller_network(headers));
    let right = app.hasher.verify(password, Some(current.clone()), &asker).await?.is_some();
    let mut transaction = service::db::begin(&app.pool).await?;
    if right {
        throttle::succeeded(&mut transaction, &lane).await?;
    } else {
        throttle::failed(&mut transaction, &lane, Some(user.id)).await?;
    }
    transaction.commit().await?;
    if right { Ok(current) } else { Err(wrong_password()) }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PasswordChange {
    #[schema(schema_with = schema::text)]
    current_password: String,
    #[schema(schema_with = schema::new_password)]
    new_password: String,
}

/// Change the own password
///
/// Signs out everywhere but here, and a mail tells the owner. Of the devices that are known only those stay whose tokens come along.
/// Ten wrong guesses in a session start pauses, as failed sign-ins do.
#[utoipa::path(
    post, path = "/api/v1/me/password", operation_id = "change_password", tag = "accounts",
    params(("X-Device-Token" = Option<String>, Header, description = "The device tokens that sign-ins gave to this client, with commas between.", nullable = false)),
    request_body(content = PasswordChange, example = json!({"current_password": "correct horse 7", "new_password": "another horse 8"})),
    responses((status = 204, description = "It is changed.")),
    security(("token" = [])),
    extensions(("x-problems" = json!({"422": ["wrong_password"], "429": ["too_many_attempts"]}))),
)]
async fn change_password(
    State(app): State<App>,
    Caller(user): Caller,
    headers: HeaderMap,
    Json(form): Json<PasswordChange>,
) -> Result<StatusCode, Problem> {
    let mut invalid = Invalid::new();
    let new = NewPassword::parse(&mut invalid, "/new_password", form.new_password);
    invalid.check()?;
    let new = new.ok_or_else(Problem::internal)?;

    let current = verified(&app, &user, &headers, form.current_password).await?;
    let asker = Asker::known(user.id, quota::caller_network(&headers));
    let new = app.hasher.hash(new, &asker).await?;
    let mut transaction = service::db::begin(&app.pool).await?;
    if !account::change_password(&mut transaction, user.id, &current, &new).await? {
        return Err(wrong_password());
    }
    session::revoke_others(&mut transaction, &user).await?;
    reset::end_all(&mut transaction, user.id).await?;
    let entry = Entry::new(user, "password.changed", "account", user.id).named("password");
    audit::record(&mut transaction, entry).await?;
    device::forget_others(&mut transaction, user.id, &device::presented(&headers)).await?;
    notification::send_password_changed(&mut transaction, user.id, app.mails).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Not a 401, which would make a client sign in again.
fn wrong_password() -> Problem {
    let (code, detail) = ("wrong_password", "This is not the current password.");
    let error = FieldError::new("/current_password", code, detail);
    Problem::unprocessable(code, detail).with_errors(vec![error])
}
