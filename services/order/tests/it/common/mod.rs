//! An order service with a real database, broker and payment sandbox, and a
//! product service of a few lines.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

pub mod hooks;
pub mod product;
pub mod user;

use clap::Parser;
use identity::Role;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use service::Lifecycle;
use sqlx::PgPool;
use std::time::Duration;
use testing::Issuer;
use uuid::Uuid;

pub use hooks::Hooks;
pub use product::{FakeProduct, Stock};
pub use user::{Book, FakeUser};

const SECRET: &str = "sk_test_orders";

pub struct Shop {
    pub base: String,
    pub stock: Stock,
    pub book: Book,
    pub pool: PgPool,
    /// For events that the shop is to publish.
    pub outbox: service::db::Pool,
    pub issuer: Issuer,
    pub client: reqwest::Client,
    /// The provider's address.
    provider: String,
    pub hooks: Hooks,
    /// The service's settings, for another replica of it.
    pub args: Vec<String>,
    lifecycle: Lifecycle,
}

impl Shop {
    pub async fn open() -> Self {
        Self::open_with(&[]).await
    }

    /// With more settings, as command-line arguments.
    pub async fn open_with(settings: &[&str]) -> Self {
        Self::open_on(testing::NO_BROKER, settings).await
    }

    /// With a broker, in a namespace of its own.
    pub async fn open_with_broker() -> Self {
        let namespace = format!("--amqp-namespace={}", testing::namespace());
        Self::open_on(&testing::amqp_url(), &[&namespace]).await
    }

    async fn open_on(amqp_url: &str, settings: &[&str]) -> Self {
        let key = service::peer::generate().unwrap();
        let stock = Stock::default();
        let product = FakeProduct::start(stock.clone(), &key.public_key).await;
        let book = Book::default();
        let user = FakeUser::start(book.clone(), &key.public_key).await;
        let issuer = Issuer::start().await;
        let secret = SECRET;
        let data = std::env::temp_dir().join(format!("dockside-sandbox-{}", Uuid::now_v7()));
        let hooks = Hooks::default();
        let webhook_url = hooks.start().await;
        let sandbox = payment_sandbox::Config::parse_from([
            "payment-sandbox",
            "--http-addr=127.0.0.1:0",
            &format!("--data-dir={}", data.display()),
            &format!("--secret-key={secret}"),
            &format!("--webhook-url={webhook_url}"),
            "--webhook-secret=whsec_test",
            "--slow-millis=2000",
        ]);
        let sandbox = payment_sandbox::start(sandbox).await.unwrap();
        let database = testing::database("orders").await;
        let mut args = vec![
            "order".to_owned(),
            "--http-addr=127.0.0.1:0".to_owned(),
            "--grpc-addr=127.0.0.1:0".to_owned(),
            "--admin-addr=127.0.0.1:0".to_owned(),
            "--allow-plaintext=true".to_owned(),
            format!("--database-url={database}"),
            format!("--amqp-url={amqp_url}"),
            format!("--jwks-url={}", issuer.jwks_url),
            format!("--product-grpc={product}"),
            format!("--user-grpc={user}"),
            format!("--service-key={}", key.private_key_pem),
            format!("--payment-url=http://{}", sandbox.addr),
            format!("--payment-secret-key={secret}"),
            "--payment-webhook-secret=whsec_test".to_owned(),
            // Tests leave more of them unpaid.
            "--unpaid-orders-an-hour=1000000".to_owned(),
        ];
        // A setting that is given takes the place of the shop's own.
        let name = |setting: &str| setting.split('=').next().unwrap_or_default().to_owned();
        args.retain(|arg| settings.iter().all(|setting| name(setting) != name(arg)));
        args.extend(settings.iter().map(ToString::to_string));
        let lifecycle = Lifecycle::new();
        let addresses = order::start(order::Config::parse_from(&args), &lifecycle).await.unwrap();
        let base = format!("http://{}/api/v1", addresses.http);
        hooks.lead_to(&base);
        Self {
            base,
            stock,
            book,
            outbox: service::db::Pool::lazy(&database, "orders", 2).unwrap(),
            pool: PgPool::connect(&database).await.unwrap(),
            issuer,
            client: reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap(),
            provider: format!("http://{}", sandbox.addr),
            hooks,
            args,
            lifecycle,
        }
    }

    pub async fn close(self) {
        assert!(self.lifecycle.shutdown(Duration::from_secs(15)).await, "tasks end in time");
    }

    /// Starts the service anew, with other settings.
    pub async fn replace(&mut self, args: Vec<String>) {
        let lifecycle = Lifecycle::new();
        let addresses = order::start(order::Config::parse_from(&args), &lifecycle).await.unwrap();
        let before = std::mem::replace(&mut self.lifecycle, lifecycle);
        assert!(before.shutdown(Duration::from_secs(15)).await, "tasks end in time");
        (self.base, self.args) = (format!("http://{}/api/v1", addresses.http), args);
    }

    /// What a setting was given as.
    pub fn setting(&self, name: &str) -> String {
        let value = |arg: &String| arg.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        self.args.iter().find_map(value).expect("a setting that was given")
    }

    /// Another replica's base address, and what it lives by.
    pub async fn replica(&self) -> (String, Lifecycle) {
        let lifecycle = Lifecycle::new();
        let addresses = order::start(order::Config::parse_from(&self.args), &lifecycle).await.unwrap();
        (format!("http://{}/api/v1", addresses.http), lifecycle)
    }

