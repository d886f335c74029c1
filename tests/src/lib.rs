//! A running shop, seen from outside: through its edge as a client, and, to check what the services say,
//! through its database and the payment sandbox's ledger.
//!
//! `cargo dockside test system` starts the shop and runs these tests. Without it they are skipped, which they say.

pub mod chaos;
pub mod failpoints;
pub mod keys;
pub mod oracle;
pub mod registry;

use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Once;
use std::time::{Duration, Instant, SystemTime};

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

pub struct Shop {
    pub edge: String,
    pub client: reqwest::Client,
    pub database: PgPool,
    /// The administrators' addresses.
    pub database_url: String,
    pub broker_url: String,
    /// The payment sandbox's.
    pub sandbox: String,
    /// Of the shop's state, data and logs.
    pub dir: String,
}

#[expect(clippy::disallowed_methods, reason = "tests have no settings of their own")]
fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| without_a_shop(name))
}

/// Ends this program with one sentence: nothing of it can run. Test programs end well, so that plain `cargo test
/// --workspace` goes on; any other program fails.
fn without_a_shop(name: &str) -> ! {
    static SAID: Once = Once::new();
    let program = std::env::current_exe().unwrap_or_default();
    // Where cargo puts the programs of tests, and those alone.
    let test = program.parent().is_some_and(|folder| folder.ends_with("deps"));
    let skipped = if test { "SKIPPED: these tests need" } else { "this needs" };
    SAID.call_once(|| {
        // Not `eprintln!`, which the tests' harness would keep to itself.
        let text = format!(
            "\n{skipped} the running shop ({name} is not set): run `cargo dockside test system web`\n"
        );
        std::io::stderr().write_all(text.as_bytes()).ok();
    });
    std::process::exit(if test { 0 } else { 2 })
}

/// `cargo dockside`, run for the shop in a folder.
pub fn dockside(dir: &str, args: &[&str]) -> Output {
    dockside_with(&[], dir, args)
}

/// The folder with the programs that these tests run on.
pub fn built() -> String {
    let dockside = PathBuf::from(setting("DOCKSIDE_BIN"));
    dockside.parent().expect("a program lies in a folder").display().to_string()
}

/// `cargo dockside` with settings for the shop that it starts.
pub fn dockside_with(settings: &[(&str, &str)], dir: &str, args: &[&str]) -> Output {
    let mut command = Command::new(setting("DOCKSIDE_BIN"));
    command.envs(settings.iter().copied());
    command.args(args).args(["--dir", dir]).output().expect("dockside can be run")
}

/// `cargo dockside status --json`, as it is now.
fn status(dir: &str) -> Value {
    let output = dockside(dir, &["status", "--json"]);
    serde_json::from_slice(&output.stdout).expect("status is JSON")
}

impl Shop {
    /// The one that these tests were started with.
    pub async fn open() -> Self {
        Self::open_in(&setting("DOCKSIDE_DIR")).await
    }

    pub async fn open_in(dir: &str) -> Self {
        let status = status(dir);
        let edge = status["edge"].as_str().expect("the shop runs").to_owned();
        let url = status["postgres"]["url"].as_str().expect("PostgreSQL runs");
        let processes = status["processes"].as_array().expect("processes are listed");
        let broker = status["rabbitmq"]["url"].as_str().expect("RabbitMQ runs");
        let sandbox = processes.iter().find(|process| process["name"] == "payment-sandbox");
        let sandbox = sandbox.and_then(|process| process["http"].as_str()).expect("the sandbox is listed");
        Self {
            edge,
            client: client(),
            database: PgPoolOptions::new()
                .acquire_timeout(Duration::from_secs(5))
                .connect_with(observer(url))
                .await
                .expect("PostgreSQL answers"),
            database_url: url.to_owned(),
            broker_url: broker.to_owned(),
            sandbox: sandbox.to_owned(),
            dir: dir.to_owned(),
        }
    }

    /// The address of a service's admin port.
    pub fn admin(&self, name: &str) -> String {
        let process = self.process(name).expect("the service is listed");
        process["admin"].as_str().expect("a service has an admin port").to_owned()
    }

    /// A process's gRPC address.
    pub fn grpc(&self, name: &str) -> String {
        let process = self.process(name).expect("the service is listed");
        process["grpc"].as_str().expect("a service has a gRPC port").to_owned()
    }

