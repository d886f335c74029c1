//! The service, started on a database and a broker namespace of its own.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use identity::Role;
use messaging::NewEvent;
use product::Config;
use proto::events::{ORDER_CANCELLED, ORDER_REFUNDED};
use proto::order::v1 as order;
use proto::product::v1 as wire;
use proto::product::v1::product_service_client::ProductServiceClient;
use proto::product::v1::reserve_result::Outcome;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use service::Lifecycle;
use service::grpc::Retries;
use service::peer::{self, ServiceKey};
use sqlx::postgres::PgConnectOptions;
use sqlx::{PgPool, Row};
use testing::Issuer;
use tonic::transport::Channel;
use tonic::{Request, Status};
use uuid::Uuid;

pub struct Shop {
    pub pool: PgPool,
    /// For events that the shop is to publish.
    pub outbox: service::db::Pool,
    pub lifecycle: Lifecycle,
    pub namespace: String,
    pub grpc: ProductServiceClient<Channel>,
    pub channel: Channel,
    pub grpc_address: String,
    retries: Retries,
    order_key: ServiceKey,
    user_key: ServiceKey,
    issuer: Issuer,
    /// The folder of images, unless a setting names another store.
    pub objects: PathBuf,
    pub base: String,
    client: Client,
    settings: Vec<String>,
}

pub async fn shop() -> Shop {
    shop_with(&[]).await
}

pub async fn shop_with(settings: &[&str]) -> Shop {
    open_on(testing::NO_BROKER, settings).await
}

/// With a broker, in a namespace of its own: for events that arrive.
pub async fn shop_with_broker() -> Shop {
    open_on(&testing::amqp_url(), &[]).await
}

async fn open_on(amqp_url: &str, settings: &[&str]) -> Shop {
    let (order, user) = (peer::generate().unwrap(), peer::generate().unwrap());
    let issuer = Issuer::start().await;
    let database = testing::database("products").await;
    let namespace = testing::namespace();
    let mut arguments: Vec<String> =
        ["product", "--http-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"]
            .map(str::to_owned)
            .into();
    arguments.extend([
        "--allow-plaintext=true".to_owned(),
        format!("--database-url={database}"),
        format!("--amqp-url={amqp_url}"),
        format!("--amqp-namespace={namespace}"),
        format!("--jwks-url={}", issuer.jwks_url),
        format!("--trusted-callers=order={},user={}", order.public_key, user.public_key),
    ]);
    let objects = std::env::temp_dir().join(&namespace);
    if !settings.iter().any(|setting| setting.starts_with("--object-store-url")) {
        arguments.push(format!("--object-store-url=file://{}", objects.display()));
    }
    arguments.extend(settings.iter().map(|setting| (*setting).to_owned()));

    let lifecycle = Lifecycle::new();
    let addresses = product::start(Config::parse_from(&arguments), &lifecycle).await.unwrap();
    let options: PgConnectOptions = database.parse().unwrap();
    let pool = PgPool::connect_with(options.options([("search_path", "products")])).await.unwrap();
    sqlx::query(
        "INSERT INTO products.categories (slug, name, parent, position) VALUES
             ('t-sea', 'Sea', NULL, 1), ('t-rope', 'Rope', 't-sea', 1), ('t-home', 'Home', NULL, 2)",
    )
    .execute(&pool)
    .await
    .unwrap();
    let channel = service::grpc::channel(&format!("http://{}", addresses.grpc)).unwrap();
    Shop {
        pool,
        outbox: service::db::Pool::lazy(&database, "products", 2).unwrap(),
        lifecycle,
        namespace,
        grpc: ProductServiceClient::new(channel.clone()),
        channel,
        grpc_address: addresses.grpc.to_string(),
        retries: Retries::default(),
        order_key: ServiceKey::from_pem("order", &order.private_key_pem).unwrap(),
        user_key: ServiceKey::from_pem("user", &user.private_key_pem).unwrap(),
        issuer,
        objects,
        base: format!("http://{}/api/v1", addresses.http),
        client: Client::builder().timeout(Duration::from_secs(30)).build().unwrap(),
        settings: arguments,
    }
}

impl Shop {
    /// Another replica on the same database and broker.
    pub async fn replica(&self) -> ProductServiceClient<Channel> {
        let config = Config::parse_from(&self.settings);
        let addresses = product::start(config, &self.lifecycle).await.unwrap();
        let channel = service::grpc::channel(&format!("http://{}", addresses.grpc)).unwrap();
        ProductServiceClient::new(channel)
    }

