//! The paths, and how their requests become commands.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{
    DefaultBodyLimit, FromRequest, FromRequestParts, OriginalUri, Path, RawQuery, Request, State,
};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use crate::commands::{Command, Create};
use crate::error::ApiError;
use crate::idempotency::Key;
use crate::intents::CaptureMethod;
use crate::params::Params;
use crate::sandbox::{Reply, Sandbox, new_id};

/// Far more than any request here needs.
const BODY_LIMIT: usize = 64 * 1024;
/// Stripe's limit on an `Idempotency-Key`.
const KEY_LIMIT: usize = 255;

type Provider = State<Arc<Sandbox>>;
type Result<T> = std::result::Result<T, ApiError>;

/// All paths; those under `/v1` want `secret_key`.
pub fn router(sandbox: Arc<Sandbox>, secret_key: &str) -> Router {
    let secret_key: Arc<str> = secret_key.into();
    Router::new()
        .route("/v1/payment_intents", post(create).get(intents))
        .route("/v1/payment_intents/{id}", get(intent))
        .route("/v1/payment_intents/{id}/confirm", post(confirm))
        .route("/v1/payment_intents/{id}/capture", post(capture))
        .route("/v1/payment_intents/{id}/cancel", post(cancel))
        .route("/v1/refunds", post(refund).get(refunds))
        .route("/v1/refunds/{id}", get(one_refund))
        .route_layer(middleware::from_fn(move |request, next| authorize(secret_key.clone(), request, next)))
        .route("/ledger", get(ledger))
        .route("/livez", get(|| async { "ok\n" }))
        .fallback(async |method, uri| unrecognised(StatusCode::NOT_FOUND, &method, &uri))
        .method_not_allowed_fallback(async |method, uri| {
            unrecognised(StatusCode::METHOD_NOT_ALLOWED, &method, &uri)
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(sandbox)
}

async fn authorize(secret_key: Arc<str>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' '));
    match given {
        Some((scheme, key))
            if scheme.eq_ignore_ascii_case("bearer")
                && bool::from(key.trim().as_bytes().ct_eq(secret_key.as_bytes())) =>
        {
            next.run(request).await
        }
        _ => ApiError::unauthorized().into_response(),
    }
}

fn unrecognised(status: StatusCode, method: &Method, uri: &Uri) -> ApiError {
    ApiError::unrecognised(status, method.as_str(), uri.path())
}

async fn create(State(sandbox): Provider, form: Form) -> Result<Response> {
    let command = |params: &mut Params| {
        let amount = params.amount("amount")?.ok_or_else(|| ApiError::missing("amount"))?;
        let currency = params.currency()?;
        let capture_method = match params.word("capture_method", &["automatic", "manual"])?.as_deref() {
            Some("manual") => CaptureMethod::Manual,
            _ => CaptureMethod::Automatic,
        };
        let payment_method = params.payment_method()?;
        let confirm = params.word("confirm", &["true", "false"])?.as_deref() == Some("true");
        if confirm && payment_method.is_none() {
            return Err(ApiError::missing("payment_method"));
        }
        let metadata = params.metadata()?;
        let (id, charge) = (new_id("pi"), new_id("ch"));
        Ok(Command::Create(Create {
            id,
            charge,
            amount,
            currency,
            capture_method,
            payment_method,
            metadata,
            confirm,
        }))
    };
    form.run(&sandbox, command).await
}

async fn confirm(State(sandbox): Provider, Id(id): Id, form: Form) -> Result<Response> {
    let command = |params: &mut Params| {
        Ok(Command::Confirm { id, charge: new_id("ch"), payment_method: params.payment_method()? })
    };
    form.run(&sandbox, command).await
}

async fn capture(State(sandbox): Provider, Id(id): Id, form: Form) -> Result<Response> {
    let command =
        |params: &mut Params| Ok(Command::Capture { id, amount: params.amount("amount_to_capture")? });
    form.run(&sandbox, command).await
}

async fn cancel(State(sandbox): Provider, Id(id): Id, form: Form) -> Result<Response> {
    let reasons = ["duplicate", "fraudulent", "requested_by_customer", "abandoned"];
    let command = |params: &mut Params| {
        Ok(Command::Cancel { id, reason: params.word("cancellation_reason", &reasons)? })
    };
    form.run(&sandbox, command).await
}

async fn refund(State(sandbox): Provider, form: Form) -> Result<Response> {
    let command = |params: &mut Params| {
        let intent = params.text("payment_intent").ok_or_else(|| ApiError::missing("payment_intent"))?;
        let amount = params.amount("amount")?;
        let reason = params.word("reason", &["duplicate", "fraudulent", "requested_by_customer"])?;
        Ok(Command::Refund { id: new_id("re"), intent, amount, reason, metadata: params.metadata()? })
    };
    form.run(&sandbox, command).await
}

async fn intent(State(sandbox): Provider, Id(id): Id) -> Result<Json<Value>> {
    let found = sandbox.read(|book| book.intent(&id).map(|intent| intent.view())).await?;
    found.map(Json).ok_or_else(|| ApiError::not_found("payment_intent", "intent", &id))
}