    /// A file of the shop's folder, where its passwords and keys are.
    pub fn file(&self, name: &str) -> String {
        let path = std::path::Path::new(&self.dir).join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// A counter's sum over a service's replicas; 0 where it has not counted yet.
    pub async fn counted(&self, service: &str, counter: &str) -> u64 {
        let mut sum = 0;
        for process in status(&self.dir)["processes"].as_array().expect("processes are listed") {
            let name = process["name"].as_str().unwrap_or_default();
            let replica =
                name.strip_prefix(service).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
            let Some(admin) = process["admin"].as_str().filter(|_| replica) else { continue };
            let text =
                self.client.get(format!("{admin}/metrics")).send().await.expect("the admin port answers");
            let text = text.text().await.expect("metrics are text");
            let lines =
                text.lines().filter_map(|line| line.strip_prefix(counter)?.trim().parse::<u64>().ok());
            sum += lines.sum::<u64>();
        }
        sum
    }

    /// A process as `status --json` has it now.
    pub fn process(&self, name: &str) -> Option<Value> {
        status(&self.dir)["processes"].as_array()?.iter().find(|process| process["name"] == name).cloned()
    }

    /// SIGKILL, without a warning; nothing while the supervisor is starting the process again.
    pub fn kill(&self, name: &str) {
        if let Some(pid) = self.process(name).and_then(|process| process["pid"].as_u64()) {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
    }

    pub async fn sign_in(&self, email: &str, password: &str) -> Buyer<'_> {
        let body = json!({"email": email, "password": password});
        let answer =
            send(self.request(Method::POST, "/auth/login").json(&body)).await.expect("login answers");
        let token =
            answer.body["access_token"].as_str().unwrap_or_else(|| panic!("{}", answer.body)).to_owned();
        Buyer { shop: self, token }
    }

    /// A new customer, signed in.
    pub async fn customer(&self) -> Buyer<'_> {
        let email = format!("{}@example.test", Uuid::now_v7());
        let body = json!({"email": email, "password": "correct horse battery", "name": "Ada"});
        let answer =
            send(self.request(Method::POST, "/auth/register").json(&body)).await.expect("register answers");
        assert_eq!(answer.status, 201, "{}", answer.body);
        self.sign_in(&email, "correct horse battery").await
    }

