//! What staff do with mails.

use audit::Entry;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Deserialize;
use service::Problem;
use service::extract::{Body, Path};
use service::idempotency::{self, Answer, Request};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::App;
use super::caller::Staff;
use super::users::absent;
use crate::account;
use crate::notification::{self, Again, Mail};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(send_again))
}

const SEND_AGAIN: &str = "POST /api/v1/users/{id}/mails";

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct MailRequest {
    /// An order of this customer's.
    order_id: Uuid,
}

/// Send a mail again
///
/// The newest one to this customer about an order of theirs, to the address that the account has today and in its
/// language. One that has not left yet is answered as it is. At most three times an hour for an order. With an
/// `Idempotency-Key` it is safe to repeat.
#[utoipa::path(
    post, path = "/api/v1/users/{id}/mails", operation_id = "send_mail_again", tag = "users",
    params(("id" = Uuid, Path, description = "The customer's account."), ("Idempotency-Key" = Option<String>, Header, description = "Of the caller's choice, 1 to 255 visible ASCII characters; kept for a day.", min_length = 1, max_length = 255, pattern = "^[!-~]+$", nullable = false)),
    request_body(content = MailRequest, example = json!({"order_id": "018f5c3e-7a00-7000-8000-000000000002"})),
    responses((status = 201, description = "The mail, which leaves in a moment.", body = Mail, example = json!({"id": "018f5c3e-7a00-7000-8000-000000000003", "order_id": "018f5c3e-7a00-7000-8000-000000000002", "event": "order.shipped.v1", "created_at": "2026-11-23T09:00:00Z"}))),
    security(("token" = ["staff"])),
    extensions(("x-problems" = json!({"409": ["no_mail"], "429": ["too_many_mails"]}))),
)]
async fn send_again(
    Staff(user): Staff,
    State(app): State<App>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    body: Body,
) -> Result<Answer, Problem> {
    let mut connection = app.pool.acquire().await?;
    account::managed(&mut connection, id).await?.ok_or_else(absent)?;
    drop(connection);
    let key = idempotency::key(&headers)?;
    let MailRequest { order_id } = body.json(&["application/json"])?;
    let request = Request::new(user.id, SEND_AGAIN, key, &(id, order_id))?;
    let mut transaction = service::db::begin(&app.pool).await?;
    if let Some(answer) = request.earlier(&mut transaction).await? {
        transaction.commit().await?;
        return Ok(answer);
    }
    if !app.mails {
        return Err(Problem::conflict("no_mail", "This shop sends no mail: no mail server is set up."));
    }
    let Again { mail, queued } =
        notification::send_again(&mut transaction, id, order_id).await?.ok_or_else(absent)?;
    if queued {
        let entry = Entry::new(user, "mail.sent_again", "account", id).field("order", (), order_id);
        audit::record(&mut transaction, entry).await?;
    }
    // A refusal is not kept with the key: what was too early may be allowed later.
    let answer = Answer::created(&mail)?;
    request.answered(&mut transaction, &answer).await?;
    transaction.commit().await?;
    Ok(answer)
}
