//! A user service of the test's own, and a client for it.
#![allow(dead_code, reason = "each test program uses a part")]

pub mod mail;

use clap::Parser;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use service::Lifecycle;
use service::serve::Addresses;
use sqlx::{PgPool, Postgres, Transaction};

/// Nothing listens there: what a customer waits for must not need the broker.
pub const NO_BROKER: &str = "amqp://127.0.0.1:1/%2f";

pub const PASSWORD: &str = "correct horse 7";

pub struct App {
    pub database_url: String,
    pub addresses: Addresses,
    pub pool: PgPool,
    client: reqwest::Client,
    lifecycle: Lifecycle,
}

impl App {
    pub async fn start() -> Self {
        Self::start_with(&testing::database("users").await, NO_BROKER, "dockside", &[]).await
    }

    /// A replica on a database that may have others.
    pub async fn start_with(database_url: &str, amqp_url: &str, namespace: &str, more: &[&str]) -> Self {
        let lifecycle = Lifecycle::new();
        let arguments = [
            "user",
            "--http-addr=127.0.0.1:0",
            "--grpc-addr=127.0.0.1:0",
            "--admin-addr=127.0.0.1:0",
            "--allow-plaintext=true",
            "--database-url",
            database_url,
            "--amqp-url",
            amqp_url,
            "--amqp-namespace",
            namespace,
        ];
        let config = user::Config::parse_from(arguments.iter().chain(more));
        Self {
            database_url: database_url.to_owned(),
            addresses: user::start(config, &lifecycle).await.expect("the service starts"),
            pool: PgPool::connect(database_url).await.expect("the test's database answers"),
            client: reqwest::Client::builder()
                .timeout(std::time::Duration::from_secs(30))
                .build()
                .expect("a client can be built"),
            lifecycle,
        }
    }

