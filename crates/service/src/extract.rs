//! Axum's extractors, with problem documents for what they refuse.

mod fit;

use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use fit::{fit, fit_with_texts, not_null, shape};

use crate::{FieldError, Problem};
use fit::escape;

/// A JSON body: 415, 400, 413 or 422 when it is not one that fits `T`.
/// As an answer it is axum's own.
#[derive(Clone, Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Body::from_request(request, state).await?.json(&["application/json"]).map(Self)
    }
}

impl<T: Serialize> axum::response::IntoResponse for Json<T> {
    fn into_response(self) -> axum::response::Response {
        axum::Json(self.0).into_response()
    }
}

/// A body that is read but not yet parsed, for handlers that check something else first (404 comes before
/// 422).
#[derive(Debug)]
pub struct Body {
    content_type: Option<String>,
    bytes: Result<Bytes, Problem>,
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let coded = |value: &header::HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
        if request.headers().get_all(header::CONTENT_ENCODING).iter().any(coded) {
            let detail = "Send the body as it is, without a Content-Encoding such as gzip.";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
        }
        let content_type = media_type(request.headers());
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection {
            BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "payload_too_large",
                "The body is longer than 1 MiB.",
            ),
            _ => Problem::bad_request("malformed_body", "The body could not be read."),
        });
        Ok(Self { content_type, bytes })
    }
}

impl Body {
    /// The body as it was sent: 413 when it is too long, 400 when it could not be read.
    pub fn bytes(&self) -> Result<&Bytes, Problem> {
        self.bytes.as_ref().map_err(Problem::clone)
    }

    /// The body as `T`: 415 when its media type is none of `accepted`, 413 when
    /// it is too long, 400 when it is not JSON, 422 when it does not fit.
    pub fn json<T: DeserializeOwned>(self, accepted: &[&str]) -> Result<T, Problem> {
        self.json_with_texts(accepted, &[])
    }

    /// As [`Self::json`], with texts of several lines: see [`fit_with_texts`].
    pub fn json_with_texts<T: DeserializeOwned>(
        self,
        accepted: &[&str],
        texts: &[&str],
    ) -> Result<T, Problem> {
        if self.content_type.is_none() {
            return Err(unsupported(accepted));
        }
        fit_with_texts(self.value(accepted)?, texts)
    }

    /// The body as JSON of any shape, with any characters, also when it comes without a media type.
    pub fn value(self, accepted: &[&str]) -> Result<Value, Problem> {
        if self.content_type.is_some_and(|given| !accepted.contains(&given.as_str())) {
            return Err(unsupported(accepted));
        }
        serde_json::from_slice(&self.bytes?).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            Problem::bad_request("malformed_json", format!("The body is not JSON: see {place}."))
        })
    }
}

fn unsupported(accepted: &[&str]) -> Problem {
    let detail = format!("Send Content-Type: {}.", accepted.join(" or "));
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
}

/// The media type of `Content-Type`, without parameters, in lower case.
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// A query string: 422 when it doesn't fit `T`. Take fields as
/// `Option<String>` and parse them, so that messages name the parameter. In `q`, what somebody searches for, control
/// characters are blanks; anywhere else they are refused.
#[derive(Clone, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let invalid = |name: &str, detail: &str| {
            Problem::invalid(vec![FieldError::new(format!("/{}", escape(name)), "invalid_value", detail)])
        };
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|_| invalid("", "The query string can't be read."))?;
        let mut fields = serde_json::Map::new();
        for (name, mut value) in pairs.0 {
            // What people type or paste, in which nothing is an error.
            if name == "q" {
                value = value.replace(char::is_control, " ");
            }
            if value.chars().any(char::is_control) {
                return Err(invalid(&name, "Control characters are not accepted."));
            }
            if fields.contains_key(&name) {
                return Err(invalid(&name, "Given more than once."));
            }
            fields.insert(name, Value::String(value));
        }
        fit(Value::Object(fields)).map(Self)
    }
}

/// A path's parameters: 404 when they don't fit, as no such thing can exist.
#[derive(Clone, Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let absent = || Problem::not_found("There is nothing at this address.");
        if parts.uri.path().to_ascii_lowercase().contains("%00") {
            return Err(absent());
        }
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|_| absent())
    }
}
