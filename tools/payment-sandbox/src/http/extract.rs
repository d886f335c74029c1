//! What handlers take of a request.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, OriginalUri, Path, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Result;
use crate::commands::Command;
use crate::error::ApiError;
use crate::idempotency::Key;
use crate::params::Params;
use crate::sandbox::{Asked, Reply, Sandbox};
use crate::version::{self, Version};

/// Stripe's limit on an `Idempotency-Key`.
const KEY_LIMIT: usize = 255;

/// The id in the path.
pub struct Id(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(refused) => Err(ApiError::malformed(refused.status(), refused.body_text())),
        }
    }
}

/// A GET's parameters.
pub struct Query(pub Params);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        Ok(Self(Params::parse(parts.uri.query().unwrap_or_default().as_bytes())))
    }
}

/// A POST's parameters, with its path, key and version.
pub struct Form {
    params: Params,
    path: String,
    key: Option<String>,
    pub version: Version,
    /// What this server calls itself by, as its client did.
    pub here: String,
}

impl Form {
    /// Runs the command that `parse` finds in the parameters; what is left of them is an error. `expandable` is what
    /// the answer can hold in full.
    pub async fn run(
        self,
        sandbox: &Arc<Sandbox>,
        expandable: &str,
        parse: impl FnOnce(&mut Params) -> Result<Command>,
    ) -> Result<Response> {
        let mut params = self.params;
        let key = self.key.map(|key| Key::new(key, &self.path, params.all()));
        let command = parse(&mut params)?;
        let expand = params.expand(expandable)?;
        params.end()?;
        match sandbox.run(Asked { command, expand }, key).await? {
            Reply::Answer(answer) => Ok(answer.into_response()),
            Reply::Replayed(answer) => Ok(([("Idempotent-Replayed", "true")], answer).into_response()),
            Reply::Lost => Err(sandbox.never_answers().await),
        }
    }
}

impl Form {
    /// The only parameter, one of these words.
    pub fn only(self, name: &'static str, words: &[&str]) -> Result<String> {
        let mut params = self.params;
        let word = params.word(name, words)?.ok_or_else(|| ApiError::missing(name))?;
        params.end()?;
        Ok(word)
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
        if request.uri().query().is_some_and(|query| !query.is_empty()) {
            let message = "Parameters of a POST come in its body.";
            return Err(ApiError::malformed(StatusCode::BAD_REQUEST, message));
        }
        let version = match request.extensions().get::<Version>() {
            Some(version) => *version,
            None => version::DEFAULT
                .parse()
                .map_err(|error: String| ApiError::malformed(StatusCode::BAD_REQUEST, error))?,
        };
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let here = format!("http://{}", host.unwrap_or("localhost"));
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|refused| ApiError::malformed(refused.status(), refused.body_text()))?;
        if !form && !body.is_empty() {
            let message = "Parameters are sent as application/x-www-form-urlencoded.";
            return Err(ApiError::malformed(StatusCode::BAD_REQUEST, message));
        }
        Ok(Self { params: Params::parse(&body), path, key, version, here })
    }
}