    pub fn customer(&self) -> Buyer<'_> {
        self.signed_in(Role::Customer)
    }

    pub fn signed_in(&self, role: Role) -> Buyer<'_> {
        let id = Uuid::now_v7();
        Buyer { shop: self, id, token: self.issuer.token(id, role) }
    }

    pub fn staff(&self) -> Buyer<'_> {
        self.signed_in(Role::Staff)
    }

    /// Status and problem code of an answer to nobody in particular.
    pub async fn anonymous(&self, method: Method, path: &str) -> (u16, String) {
        let answer = send(self.client.request(method, format!("{}{path}", self.base))).await;
        let (status, code) = answer.problem();
        (status, code.to_owned())
    }

    /// An order's events, oldest first: type, version, body.
    pub async fn events(&self, order: &str) -> Vec<(String, i64, Vec<u8>)> {
        sqlx::query_as(
            "SELECT type, aggregate_version, payload FROM orders.outbox WHERE aggregate_id = $1 ORDER BY id",
        )
        .bind(order.parse::<Uuid>().unwrap())
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    /// The id of an order's intent at the provider.
    pub async fn intent(&self, order: &str) -> String {
        sqlx::query_scalar("SELECT intent_id FROM orders.sagas WHERE order_id = $1")
            .bind(order.parse::<Uuid>().unwrap())
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// What the shop's owner does at the provider by hand.
    pub fn at_provider(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.provider)).bearer_auth(SECRET)
    }

    /// A refund made at the provider by hand.
    pub async fn refund_at_provider(&self, order: &str, amount: i64) -> Value {
        let form = [("payment_intent", self.intent(order).await), ("amount", amount.to_string())];
        let answer = send(self.at_provider("/v1/refunds").form(&form)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    /// The refunds of an order that the provider knows, newest first.
    pub async fn provider_refunds(&self, order: &str) -> Vec<Value> {
        let query = [("payment_intent", self.intent(order).await), ("limit", "100".to_owned())];
        let request =
            self.client.get(format!("{}/v1/refunds", self.provider)).bearer_auth(SECRET).query(&query);
        send(request).await.body["data"].as_array().unwrap().clone()
    }

    /// The provider's sums for an order: authorized, captured, refunded, open, captures.
    pub async fn ledger(&self, order: &str) -> Value {
        let ledger: Value =
            self.client.get(format!("{}/ledger", self.provider)).send().await.unwrap().json().await.unwrap();
        let items = ledger["items"].as_array().unwrap();
        items.iter().find(|item| item["order_id"] == order).cloned().unwrap_or(Value::Null)
    }
}

pub struct Buyer<'a> {
    shop: &'a Shop,
    pub id: Uuid,
    pub token: String,
}

/// Status, headers and body of an answer.
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn id(&self) -> String {
        self.body["id"].as_str().unwrap_or_else(|| panic!("no id in {}", self.body)).to_owned()
    }

    /// Status and problem code.
    pub fn problem(&self) -> (u16, &str) {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        (self.status.as_u16(), self.body["code"].as_str().unwrap_or_default())
    }

    pub fn replayed(&self) -> bool {
        self.headers.contains_key("idempotency-replayed")
    }
}

pub fn address() -> Value {
    json!({"name": "Ada", "line1": "1 Quay", "city": "Hull", "postal_code": "HU1 1AA", "country": "GB"})
}

pub fn order_of(product: Uuid, quantity: u32, card: &str) -> Value {
    json!({
        "items": [{"product_id": product, "quantity": quantity}],
        "shipping_address": address(),
        "payment_method": card,
    })
}

pub async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { status, headers, body }
}

impl Buyer<'_> {
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.shop.client.request(method, format!("{}{path}", self.shop.base)).bearer_auth(&self.token)
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str) -> Answer {
        send(self.request(Method::POST, path)).await
    }

    pub async fn post_json(&self, path: &str, body: Value) -> Answer {
        send(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        send(self.request(Method::PUT, path).json(&body)).await
    }

    pub async fn order(&self, key: &str, body: &Value) -> Answer {
        send(self.request(Method::POST, "/orders").header("Idempotency-Key", key).json(body)).await
    }

    /// Places an order under a key of its own.
    pub async fn place(&self, body: &Value) -> Answer {
        let answer = self.order(&Uuid::now_v7().to_string(), body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer
    }

    pub async fn refund(&self, order: &str, body: &Value) -> Answer {
        self.refund_under(&Uuid::now_v7().to_string(), order, body).await
    }

    pub async fn refund_under(&self, key: &str, order: &str, body: &Value) -> Answer {
        let request = self.request(Method::POST, &format!("/orders/{order}/refunds"));
        send(request.header("Idempotency-Key", key).json(body)).await
    }

    /// Waits until so much of the order has gone back.
    pub async fn until_refunded(&self, order: &str, amount: i64) -> Value {
        testing::eventually(&format!("{order} to be refunded {amount}"), || async {
            let order = self.get(&format!("/orders/{order}")).await.body;
            (order["refunded"]["amount"] == amount).then_some(order)
        })
        .await
    }

    /// Places an order and waits until it is paid.
    pub async fn buy(&self, product: Uuid, quantity: u32) -> String {
        self.buy_with(product, quantity, "pm_card_visa").await
    }

    pub async fn buy_with(&self, product: Uuid, quantity: u32, card: &str) -> String {
        let id = self.place(&order_of(product, quantity, card)).await.id();
        self.until(&id, "confirmed", "captured").await;
        id
    }

    /// Waits until the order and its payment have these states.
    pub async fn until(&self, order: &str, status: &str, payment: &str) -> Value {
        let what = format!("{order} to be {status} and {payment}");
        testing::eventually(&what, || async {
            let order = self.get(&format!("/orders/{order}")).await.body;
            (order["status"] == status && order["payment"]["status"] == payment).then_some(order)
        })
        .await
    }
}
