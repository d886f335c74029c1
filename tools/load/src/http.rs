//! An HTTP/1.1 client with kept connections, in which every request has a deadline and every failure a name.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, RETRY_AFTER};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::Refusal;

/// The edge closes a connection that was idle for 65 s; one that is closed earlier here is never used too late.
const IDLE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(5);
/// No answer of a shop is larger.
const LARGEST: usize = 8 << 20;

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Speaks to one address.
pub struct Client {
    pooled: Pooled<HttpConnector, Full<Bytes>>,
    /// `http://`, and the address that the name stood for at the start: looking it up again would cost time in each
    /// new connection.
    base: String,
    host: HeaderValue,
    timeout: Duration,
}

/// A request, as far as it differs from another.
pub struct Call<'a> {
    pub method: Method,
    /// From the first slash on, with the query.
    pub path: &'a str,
    /// `Bearer ...`.
    pub token: Option<HeaderValue>,
    pub key: Option<&'a str>,
    /// JSON.
    pub body: Option<String>,
}

impl<'a> Call<'a> {
    pub fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, token: None, key: None, body: None }
    }

    pub fn post(path: &'a str, body: String) -> Self {
        Self { method: Method::POST, body: Some(body), ..Self::get(path) }
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
    /// What `Retry-After` asks for.
    pub retry_after: Option<Duration>,
}

/// Why there was no whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    TimedOut,
    NotConnected,
    ConnectionLost,
    TooLarge,
    /// The request could not be made: a path that is none.
    NoRequest,
}

impl Failure {
    /// As the report counts it.
    pub fn name(self) -> &'static str {
        match self {
            Failure::TimedOut => "timed_out",
            Failure::NotConnected => "not_connected",
            Failure::ConnectionLost => "connection_lost",
            Failure::TooLarge => "answer_too_large",
            Failure::NoRequest => "no_request",
        }
    }
}

impl Client {
    /// For an address as `http://localhost:8080`; `timeout` is for each request with its whole answer.
    ///
    /// # Errors
    /// when it is no address of HTTP, or its name stands for nothing.
    pub async fn new(url: &str, timeout: Duration) -> Result<Self, Refusal> {
        let uri: Uri = url.parse().map_err(|e| {
            Refusal(format!("{url} is no address ({e}): one looks like http://localhost:8080"))
        })?;
        let authority = match (uri.scheme(), uri.authority()) {
            (Some(scheme), Some(authority)) if *scheme == Scheme::HTTP => authority.clone(),
            (Some(scheme), _) if *scheme == Scheme::HTTPS => {
                return Err(Refusal(format!(
                    "{url}: TLS is not spoken here, as its work would be measured too; take the service's own address"
                )));
            }
            _ => return Err(Refusal(format!("{url} is no address: one looks like http://localhost:8080"))),
        };
        if uri.path() != "/" || uri.query().is_some() {
            return Err(Refusal(format!("{url} has a path: the shop's address ends before it")));
        }
        let address = resolve(&authority).await?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        let pooled = Pooled::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        let host = HeaderValue::from_str(authority.as_str())
            .map_err(|_| Refusal(format!("{url} is no address: one looks like http://localhost:8080")))?;
        Ok(Self { pooled, base: format!("http://{address}"), host, timeout })
    }

    /// Sends a request and reads its whole answer.
    ///
    /// # Errors
    /// when there is no whole answer in time.
    pub async fn send(&self, call: Call<'_>) -> Result<Answer, Failure> {
        let whole = async {
            let response = self.begin(call, "application/json").await?;
            let status = response.status();
            let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let retry_after = retry_after.and_then(|value| value.parse().ok()).map(Duration::from_secs);
            let body = Limited::new(response.into_body(), LARGEST).collect().await.map_err(|error| {
                match error.downcast_ref::<http_body_util::LengthLimitError>() {
                    Some(_) => Failure::TooLarge,
                    None => Failure::ConnectionLost,
                }
            })?;
            Ok(Answer { status, body: body.to_bytes(), retry_after })
        };
        tokio::time::timeout(self.timeout, whole).await.unwrap_or(Err(Failure::TimedOut))
    }

    /// Sends a request and reads the head of its answer; the body may be a stream of events.
    ///
    /// # Errors
    /// when there is no such head in time.
    pub async fn stream(&self, call: Call<'_>) -> Result<Response<Incoming>, Failure> {
        let head = self.begin(call, "text/event-stream");
        tokio::time::timeout(self.timeout, head).await.unwrap_or(Err(Failure::TimedOut))
    }

    async fn begin(&self, call: Call<'_>, accept: &'static str) -> Result<Response<Incoming>, Failure> {
        let mut uri = String::with_capacity(self.base.len() + call.path.len());
        uri.push_str(&self.base);
        uri.push_str(call.path);
        let mut request = Request::builder()
            .method(call.method)
            .uri(uri)
            .header(HOST, self.host.clone())
            .header(ACCEPT, HeaderValue::from_static(accept));
        if let Some(token) = call.token {
            request = request.header(AUTHORIZATION, token);
        }
        if let Some(key) = call.key {
            request = request.header(&IDEMPOTENCY_KEY, key);
        }
        let body = match call.body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Full::new(Bytes::from(body))
            }
            None => Full::default(),
        };
        let request = request.body(body).map_err(|_| Failure::NoRequest)?;
        self.pooled
            .request(request)
            .await
            .map_err(|error| if error.is_connect() { Failure::NotConnected } else { Failure::ConnectionLost })
    }
}

/// The address that a name stands for: the first that takes a connection, or else the first.
async fn resolve(authority: &Authority) -> Result<SocketAddr, Refusal> {
    let host = authority.host();
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let found = tokio::net::lookup_host((name, authority.port_u16().unwrap_or(80))).await;
    let found: Vec<SocketAddr> =
        found.map_err(|e| Refusal(format!("{host} stands for no address: {e}")))?.collect();
    for address in &found {
        let connected = tokio::time::timeout(CONNECT, tokio::net::TcpStream::connect(address)).await;
        if matches!(connected, Ok(Ok(_))) {
            return Ok(*address);
        }
    }
    match found.first() {
        Some(_) => Err(Refusal(format!("nothing answers at http://{authority}"))),
        None => Err(Refusal(format!("{host} stands for no address"))),
    }
}
