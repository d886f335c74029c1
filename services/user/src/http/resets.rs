//! A new password for customers who have forgotten the old one.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use service::extract::Json;
use service::validate::Invalid;
use service::{FieldError, Problem};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use crate::account::Email;
use crate::mail_requests::Wish;
use crate::password::{Asker, NewPassword};
use crate::token::Token;
use crate::{quota, reset, schema};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(ask)).routes(routes!(confirm))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ResetRequest {
    #[schema(format = Email, max_length = 254)]
    email: String,
}

/// The same for every address.
#[derive(Serialize, ToSchema)]
struct ResetRequested {
    /// Seconds that the token in the mail is good for, if one was sent.
    expires_in: i64,
}

/// Ask for a new password
///
/// If the address has an account, a mail with a token goes there: at most three within an hour, and the newest token alone
/// is good. A known and an unknown address get the same answer, before the account is looked for. A shop without a mail server sends
/// nothing.
#[utoipa::path(
    post, path = "/api/v1/password-resets", operation_id = "request_password_reset", tag = "accounts",
    request_body(content = ResetRequest, example = json!({"email": "ada@example.com"})),
    responses((status = 202, description = "If the address has an account, a mail is on its way.", body = ResetRequested, example = json!({"expires_in": 3600}))),
    security(()),
    extensions(("x-problems" = json!({"429": ["too_many_resets"]}))),
)]
async fn ask(
    State(app): State<App>,
    headers: HeaderMap,
    Json(form): Json<ResetRequest>,
) -> Result<(StatusCode, Json<ResetRequested>), Problem> {
    let mut invalid = Invalid::new();
    let email = Email::parse(&mut invalid, &form.email);
    invalid.check()?;
    let email = email.ok_or_else(Problem::internal)?;
    app.mail_requests.receive(Wish::NewPassword, email, quota::caller(&headers)).await?;
    Ok((StatusCode::ACCEPTED, Json(ResetRequested { expires_in: reset::LIFETIME })))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewPasswordByToken {
    /// From the mail.
    #[schema(schema_with = schema::text)]
    token: String,
    #[schema(schema_with = schema::new_password)]
    password: String,
}

/// Set a new password by a token
///
/// The token of the newest mail, once, and within an hour. All sessions of the account end, and a mail tells its owner. A
/// wrong token, a used one and an old one get the same answer.
#[utoipa::path(
    post, path = "/api/v1/password-resets/confirm", operation_id = "confirm_password_reset", tag = "accounts",
    request_body(content = NewPasswordByToken, example = json!({"token": "q0fH0fZ3V1y8w1mQm2b7cA3xk5s9d6e4r2t1u0i8o7p", "password": "another horse 8"})),
    responses((status = 204, description = "It is set: sign in with it.")),
    security(()),
    extensions(("x-problems" = json!({"422": ["invalid_reset_token"]}))),
)]
async fn confirm(
    State(app): State<App>,
    headers: HeaderMap,
    Json(form): Json<NewPasswordByToken>,
) -> Result<StatusCode, Problem> {
    let mut invalid = Invalid::new();
    let new = NewPassword::parse(&mut invalid, "/password", form.password);
    invalid.check()?;
    let new = new.ok_or_else(Problem::internal)?;
    let token = Token::parse(&form.token).ok_or_else(refused)?;

    // Not held while the password waits for its turn to be hashed. For a wrong token nothing is hashed.
    let mut connection = app.pool.acquire().await?;
    let account = reset::account_of(&mut connection, &token).await?.ok_or_else(refused)?;
    drop(connection);
    let hash = app.hasher.hash(new, &Asker::of(account.to_string(), quota::caller_network(&headers))).await?;
    let mut transaction = service::db::begin(&app.pool).await?;
    if !reset::redeem(&mut transaction, account, &token, &hash, app.mails).await? {
        return Err(refused());
    }
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn refused() -> Problem {
    let detail =
        "This token is not good: it is wrong, was used, is older than an hour, or there is a newer one.";
    let code = "invalid_reset_token";
    Problem::unprocessable(code, detail).with_errors(vec![FieldError::new("/token", code, detail)])
}
