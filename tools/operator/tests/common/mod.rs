//! The whole shop in one process: the three services on one database, a broker namespace of their own and a
//! payment sandbox that sends no webhooks. So changes there are only found by asking.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use std::process::Command;
use std::time::{Duration, Instant};

use clap::Parser;
use identity::Role;
use messaging::topology::Topology;
use operator::provider::Provider;
use operator::reconcile::{self, Difference, Options, Outcome, Report, Sources};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use service::Lifecycle;
use sqlx::{AssertSqlSafe, Executor, PgPool};
use testing::{Issuer, within};
use uuid::Uuid;

const SECRET: &str = "sk_test_operator";

/// Nothing is excused for being on its way.
pub const STRICT: Options = Options { since: None, grace: Duration::ZERO };

pub struct Shop {
    pub database: PgPool,
    pub database_url: String,
    pub topology: Topology,
    pub namespace: String,
    pub provider: Provider,
    pub provider_url: String,
    pub customer: Uuid,
    order: String,
    product: String,
    issuer: Issuer,
    client: Client,
    _lifecycle: Lifecycle,
}

impl Shop {
    pub async fn open() -> Self {
        let key = service::peer::generate().unwrap();
        let issuer = Issuer::start().await;
        let database_url = testing::database("orders").await;
        let database = PgPool::connect(&database_url).await.unwrap();
        database.execute("CREATE SCHEMA users; CREATE SCHEMA products;").await.unwrap();
        let namespace = testing::namespace();
        let scratch = std::env::temp_dir().join(&namespace);
        let sandbox = payment_sandbox::Config::parse_from([
            "payment-sandbox",
            "--http-addr=127.0.0.1:0",
            &format!("--data-dir={}", scratch.join("sandbox").display()),
            &format!("--secret-key={SECRET}"),
            "--slow-millis=500",
        ]);
        let sandbox = payment_sandbox::start(sandbox).await.unwrap();
        let provider_url = format!("http://{}", sandbox.addr);

        let lifecycle = Lifecycle::new();
        let arguments = |name: &str, own: Vec<String>| {
            let mut all: Vec<String> = vec![name.to_owned()];
            all.extend(["http", "grpc", "admin"].map(|port| format!("--{port}-addr=127.0.0.1:0")));
            all.extend([
                "--allow-plaintext=true".to_owned(),
                format!("--database-url={database_url}"),
                format!("--amqp-url={}", testing::amqp_url()),
                format!("--amqp-namespace={namespace}"),
            ]);
            all.extend(own);
            all
        };
        let trusted = format!("--trusted-callers=order={}", key.public_key);
        let jwks = format!("--jwks-url={}", issuer.jwks_url);
        let user = user::Config::parse_from(arguments("user", vec![trusted.clone()]));
        let user = user::start(user, &lifecycle).await.unwrap();
        let objects = format!("--object-store-url=file://{}", scratch.join("objects").display());
        let product = product::Config::parse_from(arguments("product", vec![jwks.clone(), trusted, objects]));
        let product = product::start(product, &lifecycle).await.unwrap();
        let order = arguments(
            "order",
            vec![
                jwks,
                format!("--product-grpc=http://{}", product.grpc),
                format!("--user-grpc=http://{}", user.grpc),
                format!("--service-key={}", key.private_key_pem),
                format!("--payment-url={provider_url}"),
                format!("--payment-secret-key={SECRET}"),
                "--payment-webhook-secret=whsec_test".to_owned(),
            ],
        );
        let order = order::start(order::Config::parse_from(order), &lifecycle).await.unwrap();
        let category = "INSERT INTO products.categories (slug, name, position) VALUES ('sea', 'Sea', 1)";
        database.execute(category).await.unwrap();
        Self {
            database,
            database_url,
            topology: Topology::new(&testing::amqp_url(), &namespace, proto::events::SUBSCRIPTIONS),
            namespace,
            provider: Provider::new(&provider_url, SECRET).unwrap(),
            provider_url,
            customer: Uuid::now_v7(),
            order: format!("http://{}/api/v1", order.http),
            product: format!("http://{}/api/v1", product.http),
            issuer,
            client: Client::builder().timeout(Duration::from_secs(20)).build().unwrap(),
            _lifecycle: lifecycle,
        }
    }

    async fn send(&self, request: RequestBuilder, role: Role) -> Value {
        let token = self.issuer.token(self.customer, role);
        let request = request.bearer_auth(token).header("Idempotency-Key", Uuid::now_v7().to_string());
        let answer = request.send().await.unwrap();
        let (status, body) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{status} {body}");
        serde_json::from_str(&body).unwrap()
    }

    pub async fn product(&self, stock: u32) -> Uuid {
        self.priced(1250, "EUR", stock).await
    }

    pub async fn priced(&self, amount: i64, currency: &str, stock: u32) -> Uuid {
        let body = json!({
            "sku": format!("T-{}", Uuid::now_v7()), "name": "Lantern", "description": "For tests.",
            "price": {"amount": amount, "currency": currency}, "category": "sea", "stock": stock,
        });
        let made = self.client.post(format!("{}/products", self.product)).json(&body);
        self.send(made, Role::Staff).await["id"].as_str().unwrap().parse().unwrap()
    }

    /// Places an order for two of a product.
    pub async fn place(&self, product: Uuid, card: &str) -> Uuid {
        let body = json!({
            "items": [{"product_id": product, "quantity": 2}],
            "shipping_address":
                {"name": "Ada", "line1": "1 Quay", "city": "Hull", "postal_code": "HU1 1AA", "country": "GB"},
            "payment_method": card,
        });
        let placed = self.client.post(format!("{}/orders", self.order)).json(&body);
        self.send(placed, Role::Customer).await["id"].as_str().unwrap().parse().unwrap()
    }