    pub fn anyone(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub fn token(&self, role: Role) -> String {
        self.token_of(Uuid::now_v7(), role)
    }

    pub fn token_of(&self, user: Uuid, role: Role) -> String {
        self.issuer.token(user, role)
    }

    pub fn as_role(&self, role: Role, method: Method, path: &str) -> RequestBuilder {
        self.anyone(method, path).bearer_auth(self.token(role))
    }

    pub fn staff(&self, method: Method, path: &str) -> RequestBuilder {
        self.as_role(Role::Staff, method, path)
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.anyone(Method::GET, path).send().await.unwrap()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        answer(self.staff(Method::POST, path).json(body).send().await.unwrap()).await
    }

    /// A new product with `fields` over the usual ones.
    pub async fn product(&self, fields: Value) -> Value {
        let mut body = form();
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let (status, product) = self.post("/products", &body).await;
        assert_eq!(status, 201, "{product}");
        product
    }

    /// The id of a new product with `stock` units.
    pub async fn stocked(&self, stock: u32) -> String {
        id(&self.product(json!({ "stock": stock })).await)
    }

    pub fn call<T>(&self, message: T) -> Request<T> {
        let token = self.order_key.token("product").unwrap();
        service::grpc::request(message, Duration::from_secs(30), &token).unwrap()
    }

    pub fn call_as_user_service<T>(&self, message: T) -> Request<T> {
        let token = self.user_key.token("product").unwrap();
        service::grpc::request(message, Duration::from_secs(30), &token).unwrap()
    }

    /// As the order service calls: again, when the connection ends under it, which each does after a while.
    pub async fn reserve_all(&self, reservations: Vec<wire::Reservation>) -> Result<Vec<Outcome>, Status> {
        let token = self.order_key.token("product").unwrap();
        let message = wire::ReserveRequest { reservations };
        let call = |request| {
            let mut grpc = self.grpc.clone();
            async move { grpc.reserve(request).await }
        };
        let answer =
            service::grpc::call(&self.retries, message, Duration::from_secs(30), &token, call).await?;
        let results = answer.results;
        Ok(results.into_iter().map(|result| result.outcome.unwrap()).collect())
    }

    pub async fn reserve(&self, order: Uuid, lines: &[(&str, u32)]) -> Outcome {
        self.reserve_all(vec![reservation(order, lines)]).await.unwrap().remove(0)
    }

    pub async fn commit(&self, order: Uuid) -> wire::CommitResult {
        let request = self.call(wire::CommitRequest { order_ids: vec![order.to_string()] });
        let answer = self.grpc.clone().commit(request).await.unwrap().into_inner();
        answer.results().next().unwrap()
    }

    pub async fn release(&self, order: Uuid) -> wire::ReleaseResult {
        let request = self.call(wire::ReleaseRequest { order_ids: vec![order.to_string()] });
        let answer = self.grpc.clone().release(request).await.unwrap().into_inner();
        answer.results().next().unwrap()
    }

    /// (on hand, reserved) of a product.
    pub async fn stock(&self, product: &str) -> (i32, i32) {
        let query = "SELECT on_hand, reserved FROM products.stock WHERE product_id = $1::uuid";
        let row = sqlx::query(query).bind(product).fetch_one(&self.pool).await.unwrap();
        (row.get(0), row.get(1))
    }

    /// Lets a reservation run out, by moving its end into the past.
    pub async fn run_out(&self, order: Uuid) {
        let query =
            "UPDATE products.reservations SET expires_at = now() - interval '1 ms' WHERE order_id = $1";
        let done = sqlx::query(query).bind(order).execute(&self.pool).await.unwrap();
        assert_eq!(done.rows_affected(), 1);
    }

    /// The books of all products: the ledger adds up to what is on hand, open
    /// reservations to what is reserved.
    pub async fn assert_books_balance(&self) {
        let wrong: Vec<String> = sqlx::query_scalar(
            "SELECT format('%s: on hand %s, ledger %s, last entry %s; reserved %s, lines %s',
                           product_id, on_hand, ledger, last, reserved, lines)
             FROM (SELECT s.*,
                 (SELECT COALESCE(sum(delta), 0) FROM products.stock_ledger l WHERE l.product_id = s.product_id) ledger,
                 COALESCE((SELECT l.on_hand FROM products.stock_ledger l WHERE l.product_id = s.product_id
                           ORDER BY seq DESC LIMIT 1), 0) last,
                 (SELECT COALESCE(sum(quantity), 0) FROM products.reservation_lines l
                  JOIN products.reservations r USING (order_id)
                  WHERE l.product_id = s.product_id AND r.state = 'reserved') lines
                 FROM products.stock s) books
             WHERE on_hand <> ledger OR on_hand <> last OR reserved <> lines",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

pub fn form() -> Value {
    json!({
        "sku": format!("T-{}", Uuid::now_v7().simple()),
        "name": "Harbour Lamp",
        "description": "A lamp.",
        "price": {"amount": 1999, "currency": "EUR"},
        "category": "t-sea",
    })
}

pub fn id(product: &Value) -> String {
    product["id"].as_str().unwrap().to_owned()
}

pub fn reservation(order: Uuid, lines: &[(&str, u32)]) -> wire::Reservation {
    let lines = lines
        .iter()
        .map(|(product, quantity)| wire::Line { product_id: (*product).to_owned(), quantity: *quantity });
    wire::Reservation { order_id: order.to_string(), lines: lines.collect() }
}

pub async fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// Publishes `order.cancelled` for each, through the outbox at hand.
pub async fn cancel(shop: &Shop, orders: &[Uuid]) {
    let events = orders.iter().map(|order| {
        let cancelled = order::Order { id: order.to_string(), ..order::Order::default() };
        let body = order::OrderCancelled {
            order: Some(cancelled),
            reason: "customer".to_owned(),
            ..order::OrderCancelled::default()
        };
        NewEvent::new(ORDER_CANCELLED, *order, 1, &body)
    });
    let events: Vec<_> = events.collect();
    enqueue(shop, &events).await;
}

/// Writes events as a service does, but waits for a connection: the test's own pool is small, and not what is tested.
async fn enqueue(shop: &Shop, events: &[NewEvent]) {
    let connection = || async { shop.outbox.acquire().await.ok() };
    let mut connection = testing::eventually("a connection of the test's own", connection).await;
    messaging::outbox::enqueue(&mut connection, events).await.unwrap();
}

/// Sends `order.refunded` with units of the order's line that come back.
pub async fn refund(shop: &Shop, order: Uuid, product: &str, quantity: u32) {
    let refunded = order::Order { id: order.to_string(), ..order::Order::default() };
    let restock = vec![order::Restock { product_id: product.to_owned(), quantity }];
    let refund_id = Uuid::now_v7().to_string();
    let amount = 1;
    let body =
        order::OrderRefunded { order: Some(refunded), refund_id, amount, restock, ..Default::default() };
    enqueue(shop, &[NewEvent::new(ORDER_REFUNDED, order, 1, &body)]).await;
}

/// Waits until every `order.cancelled` and `order.refunded` so far was applied.
pub async fn applied(shop: &Shop) {
    let query = "SELECT count(*) FROM outbox WHERE type IN ('order.cancelled.v1', 'order.refunded.v1')
                 AND (published_at IS NULL OR id NOT IN (SELECT event_id FROM inbox))";
    testing::eventually("all cancellations are applied", async || {
        let left: i64 = sqlx::query_scalar(query).fetch_one(&shop.pool).await.unwrap();
        (left == 0).then_some(())
    })
    .await;
}

impl Drop for Shop {
    fn drop(&mut self) {
        // There is none unless an image was uploaded.
        let _ = std::fs::remove_dir_all(&self.objects);
    }
}

pub fn is_reserved(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Reserved(_))
}

/// The outcome without the time that is left, which no two answers share.
pub fn untimed(mut outcome: Outcome) -> Outcome {
    if let Outcome::Reserved(reserved) = &mut outcome {
        assert!((1..=1_200_000).contains(&reserved.remaining_ms), "{} ms", reserved.remaining_ms);
        reserved.remaining_ms = 0;
    }
    outcome
}

/// Where in the request the errors of a problem are.
pub fn pointers(problem: &Value) -> Vec<&str> {
    problem["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect()
}

/// The names on a page of products, in its order.
pub async fn names(shop: &Shop, query: &str) -> Vec<String> {
    let (status, page) = shop.get(&format!("/products{query}")).await;
    assert_eq!(status, 200, "{query}: {page}");
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}
