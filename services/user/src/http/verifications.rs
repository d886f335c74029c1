//! Verification that an address belongs to its owner.

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
use crate::account::{self, Account, Email};
use crate::mail_requests::Wish;
use crate::password::Asker;
use crate::throttle::Lane;
use crate::token::Token;
use crate::verification::{self, Pending};
use crate::{quota, schema, throttle};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(ask)).routes(routes!(confirm))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct VerificationRequest {
    #[schema(format = Email, max_length = 254)]
    email: String,
}

/// The same for every address.
#[derive(Serialize, ToSchema)]
pub(super) struct VerificationRequested {
    /// Seconds that the token in the mail is good for, if one was sent.
    expires_in: i64,
}

impl VerificationRequested {
    pub fn answer() -> (StatusCode, Json<Self>) {
        (StatusCode::ACCEPTED, Json(Self { expires_in: verification::LIFETIME }))
    }
}

/// Ask once more for the mail that verifies an address
///
/// If somebody has registered with the address within a day and it has no account, another mail with a token goes there: at most
/// three mails within an hour for one client network, and twelve in all. Every address gets the same answer, before the registration is looked for.
#[utoipa::path(
    post, path = "/api/v1/email-verifications", operation_id = "request_email_verification", tag = "accounts",
    request_body(content = VerificationRequest, example = json!({"email": "ada@example.com"})),
    responses((status = 202, description = "If the address waits for it, a mail is on its way.", body = VerificationRequested, example = json!({"expires_in": 86400}))),
    security(()),
    extensions(("x-problems" = json!({"429": ["too_many_mails"]}))),
)]
async fn ask(
    State(app): State<App>,
    headers: HeaderMap,
    Json(form): Json<VerificationRequest>,
) -> Result<(StatusCode, Json<VerificationRequested>), Problem> {
    let mut invalid = Invalid::new();
    let email = Email::parse(&mut invalid, &form.email);
    invalid.check()?;
    let email = email.ok_or_else(Problem::internal)?;
    app.mail_requests.receive(Wish::Verification, email, quota::caller(&headers)).await?;
    Ok(VerificationRequested::answer())
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Verification {
    /// From the mail.
    #[schema(schema_with = schema::text)]
    token: String,
    /// One that was chosen at a registration of this address; of an account that gets another address its current one.
    #[schema(schema_with = schema::text)]
    password: String,
}

/// Verify an address by a token
///
/// Opens the account that somebody registered, or gives an account its new address, which ends its sessions. If the address was
/// registered several times, the password tells which of the newest five it is. The token is good once, and for 24 hours. A wrong
/// token, a used one and an old one get the same answer. After ten wrong passwords with one token there are pauses.
#[utoipa::path(
    post, path = "/api/v1/email-verifications/confirm", operation_id = "confirm_email_verification", tag = "accounts",
    request_body(content = Verification, example = json!({"token": "q0fH0fZ3V1y8w1mQm2b7cA3xk5s9d6e4r2t1u0i8o7p", "password": "correct horse 7"})),
    responses((status = 200, description = "The account: sign in.", body = Account, example = json!({"id": "018f5c3e-7a00-7000-8000-000000000001", "email": "ada@example.com", "name": "Ada Lovelace", "role": "customer", "language": "en", "created_at": "2026-11-23T09:00:00Z"}))),
    security(()),
    extensions(("x-problems" = json!({"409": ["email_taken"], "422": ["invalid_verification_token", "wrong_password"], "429": ["too_many_attempts"]}))),
)]
async fn confirm(
    State(app): State<App>,
    headers: HeaderMap,
    Json(form): Json<Verification>,
) -> Result<Json<Account>, Problem> {
    let token = Token::parse(&form.token).ok_or_else(refused)?;
    // Not held while the password waits for its turn to be hashed. For a wrong token nothing is hashed.
    let mut connection = app.pool.acquire().await?;
    let pending = verification::find(&mut connection, &token).await?.ok_or_else(refused)?;
    let (known, email, choices) = match pending {
        Pending::Opening(email, new) => {
            // Whoever has one token has shown that the address is theirs. The password tells which registration is theirs.
            let others = verification::others(&mut connection, &email, &token).await?;
            let all = std::iter::once(new).chain(others);
            let choices = all.map(|new| (new.password_hash.clone(), Pending::Opening(email.clone(), new)));
            (None, email.clone(), choices.collect::<Vec<_>>())
        }
        Pending::Change { account, .. } => {
            let (email, current) =
                account::own_password(&mut connection, account).await?.ok_or_else(refused)?;
            (Some(account), email, vec![(current, pending)])
        }
    };
    let lane = Lane::token(&token);
    throttle::check(&mut connection, &lane).await?;
    drop(connection);

    let asker = Asker::of(email.key(), quota::caller_network(&headers));
    let mut chosen = None;
    for (current, pending) in choices {
        if app.hasher.verify(form.password.clone(), Some(current.clone()), &asker).await?.is_some() {
            chosen = Some((current, pending));
            break;
        }
    }
    let mut transaction = service::db::begin(&app.pool).await?;
    let Some((current, pending)) = chosen else {
        throttle::failed(&mut transaction, &lane, known).await?;
        transaction.commit().await?;
        let (code, detail) = ("wrong_password", "This is not the password that goes with this token.");
        let error = FieldError::new("/password", code, detail);
        return Err(Problem::unprocessable(code, detail).with_errors(vec![error]));
    };
    throttle::succeeded(&mut transaction, &lane).await?;
    let account = verification::redeem(&mut transaction, &token, &pending, &current).await?;
    let account = account.ok_or_else(refused)?;
    transaction.commit().await?;
    app.outbox.wake();
    Ok(Json(account))
}

fn refused() -> Problem {
    let detail = "This token is not good: it is wrong, was used, or is older than 24 hours.";
    let code = "invalid_verification_token";
    Problem::unprocessable(code, detail).with_errors(vec![FieldError::new("/token", code, detail)])
}
