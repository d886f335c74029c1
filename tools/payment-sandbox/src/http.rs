//! The paths, and how their requests become commands.

mod disputes;
mod events;
mod extract;
mod intents;
mod pages;
mod paging;
mod refunds;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, RawQuery, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use crate::error::ApiError;
use crate::params::Params;
use crate::sandbox::{Sandbox, new_id};
use crate::version::Version;

/// Far more than any request here needs.
const BODY_LIMIT: usize = 64 * 1024;

type Provider = State<Arc<Sandbox>>;
type Result<T> = std::result::Result<T, ApiError>;

/// All paths; those under `/v1` want `secret_key`, and take the account's version unless they name another.
pub fn router(sandbox: Arc<Sandbox>, secret_key: &str, version: Version) -> Router {
    let secret_key: Arc<str> = secret_key.into();
    Router::new()
        .route("/v1/payment_intents", post(intents::create).get(intents::list))
        .route("/v1/payment_intents/{id}", get(intents::one))
        .route("/v1/payment_intents/{id}/confirm", post(intents::confirm))
        .route("/v1/payment_intents/{id}/capture", post(intents::capture))
        .route("/v1/payment_intents/{id}/cancel", post(intents::cancel))
        .route("/v1/refunds", post(refunds::create).get(refunds::list))
        .route("/v1/refunds/{id}", get(refunds::one))
        .route("/v1/disputes", get(disputes::list))
        .route("/v1/disputes/{id}", get(disputes::one).post(disputes::submit))
        .route("/v1/disputes/{id}/close", post(disputes::close))
        .route("/v1/events", get(events::list))
        .route("/v1/events/{id}", get(events::one))
        .route_layer(middleware::from_fn(move |request, next| {
            admit(secret_key.clone(), version, request, next)
        }))
        .route("/3d_secure/{intent}/{action}", get(pages::show).post(pages::act))
        .route("/ledger", get(ledger))
        .route("/livez", get(|| async { "ok\n" }))
        .fallback(async |method, uri| unrecognised(StatusCode::NOT_FOUND, &method, &uri))
        .method_not_allowed_fallback(async |method, uri| {
            unrecognised(StatusCode::METHOD_NOT_ALLOWED, &method, &uri)
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(sandbox)
}

/// Lets requests with the key and a version that is known in; answers name the version, and have an id.
async fn admit(secret_key: Arc<str>, account: Version, mut request: Request, next: Next) -> Response {
    let id = new_id("req");
    let (version, mut response) = match version_of(&secret_key, account, &request) {
        Ok(version) => {
            request.extensions_mut().insert(version);
            (version, next.run(request).await)
        }
        Err(refused) => (account, refused.into_response()),
    };
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("stripe-version"), HeaderValue::from_static(version.name()));
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(HeaderName::from_static("request-id"), id);
    }
    response
}

fn version_of(secret_key: &str, account: Version, request: &Request) -> Result<Version> {
    let text = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
    let given = text(header::AUTHORIZATION.as_str()).and_then(|value| value.split_once(' '));
    let key = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, key)| key.trim());
    let key = key.filter(|key| !key.is_empty()).ok_or_else(|| ApiError::unauthorized(None))?;
    if !bool::from(key.as_bytes().ct_eq(secret_key.as_bytes())) {
        return Err(ApiError::unauthorized(Some(key)));
    }
    if let Some(other) = text("Stripe-Account").or_else(|| text("Stripe-Context")) {
        return Err(ApiError::other_account(other));
    }
    match text("Stripe-Version") {
        None => Ok(account),
        Some(name) => {
            name.parse().map_err(|error: String| ApiError::malformed(StatusCode::BAD_REQUEST, error))
        }
    }
}

fn unrecognised(status: StatusCode, method: &Method, uri: &Uri) -> ApiError {
    ApiError::unrecognised(status, method.as_str(), uri.path())
}

async fn ledger(State(sandbox): Provider, RawQuery(query): RawQuery) -> Result<Json<Value>> {
    let mut params = Params::parse(query.unwrap_or_default().as_bytes());
    let order_id = params.text("order_id")?;
    params.end()?;
    let items = sandbox.read(|book| book.ledger(order_id.as_deref())).await?;
    Ok(Json(json!({ "items": items })))
}
