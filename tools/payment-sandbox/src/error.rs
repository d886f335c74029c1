//! Errors in Stripe's shape: `{"error": {"type", "code", "message", ...}}`.
//! Statuses and codes: <https://docs.stripe.com/api/errors>, <https://docs.stripe.com/error-codes>.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use crate::idempotency::Answer;

#[derive(Clone, Debug)]
pub struct ApiError {
    status: StatusCode,
    /// Boxed, so that a result stays small.
    detail: Box<Detail>,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Detail {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    decline_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    charge: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_intent: Option<Value>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: String) -> Self {
        Self { status, detail: Box::new(Detail { kind, code, message, ..Detail::default() }) }
    }

    /// 400: the request can't be carried out as it is.
    pub fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", Some(code), message.into())
    }

    /// 400 about one parameter.
    pub fn param(code: &'static str, param: impl Into<String>, message: impl Into<String>) -> Self {
        let mut error = Self::invalid(code, message);
        error.detail.param = Some(param.into());
        error
    }

    /// 400: a required parameter is not there.
    pub fn missing(param: &'static str) -> Self {
        Self::param("parameter_missing", param, format!("Missing required param: {param}."))
    }

    /// 404: what the path or `param` names does not exist.
    pub fn not_found(what: &str, param: &'static str, id: &str) -> Self {
        let mut error = Self::param("resource_missing", param, format!("No such {what}: '{id}'"));
        error.status = StatusCode::NOT_FOUND;
        error
    }

    /// 404 or 405: no such path or method.
    pub fn unrecognised(status: StatusCode, method: &str, path: &str) -> Self {
        let message = format!("Unrecognized request URL ({method}: {path}).");
        Self::new(status, "invalid_request_error", None, message)
    }

    /// 413 and other refusals of a request's form, without a code of Stripe's.
    pub fn malformed(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, "invalid_request_error", None, message.into())
    }

    /// 401.
    pub fn unauthorized() -> Self {
        let message = "Give the secret key as 'Authorization: Bearer sk_...'.";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", None, message.into())
    }

    /// 402: the card's issuer said no.
    pub fn declined(
        code: &'static str,
        decline_code: Option<&'static str>,
        message: &str,
        charge: &str,
    ) -> Self {
        let mut error = Self::new(StatusCode::PAYMENT_REQUIRED, "card_error", Some(code), message.into());
        error.detail.decline_code = decline_code;
        error.detail.charge = Some(charge.into());
        error
    }

    /// 409: the first request with this key has not ended.
    pub fn key_in_use(key: &str) -> Self {
        let message = format!("Another request with the Idempotency-Key '{key}' is still in progress.");
        Self::new(StatusCode::CONFLICT, "idempotency_error", Some("idempotency_key_in_use"), message)
    }

    /// 400: the key belongs to another request.
    pub fn key_reused(key: &str) -> Self {
        let message = format!("The Idempotency-Key '{key}' was used with another path or other parameters.");
        Self::new(StatusCode::BAD_REQUEST, "idempotency_error", None, message)
    }

    /// 500 and above: the provider's own fault; the effect may or may not have taken place.
    pub fn server(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, "api_error", None, message.into())
    }

    /// Adds the intent as it is now.
    pub fn with_intent(mut self, intent: Value) -> Self {
        self.detail.payment_intent = Some(intent);
        self
    }
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Self {
        Self::new(error.status, &serde_json::json!({ "error": error.detail }))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        Answer::from(self).into_response()
    }
}
