//! Errors as clients see them: RFC 9457 problem documents.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// One thing wrong with one field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// Where: a JSON pointer (RFC 6901) into the body, or `/name` of a query parameter.
    pub pointer: String,
    pub code: String,
    pub detail: String,
}

/// Errors that a problem document lists.
pub(crate) const MOST_ERRORS: usize = 100;
/// Characters of a pointer or a detail: names are the sender's, and an answer need not be as
/// long as the request.
const LONGEST: usize = 200;

impl FieldError {
    /// What is longer than 200 characters is cut.
    pub fn new(pointer: impl Into<String>, code: &str, detail: impl Into<String>) -> Self {
        Self { pointer: cut(pointer.into()), code: code.to_owned(), detail: cut(detail.into()) }
    }
}

fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
        text.shrink_to_fit();
    }
    text
}

/// A problem document. `code` is stable; `detail` is for people and says
/// nothing of what is inside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    #[serde(rename = "type")]
    kind: String,
    pub title: String,
    #[serde(with = "status_number")]
    pub status: StatusCode,
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    pub code: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// More that a program may want to know (RFC 9457, section 3.2).
    #[serde(flatten)]
    extensions: serde_json::Map<String, serde_json::Value>,
    /// Seconds; sent as `Retry-After`.
    #[serde(skip)]
    retry_after: Option<u32>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status,
            detail: detail.into(),
            instance: None,
            code: code.to_owned(),
            errors: Vec::new(),
            trace_id: None,
            extensions: serde_json::Map::new(),
            retry_after: None,
        }
    }

    pub fn bad_request(code: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub fn unauthorized(code: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, detail)
    }

    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub fn conflict(code: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 422 with a code of its own.
    pub fn unprocessable(code: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// 422 `validation_failed`, naming each bad field.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let problem = Self::unprocessable("validation_failed", "Some values are not acceptable; see errors.");
        problem.with_errors(errors)
    }

    /// 503: try again in a second.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", detail).with_retry_after(1)
    }

    /// 503: it may have been done, or may be done in a while. Repeated with its key, if it had one, it says which.
    pub fn outcome_unknown(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown", detail).with_retry_after(1)
    }

    /// 500. What went wrong belongs into the log, not in here.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Something went wrong on our side.")
    }

    /// The first hundred of them.
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self.errors.truncate(MOST_ERRORS);
        self
    }

    pub fn with_extension(mut self, name: &str, value: serde_json::Value) -> Self {
        self.extensions.insert(name.to_owned(), value);
        self
    }

    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

/// A database error at the boundary: busy or away is 503, and so is a COMMIT without an answer, with a code of its own.
/// Anything else is logged here, once, and becomes a 500.
impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        if crate::db::kind(&error) == crate::db::Kind::OutcomeUnknown {
            tracing::warn!(error = %error, "db.outcome_unknown");
            return Self::outcome_unknown(
                "The database did not say whether the change was made. Repeat the request with the same \
                 Idempotency-Key; without a key, look whether it was made before you repeat it.",
            );
        }
        if crate::db::is_transient(&error) {
            tracing::warn!(error = %error, "db.unavailable");
            return Self::unavailable("The service is busy or its database is away; try again.");
        }
        tracing::error!(error = %error, "db.error");
        Self::internal()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = match self.code.as_str() {
                "invalid_token" => r#"Bearer realm="dockside", error="invalid_token""#,
                _ => r#"Bearer realm="dockside""#,
            };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        // An outer layer knows the path and the trace, and writes them in.
        response.extensions_mut().insert(self);
        response
    }
}

mod status_number {
    use axum::http::StatusCode;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(status.as_u16())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StatusCode, D::Error> {
        StatusCode::from_u16(u16::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
