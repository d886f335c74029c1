//! A sandbox on a free port, in a directory of its own, and a client of it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use payment_sandbox::{Config, Handle, LogFormat};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

pub const DEADLINE: Duration = Duration::from_secs(20);

pub type Form<'a> = &'a [(&'a str, &'a str)];

pub struct Sandbox {
    pub config: Config,
    pub dir: TempDir,
    pub client: Api,
    handle: Handle,
}

/// Status, `Idempotent-Replayed` and body of an answer.
pub type Answer = (StatusCode, bool, Value);

#[derive(Clone)]
pub struct Api {
    pub base: String,
    pub http: Client,
}

/// The default settings for a directory, on a free port, whatever the environment says.
pub fn config(dir: &TempDir) -> Config {
    Config {
        http_addr: ([127, 0, 0, 1], 0).into(),
        data_dir: dir.path().to_owned(),
        secret_key: "sk_test_dockside".into(),
        webhook_url: None,
        webhook_secret: "whsec_test".into(),
        slow_millis: 3000,
        api_version: "2025-08-27.basil".into(),
        authentication_seconds: 3600,
        public_url: None,
        log_format: LogFormat::Pretty,
    }
}

impl Sandbox {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = TempDir::new();
        let mut config = config(&dir);
        change(&mut config);
        let handle = payment_sandbox::start(config.clone()).await.expect("the sandbox starts");
        let client = Api::new(&format!("http://{}", handle.addr));
        Self { config, dir, client, handle }
    }

    /// Stops it, and starts it again on the same log.
    pub async fn restart(self) -> Self {
        let Self { config, dir, handle, .. } = self;
        handle.stop().await.expect("the sandbox stops");
        let handle = payment_sandbox::start(config.clone()).await.expect("the sandbox starts again");
        let client = Api::new(&format!("http://{}", handle.addr));
        Self { config, dir, client, handle }
    }

    /// Stops it and returns its directory.
    pub async fn stop(self) -> TempDir {
        self.handle.stop().await.expect("the sandbox stops");
        self.dir
    }

    pub fn log_file(&self) -> PathBuf {
        self.dir.path().join("ledger.jsonl")
    }
}

impl Api {
    pub fn new(base: &str) -> Self {
        let http = Client::builder().timeout(DEADLINE).no_proxy().build().expect("a client");
        Self { base: base.into(), http }
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth("sk_test_dockside")
    }

    pub async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, form: Form<'_>) -> Answer {
        answer(self.request(Method::POST, path).form(form)).await
    }

    pub async fn post_with_key(&self, key: &str, path: &str, form: Form<'_>) -> Answer {
        answer(self.request(Method::POST, path).header("Idempotency-Key", key).form(form)).await
    }

    /// Posts and asserts that no answer comes within a second.
    pub async fn post_unanswered(&self, key: &str, path: &str, form: Form<'_>) {
        let request = self.request(Method::POST, path).header("Idempotency-Key", key).form(form);
        let result = request.timeout(Duration::from_secs(1)).send().await;
        assert!(result.as_ref().is_err_and(reqwest::Error::is_timeout), "{result:?}");
    }

    /// Creates an intent of 2500 with manual capture for order `o1`; returns its path.
    pub async fn intent(&self, card: &str) -> String {
        self.intent_of("o1", card).await
    }

    pub async fn intent_of(&self, order_id: &str, card: &str) -> String {
        let form = [
            ("amount", "2500"),
            ("currency", "eur"),
            ("capture_method", "manual"),
            ("payment_method_types[]", "card"),
            ("payment_method", card),
            ("metadata[order_id]", order_id),
        ];
        let (status, _, body) = self.post("/v1/payment_intents", &form).await;
        assert_eq!((status, &body["status"]), (StatusCode::OK, &"requires_confirmation".into()), "{body}");
        format!("/v1/payment_intents/{}", body["id"].as_str().expect("an id"))
    }

    /// An intent that is authorised.
    pub async fn authorized(&self, card: &str) -> String {
        let intent = self.intent(card).await;
        let (status, _, body) = self.post(&format!("{intent}/confirm"), &[]).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        intent
    }

    /// An intent that is authorised and captured.
    pub async fn captured(&self, card: &str) -> String {
        let intent = self.authorized(card).await;
        let (status, _, body) = self.post(&format!("{intent}/capture"), &[]).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        intent
    }

    /// Waits until the intent has the status, and returns it.
    pub async fn until_status(&self, intent: &str, status: &str) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (_, _, body) = self.get(intent).await;
            if body["status"] == status {
                return body;
            }
            assert!(Instant::now() < deadline, "still not {status}: {body}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until that many events of a type are listed, and returns them, newest first.
    pub async fn until_events(&self, kind: &str, count: usize) -> Vec<Value> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (_, _, body) = self.get(&format!("/v1/events?type={kind}&limit=100")).await;
            let events = body["data"].as_array().expect("a list").clone();
            if events.len() >= count {
                return events;
            }
            assert!(Instant::now() < deadline, "{} of {count} {kind}", events.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The only ledger item of order `o1`: authorized, captured, refunded, open, captures.
    pub async fn ledger(&self) -> [u64; 5] {
        let (status, _, body) = self.get("/ledger?order_id=o1").await;
        assert_eq!(status, StatusCode::OK);
        let items = body["items"].as_array().expect("items");
        assert_eq!(items.len(), 1, "{body}");
        ["authorized", "captured", "refunded", "open", "captures"]
            .map(|field| items[0][field].as_u64().expect("a number"))
    }
}

/// The id at the end of an intent's path.
pub fn id(path: &str) -> &str {
    path.rsplit('/').next().expect("an id")
}

pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let replayed = response.headers().get("Idempotent-Replayed").is_some_and(|value| value == "true");
    let status = response.status();
    (status, replayed, response.json().await.expect("a JSON body"))
}

/// A directory that goes with the test.
pub struct TempDir(std::path::PathBuf);

impl TempDir {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("payment-sandbox-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&path).expect("a temporary directory");
        Self(path)
    }

    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