/// Newest first, `limit` (default 10) of them after the intent `starting_after`, of those made since `created[gte]`
/// (Unix seconds).
async fn intents(State(sandbox): Provider, RawQuery(query): RawQuery) -> Result<Json<Value>> {
    let mut params = Params::parse(query.unwrap_or_default().as_bytes());
    let after = params.text("starting_after");
    let since = params.time("created[gte]")?.unwrap_or(0);
    let limit = params.limit()?;
    params.end()?;
    let page = sandbox
        .read(|book| {
            // Not up to the first older one: the clock may have been set back.
            let made = book.intents(after.as_deref())?.filter(|intent| intent.created / 1000 >= since);
            Some(made.take(limit + 1).map(|intent| intent.view()).collect())
        })
        .await?;
    let page = page.ok_or_else(|| {
        let message = format!("No such payment_intent: '{}'", after.unwrap_or_default());
        ApiError::param("resource_missing", "starting_after", message)
    })?;
    Ok(list(page, limit, "/v1/payment_intents"))
}

async fn one_refund(State(sandbox): Provider, Id(id): Id) -> Result<Json<Value>> {
    let found = sandbox.read(|book| book.refund(&id).map(|refund| refund.view())).await?;
    found.map(Json).ok_or_else(|| ApiError::not_found("refund", "id", &id))
}

/// Newest first, `limit` (default 10) of them after the refund `starting_after`.
async fn refunds(State(sandbox): Provider, RawQuery(query): RawQuery) -> Result<Json<Value>> {
    let mut params = Params::parse(query.unwrap_or_default().as_bytes());
    let (intent, after) = (params.text("payment_intent"), params.text("starting_after"));
    let limit = params.limit()?;
    params.end()?;
    let (found, page) = sandbox
        .read(|book| {
            let exists = |id: &Option<String>| id.as_ref().is_none_or(|id| book.intent(id).is_some());
            let mut refunds = book.refunds(intent.as_deref());
            if let Some(after) = &after {
                refunds.by_ref().find(|refund| refund.id == *after);
            }
            let page: Vec<Value> = refunds.take(limit + 1).map(|refund| refund.view()).collect();
            (exists(&intent), page)
        })
        .await?;
    if !found {
        return Err(ApiError::not_found("payment_intent", "payment_intent", &intent.unwrap_or_default()));
    }
    Ok(list(page, limit, "/v1/refunds"))
}

/// A page of up to `limit`; one more says that there are more.
fn list(mut page: Vec<Value>, limit: usize, url: &str) -> Json<Value> {
    let has_more = page.len() > limit;
    page.truncate(limit);
    Json(json!({ "object": "list", "data": page, "has_more": has_more, "url": url }))
}

async fn ledger(State(sandbox): Provider, RawQuery(query): RawQuery) -> Result<Json<Value>> {
    let mut params = Params::parse(query.unwrap_or_default().as_bytes());
    let order_id = params.text("order_id");
    params.end()?;
    let items = sandbox.read(|book| book.ledger(order_id.as_deref())).await?;
    Ok(Json(json!({ "items": items })))
}

/// The id in the path.
struct Id(String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(refused) => Err(ApiError::malformed(refused.status(), refused.body_text())),
        }
    }
}

/// A POST's parameters, with its path and key.
struct Form {
    params: Params,
    path: String,
    key: Option<String>,
}

impl Form {
    /// Runs the command that `parse` finds in the parameters; what is left of them is an error.
    async fn run(
        self,
        sandbox: &Arc<Sandbox>,
        parse: impl FnOnce(&mut Params) -> Result<Command>,
    ) -> Result<Response> {
        let mut params = self.params;
        let key = self.key.map(|key| Key::new(key, &self.path, params.all()));
        let command = parse(&mut params)?;
        params.end()?;
        match sandbox.run(command, key).await? {
            Reply::Answer(answer) => Ok(answer.into_response()),
            Reply::Replayed(answer) => Ok(([("Idempotent-Replayed", "true")], answer).into_response()),
            Reply::Lost => Err(sandbox.never_answers().await),
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let key = match request.headers().get("Idempotency-Key").map(|key| key.to_str()) {
            None => None,
            Some(Ok(key)) if (1..=KEY_LIMIT).contains(&key.len()) => Some(key.to_owned()),
            Some(_) => {
                let message = format!("An Idempotency-Key has 1 to {KEY_LIMIT} ASCII characters.");
                return Err(ApiError::malformed(StatusCode::BAD_REQUEST, message));
            }
        };
        let form = request.headers().get(header::CONTENT_TYPE).is_none_or(|kind| {
            kind.to_str().is_ok_and(|kind| kind.starts_with("application/x-www-form-urlencoded"))
        });
        let path = match request.extensions().get::<OriginalUri>() {
            Some(OriginalUri(uri)) => uri.path().to_owned(),
            None => request.uri().path().to_owned(),
        };
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|refused| ApiError::malformed(refused.status(), refused.body_text()))?;
        if !form && !body.is_empty() {
            let message = "Parameters are sent as application/x-www-form-urlencoded.";
            return Err(ApiError::malformed(StatusCode::BAD_REQUEST, message));
        }
        Ok(Self { params: Params::parse(&body), path, key })
    }
}