    pub async fn staff(&self) -> Buyer<'_> {
        self.sign_in("staff@dockside.test", "dockside-staff").await
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}/api/v1{path}", self.edge))
    }

    pub fn order(&self, token: &str, key: &str, product: Uuid, quantity: u32, card: &str) -> RequestBuilder {
        let body = json!({
            "items": [{"product_id": product, "quantity": quantity}],
            "shipping_address": address(),
            "payment_method": card,
        });
        let request = self.request(Method::POST, "/orders").bearer_auth(token);
        request.header("Idempotency-Key", key).json(&body)
    }

    /// A new product with so much stock; its id.
    pub async fn product(&self, stock: u32) -> Uuid {
        let body = json!({
            "sku": format!("T-{}", Uuid::now_v7()), "name": "Test Lantern", "description": "For tests.",
            "price": {"amount": 1250, "currency": "EUR"}, "category": "lighting", "stock": stock,
        });
        let answer = self.staff().await.post("/products", &body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.id().parse().expect("an id is a UUID")
    }

    /// On hand and reserved, as the product service's tables have it.
    pub async fn stock(&self, product: Uuid) -> (i64, i64) {
        let stock = "SELECT on_hand::bigint, reserved::bigint FROM products.stock WHERE product_id = $1";
        sqlx::query_as(stock).bind(product).fetch_one(&self.database).await.expect("the product has stock")
    }

    /// Waits until an order placed after `since` is confirmed: how long, or None when there is none in time.
    pub async fn sells(&self, since: Instant, limit: Duration) -> Option<Duration> {
        let then = SystemTime::now() - since.elapsed();
        let then = then.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // The least UUIDv7 of that time.
        let least = Uuid::from_u128(then.as_millis() << 80);
        // By both clocks: one of them may be ahead.
        let sql =
            "SELECT EXISTS (SELECT FROM (SELECT * FROM orders.orders ORDER BY id DESC LIMIT 2000) latest
                                  WHERE id > $1 AND placed_at > to_timestamp($2) AND status = 'confirmed')";
        while since.elapsed() < limit {
            let asked =
                sqlx::query_scalar(sql).bind(least).bind(then.as_secs_f64()).fetch_one(&self.database);
            if let Ok(Ok(true)) = tokio::time::timeout(Duration::from_secs(2), asked).await {
                return Some(since.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        None
    }

    /// The provider's sums for an order; null when it does not know it.
    pub async fn ledger(&self, order: &str) -> Value {
        // Asked again while the sandbox is being started again.
        let ask = || async {
            let url = format!("{}/ledger?order_id={order}", self.sandbox);
            let ledger: Value = self.client.get(url).send().await.ok()?.json().await.ok()?;
            Some(ledger["items"].as_array()?.first().cloned().unwrap_or(Value::Null))
        };
        eventually("the sandbox's ledger", Duration::from_secs(30), ask).await
    }

    /// A transaction of the test's own.
    #[expect(clippy::disallowed_methods, reason = "nothing cancels a test while it begins one")]
    pub async fn transaction(&self) -> Transaction<'static, Postgres> {
        self.database.begin().await.expect("PostgreSQL answers")
    }

    /// Waits until a query's only value is as wanted.
    pub async fn eventually(&self, sql: &'static str, id: Uuid, wanted: i64) {
        let matches = || async {
            let count: i64 = sqlx::query_scalar(sql).bind(id).fetch_one(&self.database).await.ok()?;
            (count == wanted).then_some(())
        };
        eventually(&format!("{sql} to be {wanted}"), Duration::from_secs(60), matches).await;
    }
}

/// A query that is cancelled here must not go on in the server: it would slow down what it measures.
fn observer(url: &str) -> PgConnectOptions {
    let options: PgConnectOptions = url.parse().expect("an address of PostgreSQL");
    options.options([("statement_timeout", "20s")])
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(Duration::from_secs(15)).build().expect("a client can be built")
}

pub struct Buyer<'a> {
    shop: &'a Shop,
    pub token: String,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn id(&self) -> String {
        self.body["id"].as_str().unwrap_or_else(|| panic!("no id in {}", self.body)).to_owned()
    }

    /// Whether it is the first answer to its Idempotency-Key, once more.
    pub fn replayed(&self) -> bool {
        self.headers.get("idempotency-replayed").is_some_and(|value| value == "true")
    }

    /// Status and problem code.
    pub fn problem(&self) -> (u16, &str) {
        (self.status.as_u16(), self.body["code"].as_str().unwrap_or_default())
    }
}

/// Sends a request; an error means that there was no whole answer.
pub async fn send(request: RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Answer { status, headers, body })
}

impl Buyer<'_> {
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.shop.request(method, path).bearer_auth(&self.token)
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await.expect("an answer")
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        send(self.request(Method::POST, path).json(body)).await.expect("an answer")
    }

    pub fn order(&self, key: &str, product: Uuid, quantity: u32, card: &str) -> RequestBuilder {
        self.shop.order(&self.token, key, product, quantity, card)
    }

    /// Places an order and returns its id.
    pub async fn place(&self, product: Uuid, quantity: u32, card: &str) -> String {
        let order = self.order(&Uuid::now_v7().to_string(), product, quantity, card);
        let answer = send(order).await.expect("an answer");
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.id()
    }

    /// Waits up to a minute until the order has ended, and its money is settled.
    pub async fn ended(&self, order: &str) -> Value {
        let ended = || async {
            let order = send(self.request(Method::GET, &format!("/orders/{order}"))).await.ok()?.body;
            let payment = order["payment"]["status"].as_str()?;
            let settled = match order["status"].as_str()? {
                "confirmed" => payment == "captured",
                "cancelled" => ["voided", "declined", "refunded"].contains(&payment),
                _ => false,
            };
            settled.then_some(order)
        };
        eventually(&format!("order {order} to end"), Duration::from_secs(60), ended).await
    }
}

pub fn address() -> Value {
    json!({"name": "Ada", "line1": "1 Quay", "city": "Hull", "postal_code": "HU1 1AA", "country": "GB"})
}

/// Polls until `condition` gives something; panics after `deadline`.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    deadline: Duration,
    condition: impl Fn() -> F,
) -> T {
    let until = Instant::now() + deadline;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
