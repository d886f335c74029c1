//! Calls to the shop's API. Each has a deadline and a size limit, names the visitor, and ends with the wanted
//! answer or as one of [`Refused`].

pub mod types;

use std::time::Duration;

use anyhow::Context;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use bytes::{Bytes, BytesMut};
use opentelemetry::propagation::Injector;
use reqwest::redirect::Policy;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};
use url::Url;

use self::types::Problem;
use crate::config::Config;
use crate::visitor::Visitor;

const READ_DEADLINE: Duration = Duration::from_secs(3);
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Longest answer that is read, in bytes: a hundred products with all their texts fit.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;

/// Why there is no answer as it was asked for.
#[derive(Clone, Debug)]
pub enum Refused {
    /// Nobody is signed in, or the session has ended.
    SignedOut,
    Problem(Box<Problem>),
    /// What was asked for is at another address.
    Moved(String),
    /// No answer in time, or one that leaves the outcome open.
    Away,
}

impl Refused {
    pub fn code(&self) -> &str {
        match self {
            Self::Problem(problem) => &problem.code,
            Self::SignedOut | Self::Moved(_) | Self::Away => "",
        }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Problem(problem) if problem.status == 404)
    }
}

/// The one client of the process, and where the API is.
pub struct Client {
    http: reqwest::Client,
    /// For files, whose answer comes when all of them is done.
    patient: reqwest::Client,
    base: Url,
    key: HeaderValue,
}

impl Client {
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let mut key =
            HeaderValue::from_str(&config.storefront_key).context("STOREFRONT_KEY is no header's value")?;
        key.set_sensitive(true);
        let base = config.api_url.join("/api/v1/").context("API_URL is no address to build on")?;
        let client = || {
            reqwest::Client::builder()
                .connect_timeout(Duration::from_secs(2))
                .pool_idle_timeout(Duration::from_secs(50))
                .redirect(Policy::none())
        };
        // For streams: the API sends a heartbeat each 15 seconds. It counts from a call's beginning to its answer, too.
        // Other calls have a deadline each.
        let http = client().read_timeout(Duration::from_secs(45)).build()?;
        Ok(Self { http, patient: client().build()?, base, key })
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            // `..` would be a step and not a name.
            segments
                .pop_if_empty()
                .extend(path.iter().map(|part| if part.starts_with('.') { "-" } else { part }));
        }
        url
    }
}

/// A visitor's call to be.
pub struct Call<'v> {
    visitor: &'v Visitor,
    signed: bool,
    patient: bool,
    /// When the page that it is for has to be there.
    until: Option<Instant>,
    request: reqwest::RequestBuilder,
}

impl<'v> Call<'v> {
    pub fn new(visitor: &'v Visitor, method: Method, path: &[&str]) -> Self {
        let client = &visitor.app().client;
        let deadline = if method == Method::GET { READ_DEADLINE } else { WRITE_DEADLINE };
        let request = client.http.request(method, client.url(path)).timeout(deadline);
        let until = Some(visitor.until());
        Self { visitor, signed: false, patient: false, until, request: introduce(visitor, request) }
    }

    /// A stream: it has no deadline of its own.
    pub fn stream(visitor: &'v Visitor, path: &[&str]) -> Self {
        let client = &visitor.app().client;
        let request = introduce(visitor, client.http.get(client.url(path)));
        Self { visitor, signed: true, patient: false, until: None, request }
    }

    /// With the visitor's access token; without a session nothing is sent.
    pub fn signed(mut self) -> Self {
        self.signed = true;
        self
    }

    /// With the deadline of what only reads, but not that of the page: the answer is for others, too.
    pub fn for_all(mut self) -> Self {
        self.until = None;
        self.request = self.request.timeout(READ_DEADLINE);
        self
    }

    pub fn query(mut self, query: &(impl Serialize + ?Sized)) -> Self {
        self.request = self.request.query(query);
        self
    }

    pub fn json(mut self, body: &impl Serialize) -> Self {
        self.request = self.request.json(body);
        self
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// A body as it comes, by small parts. It is sent once: a session that ends meanwhile ends the call.
    pub fn stream_of(
        mut self,
        media_type: &str,
        body: impl futures_util::TryStream<Ok = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static,
        deadline: Duration,
    ) -> Self {
        (self.patient, self.until) = (true, None);
        self.request = self.request.timeout(deadline).body(reqwest::Body::wrap_stream(body));
        self.header("content-type", media_type)
    }

    /// Makes the call safe to repeat.
    pub fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    fn http(&self) -> &'v reqwest::Client {
        let client = &self.visitor.app().client;
        if self.patient { &client.patient } else { &client.http }
    }