    /// Ends the service; its database stays.
    pub async fn stop(self) {
        assert!(self.lifecycle.shutdown(std::time::Duration::from_secs(10)).await);
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.addresses.http))
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = self.request(Method::POST, path).json(body);
        Answer::of(request.send().await.expect("the service answers")).await
    }

    /// A request with this token, and with this body unless it is null.
    pub async fn call(&self, method: Method, path: &str, token: &str, body: Value) -> Answer {
        let request = self.request(method, path).bearer_auth(token);
        let request = if body.is_null() { request } else { request.json(&body) };
        Answer::of(request.send().await.expect("the service answers")).await
    }

    pub async fn delete(&self, path: &str, token: &str) -> Answer {
        self.call(Method::DELETE, path, token, Value::Null).await
    }

    /// The tokens of a new account that is an admin.
    pub async fn admin(&self, email: &str) -> Tokens {
        assert_eq!(self.register(email).await.status, StatusCode::CREATED);
        let promote = sqlx::query("UPDATE users.accounts SET role = 'admin' WHERE email = $1").bind(email);
        promote.execute(&self.pool).await.expect("the account can be changed");
        self.login(email, PASSWORD).await.tokens()
    }

    /// Asserts that each of these needs a token, and a good one.
    pub async fn needs_a_token(&self, operations: &[(Method, &str)]) {
        for (method, path) in operations {
            let send = self.request(method.clone(), path).body("{").send();
            Answer::of(send.await.expect("the service answers")).await.is_problem(401, "missing_token");
            let send = self.request(method.clone(), path).bearer_auth("x").body("{").send();
            Answer::of(send.await.expect("the service answers")).await.is_problem(401, "invalid_token");
        }
    }

    /// Asserts that each of these takes a JSON object of known fields and of at most 1 MiB, and nothing else.
    pub async fn takes_json_alone(&self, token: &str, operations: &[(Method, &str)]) {
        for (method, path) in operations {
            let send = |kind: Option<&'static str>, body: Vec<u8>| {
                let request = self.request(method.clone(), path).bearer_auth(token).body(body);
                let request = kind.into_iter().fold(request, |all, kind| all.header("content-type", kind));
                async move { Answer::of(request.send().await.expect("the service answers")).await }
            };
            let json = Some("application/json");
            for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("x")] {
                send(kind, b"{}".to_vec()).await.is_problem(415, "unsupported_media_type");
            }
            for body in [&b""[..], b"{", b"{\"x\": \"\xFF\"}", b"{} {}", br#"{"x": "\ud800"}"#] {
                send(json, body.to_vec()).await.is_problem(400, "malformed_json");
            }
            let deep = ["[".repeat(200), "]".repeat(200)].concat();
            send(json, deep.into_bytes()).await.is_problem(400, "malformed_json");
            let long = format!("\"{}\"", "x".repeat(1 << 20));
            send(json, long.into_bytes()).await.is_problem(413, "payload_too_large");
            for body in ["[]", "7", "null"] {
                send(json, body.into()).await.is_invalid(&[("", "invalid_value")]);
            }
            send(json, br#"{"status": 1}"#.to_vec()).await.is_invalid(&[("/status", "unknown_field")]);
            let control = br#"{"a/b": ["\u0000"]}"#.to_vec();
            send(json, control).await.is_invalid(&[("/a~1b/0", "control_character")]);
        }
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        let request = self.request(Method::GET, path).bearer_auth(token);
        Answer::of(request.send().await.expect("the service answers")).await
    }

    pub async fn register(&self, email: &str) -> Answer {
        let body = json!({"email": email, "password": PASSWORD, "name": "Ada"});
        self.post("/api/v1/auth/register", &body).await
    }

    pub async fn login(&self, email: &str, password: &str) -> Answer {
        let body = json!({"email": email, "password": password});
        self.post("/api/v1/auth/login", &body).await
    }

    pub async fn refresh(&self, refresh_token: &str) -> Answer {
        self.post("/api/v1/auth/refresh", &json!({"refresh_token": refresh_token})).await
    }

    /// The tokens of a new account with `email`.
    pub async fn signed_in(&self, email: &str) -> Tokens {
        assert_eq!(self.register(email).await.status, StatusCode::CREATED);
        self.login(email, PASSWORD).await.tokens()
    }

    /// Changes the database behind the service's back, to let time pass.
    pub async fn sql(&self, statement: &'static str) {
        sqlx::query(statement).execute(&self.pool).await.expect("the statement works");
    }

    /// A transaction that holds what `lock` locks.
    pub async fn hold(&self, lock: &'static str) -> Transaction<'static, Postgres> {
        let mut held = testing::begin(&self.pool).await;
        sqlx::query(lock).execute(&mut *held).await.expect("the lock is free");
        held
    }

    /// Ends the transaction once `enough` connections of the service wait for
    /// locks: from there they race.
    pub async fn release(&self, held: Transaction<'static, Postgres>, enough: i64) {
        testing::eventually("enough wait for locks", || async {
            let count = "SELECT count(*) FROM pg_stat_activity
                         WHERE datname = current_database() AND wait_event_type = 'Lock'";
            (self.count(count).await >= enough).then_some(())
        })
        .await;
        held.rollback().await.expect("the transaction ends");
    }

    pub async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.expect("the query works")
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub async fn of(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.expect("the body can be read");
        let body =
            if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("a JSON body") };
        Self { status, headers, body }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header of text"))
    }

    #[track_caller]
    pub fn tokens(&self) -> Tokens {
        assert_eq!(self.status, StatusCode::OK, "{:?}", self.body);
        let text = |field: &str| self.body[field].as_str().expect("a token").to_owned();
        Tokens { access: text("access_token"), refresh: text("refresh_token") }
    }

    /// Asserts a problem document with this status and code.
    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status.as_u16(), self.body["code"].as_str()),
            (status, Some(code)),
            "{:?}",
            self.body
        );
        assert_eq!(self.body["status"], status);
        for field in ["type", "title", "detail", "instance"] {
            assert!(!self.body[field].as_str().unwrap_or_default().is_empty(), "{field}: {:?}", self.body);
        }
        assert_eq!(self.header("content-type"), "application/problem+json");
        if status == 401 {
            assert!(self.header("www-authenticate").starts_with("Bearer "));
        }
        if matches!(status, 429 | 503) {
            assert!(self.header("retry-after").parse::<u32>().expect("seconds") >= 1);
        }
    }

    /// Asserts a 422 with exactly these (pointer, code) pairs.
    #[track_caller]
    pub fn is_invalid(&self, expected: &[(&str, &str)]) {
        self.is_problem(422, "validation_failed");
        let text = |error: &Value, field: &str| error[field].as_str().unwrap_or_default().to_owned();
        let errors = self.body["errors"].as_array().expect("errors");
        let found: Vec<_> =
            errors.iter().map(|error| (text(error, "pointer"), text(error, "code"))).collect();
        let expected: Vec<_> = expected.iter().map(|(p, c)| ((*p).to_owned(), (*c).to_owned())).collect();
        assert_eq!(found, expected);
    }
}

/// The answers of `n` calls made at the same time.
pub async fn at_once<F>(n: usize, call: impl Fn() -> F) -> Vec<Answer>
where
    F: Future<Output = Answer> + Send + 'static,
{
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..n {
        calls.spawn(call());
    }
    calls.join_all().await
}
