//! Errors in Stripe's shape: `{"error": {"type", "code", "message", ...}}`.
//! Statuses and codes: <https://docs.stripe.com/api/errors>, <https://docs.stripe.com/error-codes>.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use crate::cards::Decline;
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

    /// 400 about the value of one parameter. Stripe names no code for most of these.
    pub fn bad(param: impl Into<String>, message: impl Into<String>) -> Self {
        let mut error = Self::malformed(StatusCode::BAD_REQUEST, message);
        error.detail.param = Some(param.into());
        error
    }

    /// 400: no such parameter here, or not in this version.
    pub fn unknown(param: &str) -> Self {
        Self::param("parameter_unknown", param, format!("Received unknown parameter: {param}"))
    }

    /// 400: of these parameters only one may come.
    pub fn exclusive(params: &str) -> Self {
        Self::invalid(
            "parameters_exclusive",
            format!("You may only specify one of these parameters: {params}."),
        )
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

    /// 401: no key, or another one.
    pub fn unauthorized(given: Option<&str>) -> Self {
        let message = match given {
            None => "You did not provide an API key. Give it as 'Authorization: Bearer YOUR_SECRET_KEY'."
                .to_owned(),
            // Only so much that one can tell which it was.
            Some(key) => format!("Invalid API Key provided: {}****", key.chars().take(8).collect::<String>()),
        };
        Self::malformed(StatusCode::UNAUTHORIZED, message)
    }

    /// 403: the key is not another account's.
    pub fn other_account(account: &str) -> Self {
        let message = format!("The provided key does not have access to account '{account}'.");
        let mut error = Self::invalid("account_invalid", message);
        error.status = StatusCode::FORBIDDEN;
        error
    }

    /// 402: the card's issuer said no.
    pub fn declined(decline: Decline, charge: &str) -> Self {
        let (code, message) = (Some(decline.code), decline.message.to_owned());
        let mut error = Self::new(StatusCode::PAYMENT_REQUIRED, "card_error", code, message);
        error.detail.decline_code = decline.decline_code;
        error.detail.charge = Some(charge.into());
        error
    }

    /// 409: the first request with this key has not ended.
    pub fn key_in_use(key: &str) -> Self {
        let message = format!(
            "There is currently another in-progress request using this Idempotent Key: {key}. Try again later."
        );
        Self::new(StatusCode::CONFLICT, "idempotency_error", Some("idempotency_key_in_use"), message)
    }

    /// 400: the key belongs to another request.
    pub fn key_reused(key: &str) -> Self {
        let message = format!(
            "Keys for idempotent requests can only be used with the same endpoint and parameters they were first used \
             with. Try using a key other than '{key}' if you meant to execute a different request."
        );
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
