//! What somebody reads who listens between the services, their stores and each other: nothing by TLS, and without it
//! what a customer would not want read.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use machine::layout::Layout;
use machine::servers::{start, tls};
use machine::state::Secrets;
use machine::supervisor::Supervisor;
use operator::certificates;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use service::Lifecycle;
use service::serve::Addresses;
use sqlx::{Connection, Executor, PgConnection};
use testing::within;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(60);

const EMAIL: &str = "ada.lovelace@example.com";
const PASSWORD: &str = "nine analytical engines";
const STREET: &str = "12 St James's Square";

/// All that goes through one of its addresses.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Vec<u8>>>);

impl Listener {
    /// An address in front of `target`, a host and a port.
    async fn before(&self, target: String) -> String {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, heard) = (port.local_addr().unwrap().to_string(), self.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = port.accept().await {
                let (target, heard) = (target.clone(), heard.clone());
                tokio::spawn(async move {
                    let server = TcpStream::connect(target).await?;
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::select! {
                        ended = heard.carry(from_client, to_server) => ended,
                        ended = heard.carry(from_server, to_client) => ended,
                    }
                });
            }
        });
        address
    }

    async fn carry(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) -> std::io::Result<()> {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let read = match from.read(&mut bytes).await? {
                0 => return Ok(()),
                read => &bytes[..read],
            };
            self.0.lock().unwrap().extend_from_slice(read);
            to.write_all(read).await?;
        }
    }

    fn read(&self, text: &str) -> bool {
        let heard = self.0.lock().unwrap();
        heard.windows(text.len()).any(|part| part == text.as_bytes())
    }
}