    pub async fn buy(&self, product: Uuid, card: &str, status: &str, payment: &str) -> Uuid {
        let order = self.place(product, card).await;
        self.until(order, status, payment).await;
        order
    }

    pub async fn until(&self, order: Uuid, status: &str, payment: &str) {
        let rests = || async {
            let (is, paid, busy): (String, String, bool) = sqlx::query_as(
                "SELECT o.status, o.payment_status, s.busy OR s.news > s.news_read
                 FROM orders.orders o JOIN orders.sagas s ON s.order_id = o.id WHERE o.id = $1",
            )
            .bind(order)
            .fetch_one(&self.database)
            .await
            .unwrap();
            (is == status && paid == payment && !busy).then_some(())
        };
        within(Duration::from_secs(20), &format!("{order} to be {status} and {payment}"), rests).await;
    }

    pub async fn cancel(&self, order: Uuid) {
        let url = format!("{}/orders/{order}/cancel", self.order);
        self.send(self.client.request(Method::POST, url), Role::Customer).await;
    }

    pub async fn refund(&self, order: Uuid, amount: i64, restock: Value) {
        let body =
            json!({"amount": {"amount": amount, "currency": "EUR"}, "reason": "broken", "restock": restock});
        let refund = self.client.post(format!("{}/orders/{order}/refunds", self.order)).json(&body);
        self.send(refund, Role::Staff).await;
    }

    pub async fn intent(&self, order: Uuid) -> String {
        let intent = "SELECT intent_id FROM orders.sagas WHERE order_id = $1";
        sqlx::query_scalar(intent).bind(order).fetch_one(&self.database).await.unwrap()
    }

    /// By hand, in the provider's own pages.
    pub async fn refund_at_provider(&self, order: Uuid, amount: i64) {
        let (intent, amount) = (self.intent(order).await, amount.to_string());
        self.at_provider("refunds", &[("payment_intent", &intent), ("amount", &amount)]).await;
    }

    /// Does something at the provider that the shop knows nothing of; the id of what it is about.
    pub async fn at_provider(&self, path: &str, form: &[(&str, &str)]) -> String {
        let request = self.client.post(format!("{}/v1/{path}", self.provider_url)).form(form);
        let answer = request.bearer_auth(SECRET).send().await.unwrap();
        let (status, body) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{status} {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        body["id"].as_str().unwrap().to_owned()
    }

    /// A payment of 2500 for an order that may not be there; its money is held, not taken.
    pub async fn pay_at_provider(&self, order: &str, card: &str) -> String {
        let form = [
            ("amount", "2500"),
            ("currency", "eur"),
            ("capture_method", "manual"),
            ("payment_method_types[]", "card"),
            ("payment_method", card),
            ("confirm", "true"),
            ("metadata[order_id]", order),
        ];
        self.at_provider("payment_intents", &form).await
    }

    /// What a failover does to an order that the new primary never had.
    pub async fn lose(&self, order: Uuid) {
        for table in ["order_items", "order_history", "refunds", "sagas", "claims"] {
            self.sql(format!("DELETE FROM orders.{table} WHERE order_id = '{order}'")).await;
        }
        self.sql(format!("DELETE FROM orders.orders WHERE id = '{order}'")).await;
    }

    pub async fn sql(&self, sql: String) {
        self.database.execute(AssertSqlSafe(sql)).await.unwrap();
    }

    /// The database's address with the role that the README describes.
    pub async fn as_operators_role(&self) -> String {
        let create = "DO $$ BEGIN CREATE ROLE dockside_operator LOGIN PASSWORD 'operator';
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$";
        self.database.execute(create).await.unwrap();
        self.database.execute(include_str!("../../grants.sql")).await.unwrap();
        let mut url: reqwest::Url = self.database_url.parse().unwrap();
        url.set_username("dockside_operator").unwrap();
        url.set_password(Some("operator")).unwrap();
        url.to_string()
    }

    fn sources(&self) -> Sources<'_> {
        Sources { database: &self.database, provider: Some(&self.provider), broker: Some(&self.topology) }
    }

    pub async fn check(&self, options: Options) -> Report {
        reconcile::check(&self.sources(), &options).await.unwrap()
    }

    /// Waits until nothing differs.
    pub async fn agrees(&self) -> Report {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let report = self.check(STRICT).await;
            if report.is_clean() {
                return report;
            }
            assert!(Instant::now() < until, "{:#?}", report.differences);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn mend(&self, options: Options) -> Outcome {
        reconcile::mend(&self.sources(), &options, Duration::from_secs(20)).await.unwrap()
    }

    /// The program, with this shop's addresses.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_operator"));
        command
            .args(words)
            .env("ALLOW_PLAINTEXT", "true")
            .env("DATABASE_URL", &self.database_url)
            .env("AMQP_URL", testing::amqp_url())
            .env("AMQP_NAMESPACE", &self.namespace)
            .env("PAYMENT_URL", &self.provider_url)
            .env("PAYMENT_SECRET_KEY", SECRET);
        command
    }

    pub fn operator(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = self.command(words).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), text)
    }
}

/// The words about one id, sorted.
pub fn about(differences: &[Difference], id: Uuid) -> Vec<&str> {
    let mut words: Vec<&str> =
        differences.iter().filter(|one| one.id == id).map(|one| one.what.as_str()).collect();
    words.sort_unstable();
    words
}