    /// The answer, whatever it is, once the session has been renewed where needed. It knows no page's
    /// deadline.
    pub async fn answer(self) -> Result<reqwest::Response, Refused> {
        let http = self.http();
        if !self.signed {
            return sent(http, self.request).await;
        }
        let token = self.visitor.access_token(None).await?;
        let again = self.request.try_clone();
        let answer = sent(http, self.request.bearer_auth(&token)).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        // Its time had come, or the API has other keys now.
        let token = self.visitor.access_token(Some(&token)).await?;
        let Some(again) = again else { return Err(Refused::SignedOut) };
        let answer = sent(http, again.bearer_auth(&token)).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            self.visitor.forget_session();
            return Err(Refused::SignedOut);
        }
        Ok(answer)
    }

    pub async fn get<T: DeserializeOwned>(self) -> Result<T, Refused> {
        understood(&self.done().await?)
    }

    /// With the version that a change has to name.
    pub async fn get_versioned<T: DeserializeOwned>(self) -> Result<(T, String), Refused> {
        let until = self.until;
        let answered = async {
            let answer = self.answer().await?;
            let tag = answer.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
            let tag = tag.unwrap_or_default().to_owned();
            Ok((understood(&good(answer).await?)?, tag))
        };
        within(until, answered).await
    }

    /// For an answer that is of no interest, once it is a good one.
    pub async fn done(self) -> Result<Bytes, Refused> {
        let (visitor, patient) = (self.visitor, self.patient);
        let done = within(self.until, async { good(self.answer().await?).await }).await;
        if patient {
            visitor.begin_anew();
        }
        done
    }

    /// As [`Self::get`], never with a token.
    pub async fn get_unsigned<T: DeserializeOwned>(self) -> Result<T, Refused> {
        let (until, http) = (self.until, self.http());
        understood(&within(until, async { good(sent(http, self.request).await?).await }).await?)
    }
}

/// An answer after the page's deadline is as good as none.
async fn within<T>(
    until: Option<Instant>,
    answer: impl Future<Output = Result<T, Refused>>,
) -> Result<T, Refused> {
    let Some(until) = until else { return answer.await };
    timeout_at(until, answer).await.unwrap_or_else(|_| {
        tracing::warn!("page.late");
        Err(Refused::Away)
    })
}

fn understood<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| {
        tracing::error!(%error, "api.answer_not_understood");
        Refused::Away
    })
}

async fn good(answer: reqwest::Response) -> Result<Bytes, Refused> {
    let status = answer.status();
    let path = answer.url().path().to_owned();
    let location = answer.headers().get(header::LOCATION).and_then(|to| to.to_str().ok()).map(str::to_owned);
    let body = read(answer).await?;
    if status.is_success() {
        return Ok(body);
    }
    if let (true, Some(location)) = (status.is_redirection(), location) {
        return Err(Refused::Moved(location));
    }
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) if status.is_client_error() => Err(Refused::Problem(Box::new(problem))),
        _ => {
            tracing::warn!(status = status.as_u16(), path, "api.away");
            Err(Refused::Away)
        }
    }
}

/// What each call says: which visitor it is for, in which language, and as part of which request.
fn introduce(visitor: &Visitor, mut request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
    struct Headers<'a>(&'a mut reqwest::header::HeaderMap);
    impl Injector for Headers<'_> {
        fn set(&mut self, key: &str, value: String) {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
                self.0.insert(name, value);
            }
        }
    }
    let mut headers = reqwest::header::HeaderMap::new();
    service::telemetry::inject_trace(&mut Headers(&mut headers));
    headers.insert("x-storefront-key", visitor.app().client.key.clone());
    headers.insert(header::ACCEPT_LANGUAGE, HeaderValue::from_static(visitor.lang().code()));
    for (name, value) in [
        ("x-visitor-address", visitor.address()),
        ("x-request-id", visitor.request_id()),
        ("user-agent", visitor.user_agent()),
    ] {
        if let Some(value) = value {
            headers.insert(name, value.clone());
        }
    }
    request = request.headers(headers);
    request
}

async fn sent(
    http: &reqwest::Client,
    request: reqwest::RequestBuilder,
) -> Result<reqwest::Response, Refused> {
    let answer = async { http.execute(request.build()?).await };
    answer.await.map_err(|error: reqwest::Error| {
        tracing::warn!(error = %error.without_url(), "api.no_answer");
        Refused::Away
    })
}

async fn read(mut answer: reqwest::Response) -> Result<Bytes, Refused> {
    let mut body = BytesMut::new();
    loop {
        match answer.chunk().await {
            Ok(None) => return Ok(body.freeze()),
            Ok(Some(chunk)) if body.len() + chunk.len() <= ANSWER_LIMIT => body.extend_from_slice(&chunk),
            Ok(Some(_)) => {
                tracing::error!("api.answer_too_long");
                return Err(Refused::Away);
            }
            Err(error) => {
                tracing::warn!(error = %error.without_url(), "api.answer_cut");
                return Err(Refused::Away);
            }
        }
    }
}