/// What was heard while a customer registered, signed in and bought something, between all processes of the shop but
/// browsers and the card provider; and what nobody should read there.
struct Heard {
    stores: Listener,
    services: Listener,
    secrets: Vec<(&'static str, String)>,
}

async fn journey(encrypted: bool) -> Heard {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let dir = std::env::temp_dir().join(format!("wire-{}", Uuid::now_v7().simple()));
    let layout = Layout { root, dir, passing: true, measured: false, observed: false, tls: encrypted };
    layout.prepare().unwrap();
    let of_all = ["servers", "user", "product", "order"].map(str::to_owned);
    certificates::make(&tls::folder(&layout), &of_all, &["localhost", "127.0.0.1"].map(str::to_owned))
        .unwrap();
    let passwords = Secrets::load_or_create(&layout).unwrap();
    let supervisor = Supervisor::new(&layout).unwrap();
    let database = start::postgres(&layout, &supervisor, &passwords, None, false).unwrap();
    let broker = start::rabbitmq(&layout, &supervisor, &passwords, None, false).unwrap();
    start::rabbitmq_ready(&supervisor, &broker).unwrap();

    let (stores, services) = (Listener::default(), Listener::default());
    let heard_database =
        machine::url::Url { host: stores.before(database.host.clone()).await, ..database.clone() };
    let heard_broker = broker.at(stores.before(broker.host().to_owned()).await);
    let scheme = if encrypted { "https" } else { "http" };
    let key = service::peer::generate().unwrap();
    let sandbox = payment_sandbox::Config::parse_from([
        "payment-sandbox",
        "--http-addr=127.0.0.1:0",
        &format!("--data-dir={}", layout.dir.join("sandbox").display()),
        "--secret-key=sk_test_wire",
    ]);
    let sandbox = payment_sandbox::start(sandbox).await.unwrap();
    let lifecycle = Lifecycle::new();
    let arguments = |name: &str, password: &str, own: Vec<String>| {
        let mut all = vec![name.to_owned()];
        all.extend(["http", "grpc", "admin"].map(|port| format!("--{port}-addr=127.0.0.1:0")));
        let role = format!("{name}_service");
        all.push(format!("--database-url={}", heard_database.with_account(&role, password)));
        all.push(format!("--amqp-url={}", heard_broker.url_for(name, password)));
        // The card provider's stand-in speaks plain.
        all.push(format!("--allow-plaintext={}", !encrypted || name == "order"));
        all.extend(encrypted.then(|| format!("--tls-dir={}", tls::of(&layout, name).display())));
        all.extend(own);
        all
    };
    let trusted = format!("--trusted-callers=order={}", key.public_key);
    let own = vec![trusted.clone(), "--demo-accounts=true".to_owned()];
    let user = user::Config::parse_from(arguments("user", &passwords.user, own));
    let user: Addresses = user::start(user, &lifecycle).await.unwrap();
    let user_grpc = format!("{scheme}://{}", services.before(user.grpc.to_string()).await);
    let jwks = format!("--jwks-url={user_grpc}/.well-known/jwks.json");
    let objects = format!("--object-store-url=file://{}", layout.dir.join("objects").display());
    let own = vec![jwks.clone(), trusted, objects];
    let product = product::Config::parse_from(arguments("product", &passwords.product, own));
    let product = product::start(product, &lifecycle).await.unwrap();
    let own = vec![
        jwks,
        format!("--product-grpc={scheme}://{}", services.before(product.grpc.to_string()).await),
        format!("--user-grpc={user_grpc}"),
        format!("--service-key={}", key.private_key_pem),
        format!("--payment-url=http://{}", sandbox.addr),
        "--payment-secret-key=sk_test_wire".to_owned(),
        "--payment-webhook-secret=whsec_test".to_owned(),
    ];
    let order = order::Config::parse_from(arguments("order", &passwords.order, own));
    let order = order::start(order, &lifecycle).await.unwrap();

    // Past the listener, as an administrator.
    let mut admin = PgConnection::connect(&database.to_string()).await.unwrap();
    let category = "INSERT INTO products.categories (slug, name, position) VALUES ('sea', 'Sea', 1)";
    admin.execute(category).await.unwrap();
    let client = Client::builder().timeout(PATIENCE).build().unwrap();
    let at = |service: &Addresses, path: &str| client.post(format!("http://{}/api/v1{path}", service.http));
    let staff = json!({"email": "staff@dockside.test", "password": "dockside-staff"});
    let staff = send(at(&user, "/auth/login").json(&staff)).await;
    let thing = json!({
        "sku": "T-1", "name": "Lantern", "description": "For tests.", "category": "sea", "stock": 5,
        "price": {"amount": 1250, "currency": "EUR"},
    });
    let made = at(&product, "/products").bearer_auth(text(&staff, "access_token"));
    let thing = send(made.header("Idempotency-Key", "1").json(&thing)).await;

    let customer = json!({"email": EMAIL, "password": PASSWORD, "name": "Ada"});
    send(at(&user, "/auth/register").json(&customer)).await;
    let signed_in = json!({"email": EMAIL, "password": PASSWORD});
    let signed_in = send(at(&user, "/auth/login").json(&signed_in)).await;
    let (access, refresh) = (text(&signed_in, "access_token"), text(&signed_in, "refresh_token"));
    let address = json!({
        "name": "Ada", "line1": STREET, "city": "London", "postal_code": "SW1Y 4JH", "country": "GB",
    });
    let saved = send(at(&user, "/me/addresses").bearer_auth(&access).json(&address)).await;
    let wanted = json!({
        "items": [{"product_id": thing["id"], "quantity": 2}],
        "address_id": saved["id"], "payment_method": "pm_card_visa",
    });
    let placed = at(&order, "/orders").bearer_auth(&access).header("Idempotency-Key", "2").json(&wanted);
    send(placed).await;
    let admin = tokio::sync::Mutex::new(admin);
    // Confirmed, and the customer is told of it: by way of the broker.
    let told = || async {
        let count = "SELECT count(*) FROM users.notifications WHERE kind LIKE 'order.confirmed.%'";
        let count: i64 = sqlx::query_scalar(count).fetch_one(&mut *admin.lock().await).await.unwrap();
        (count > 0).then_some(())
    };
    within(PATIENCE, "the confirmation", told).await;

    lifecycle.shutdown(Duration::from_secs(15)).await;
    supervisor.stop();
    std::fs::remove_dir_all(&layout.dir).ok();
    let secrets = vec![
        ("e-mail address", EMAIL.to_owned()),
        ("password", PASSWORD.to_owned()),
        ("street", STREET.to_owned()),
        ("access token", access),
        ("refresh token", refresh),
        ("password of user", passwords.user),
        ("password of product", passwords.product),
        ("password of order", passwords.order),
    ];
    Heard { stores, services, secrets }
}

async fn send(request: RequestBuilder) -> Value {
    let answer = request.send().await.unwrap();
    let (status, body) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success(), "{status} {body}");
    serde_json::from_str(&body).unwrap_or_default()
}

fn text(answer: &Value, field: &str) -> String {
    answer[field].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_between_the_processes_reads_no_secret_and_nothing_about_a_customer() {
    let heard = journey(true).await;
    for (who, listener) in [("stores", &heard.stores), ("services", &heard.services)] {
        let bytes = listener.0.lock().unwrap().len();
        assert!(bytes > 4_000, "{bytes} bytes between services and {who}");
        for (what, secret) in &heard.secrets {
            assert!(!listener.read(secret), "the {what} was read on the way to {who}");
        }
    }

    // The same in the clear, or the listener hears nothing at all.
    let heard = journey(false).await;
    let read = |listener: &Listener, wanted: &str| {
        let (_, secret) = heard.secrets.iter().find(|(what, _)| *what == wanted).unwrap();
        listener.read(secret)
    };
    for what in ["e-mail address", "street", "password of order"] {
        assert!(read(&heard.stores, what), "the {what} was not heard in the clear");
    }
    assert!(read(&heard.services, "street"), "the street was not heard between services");
}
