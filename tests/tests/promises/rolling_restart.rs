//! P7: a rolling restart loses no request, and a replica that hangs or dies in the middle of a saga is taken over.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use system_tests::{Shop, address, built, dockside, dockside_with, eventually, send};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use uuid::Uuid;

const SERVICES: [&str; 3] = ["user", "product", "order"];
const CUSTOMERS: usize = 7;
/// Between requests: 30 a second. Programs that are not optimised get through 60 on two cores, and less while a
/// replica is away and another one starts; more would be an overload, which is P8's.
const EVERY: Duration = Duration::from_millis(33);
/// What a replica has to have answered to count as reached.
const REACHED: u64 = 10;
/// A worker that is silent for longer has lost its saga.
const LEASE: Duration = Duration::from_secs(6);
/// The lease, and a call to the provider that is over before it.
const SETTINGS: [(&str, &str); 2] = [("SAGA_LEASE_SECONDS", "6"), ("PROVIDER_CALL_SECONDS", "5")];
const PASSWORD: &str = "correct horse battery";

/// A shop of two replicas each, stopped and forgotten with this.
struct Replicated {
    shop: Shop,
    dir: String,
}

impl Replicated {
    async fn start() -> Self {
        let dir: PathBuf = std::env::temp_dir().join(format!("dockside-p7-{}", std::process::id()));
        let dir = dir.to_str().unwrap().to_owned();
        // As `test` built them.
        let programs = built();
        let up =
            ["up", "--detach", "--replicas", "2", "--port", "0", "--no-storefront", "--programs", &programs];
        let up = dockside_with(&SETTINGS, &dir, &up);
        if !up.status.success() {
            down(&dir);
            panic!("up: {}{}", String::from_utf8_lossy(&up.stdout), String::from_utf8_lossy(&up.stderr));
        }
        Self { shop: Shop::open_in(&dir).await, dir }
    }

    fn processes() -> impl Iterator<Item = String> {
        SERVICES.into_iter().flat_map(|service| [service.to_owned(), format!("{service}-2")])
    }

    /// HTTP requests that a replica has answered since it started.
    async fn answered(&self, name: &str) -> Option<u64> {
        let admin = self.shop.process(name)?["admin"].as_str()?.to_owned();
        let text = self.shop.client.get(format!("{admin}/metrics")).send().await.ok()?.text().await.ok()?;
        let counts =
            text.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count"));
        Some(counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }

    /// Waits until the load has reached each of these.
    async fn reached(&self, names: impl Iterator<Item = String>) {
        for name in names {
            let enough = || async { self.answered(&name).await.filter(|count| *count >= REACHED) };
            eventually(&format!("requests to reach {name}"), Duration::from_secs(10), enough).await;
        }
    }

    fn pids(&self, service: &str) -> [Option<u64>; 2] {
        [service.to_owned(), format!("{service}-2")].map(|name| self.shop.process(&name)?["pid"].as_u64())
    }
}

impl Drop for Replicated {
    fn drop(&mut self) {
        down(&self.dir);
    }
}

fn down(dir: &str) {
    dockside(dir, &["down", "--wipe"]);
}

/// Customers, and what became of what they sent.
struct Load {
    /// Never sends anything twice, not even what it could not send.
    client: reqwest::Client,
    api: String,
    product: Uuid,
    customers: Vec<Customer>,
    results: Mutex<Results>,
    stop: AtomicBool,
}

struct Customer {
    email: String,
    address: String,
    /// Held by whoever renews them: a refresh token is good for once.
    tokens: Mutex<Value>,
}

#[derive(Default)]
struct Results {
    answered: usize,
    lost: Vec<String>,
    placed: Vec<Uuid>,
}

impl Load {
    async fn new(shop: &Shop) -> Self {
        let mut customers = Vec::new();
        for _ in 0..CUSTOMERS {
            let email = format!("{}@example.test", Uuid::now_v7());
            let account = json!({"email": email, "password": PASSWORD, "name": "Ada"});
            let registered = send(shop.request(Method::POST, "/auth/register").json(&account)).await.unwrap();
            assert_eq!(registered.status, 201, "{}", registered.body);
            let login = json!({"email": email, "password": PASSWORD});
            let tokens = send(shop.request(Method::POST, "/auth/login").json(&login)).await.unwrap().body;
            let bearer = tokens["access_token"].as_str().unwrap();
            let saved = shop.request(Method::POST, "/me/addresses").bearer_auth(bearer).json(&address());
            let address = send(saved).await.unwrap().id();
            customers.push(Customer { email, address, tokens: Mutex::new(tokens) });
        }
        let retries = reqwest::retry::never();
        let client =
            reqwest::Client::builder().timeout(Duration::from_secs(15)).retry(retries).build().unwrap();
        Self {
            client,
            api: format!("{}/api/v1", shop.edge),
            product: shop.product(100_000).await,
            customers,
            results: Mutex::default(),
            stop: AtomicBool::new(false),
        }
    }

    /// Until stopped; then until all answers are there.
    async fn run(self: Arc<Self>) {
        let mut requests = JoinSet::new();
        let mut ticks = tokio::time::interval(EVERY);
        for number in 0.. {
            ticks.tick().await;
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let load = self.clone();
            requests.spawn(async move { load.send(number).await });
        }
        requests.join_all().await;
    }

    async fn send(&self, number: usize) {
        // The factors have no divisor in common, so that each customer sends all kinds.
        let (customer, kind) = (&self.customers[number % CUSTOMERS], number % 20);
        let start = Instant::now();
        let judged = match kind {
            0 => self.signed_in(customer, "/auth/login").await,
            1 => self.signed_in(customer, "/auth/refresh").await,
            _ => self.shopped(customer, kind).await,
        };
        let mut results = self.results.lock().await;
        match judged {
            Ok(order) => {
                results.answered += 1;
                results.placed.extend(order);
            }
            Err(lost) => results.lost.push(format!("kind {kind}, after {:?}: {lost}", start.elapsed())),
        }
    }

    async fn judge(&self, request: RequestBuilder, wanted: u16) -> Result<Value, String> {
        let answer = send(request).await.map_err(|error| format!("{error:?}"))?;
        if answer.status == wanted {
            Ok(answer.body)
        } else {
            Err(format!("{} {}", answer.status, answer.body))
        }
    }

    async fn signed_in(&self, customer: &Customer, path: &str) -> Result<Option<Uuid>, String> {
        let mut tokens = customer.tokens.lock().await;
        let body = match path {
            "/auth/login" => json!({"email": customer.email, "password": PASSWORD}),
            _ => json!({"refresh_token": tokens["refresh_token"]}),
        };
        *tokens = self.judge(self.client.post(format!("{}{path}", self.api)).json(&body), 200).await?;
        Ok(None)
    }

    async fn shopped(&self, customer: &Customer, kind: usize) -> Result<Option<Uuid>, String> {
        let bearer = customer.tokens.lock().await["access_token"].as_str().unwrap_or_default().to_owned();
        let request = |method, path: &str| {
            self.client.request(method, format!("{}{path}", self.api)).bearer_auth(&bearer)
        };
        let product = self.product;
        match kind {
            2..=5 => self.judge(request(Method::GET, "/products?in_stock=true&limit=20"), 200).await?,
            6..=8 => self.judge(request(Method::GET, &format!("/products/{product}")), 200).await?,
            9..=11 => {
                let item = request(Method::PUT, &format!("/cart/items/{product}"));
                self.judge(item.json(&json!({"quantity": kind})), 200).await?
            }
            12 | 13 => self.judge(request(Method::GET, "/cart"), 200).await?,
            14 => self.judge(request(Method::GET, "/me"), 200).await?,
            // Placed, then read.
            _ => {
                let order =
                    request(Method::POST, "/orders").header("Idempotency-Key", Uuid::now_v7().to_string());
                let order = order.json(&json!({
                    "items": [{"product_id": product, "quantity": 1}],
                    "address_id": customer.address, "payment_method": "pm_card_visa",
                }));
                let placed = self.judge(order, 201).await?;
                let id = placed["id"].as_str().and_then(|id| id.parse().ok());
                let id: Uuid = id.ok_or_else(|| format!("no id in {placed}"))?;
                self.judge(request(Method::GET, &format!("/orders/{id}")), 200).await?;
                return Ok(Some(id));
            }
        };
        Ok(None)
    }
}

/// Waits until all of these are confirmed.
async fn confirmed(shop: &Shop, orders: &[Uuid], deadline: Duration) {
    let all = || async {
        let open = "SELECT count(*) FROM orders.orders WHERE id = ANY($1) AND status = 'confirmed'
                    AND payment_status = 'captured'";
        let count: i64 = sqlx::query_scalar(open).bind(orders).fetch_one(&shop.database).await.ok()?;
        (count == orders.len() as i64).then_some(())
    };
    eventually(&format!("{} orders to be confirmed", orders.len()), deadline, all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_a_rolling_restart_loses_no_request_and_a_hung_or_dead_replica_is_taken_over() {
    let own = Replicated::start().await;
    let load = Arc::new(Load::new(&own.shop).await);
    let running = tokio::spawn(load.clone().run());
    own.reached(Replicated::processes()).await;
    let mut restarted = BTreeMap::new();
    for service in SERVICES {
        let (before, dir, asked) = (own.pids(service), own.dir.clone(), Instant::now());
        let restart = tokio::task::spawn_blocking(move || dockside(&dir, &["restart", service]));
        let restart = restart.await.unwrap();
        assert!(restart.status.success(), "{}", String::from_utf8_lossy(&restart.stderr));
        restarted.insert(service, asked.elapsed());
        let after = own.pids(service);
        assert!(
            after.iter().all(|pid| pid.is_some() && !before.contains(pid)),
            "{service}: {before:?}, then {after:?}"
        );
        own.reached([service.to_owned(), format!("{service}-2")].into_iter()).await;
    }
    let enough = || async { (load.results.lock().await.placed.len() > 100).then_some(()) };
    eventually("more than 100 orders to be placed", Duration::from_secs(60), enough).await;
    load.stop.store(true, Ordering::Relaxed);
    running.await.unwrap();
    let results = load.results.lock().await;
    let sent = results.answered + results.lost.len();
    let shown = results.lost.iter().take(5).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(results.lost.is_empty(), "{} of {sent} requests were lost:\n{shown}", results.lost.len());
    confirmed(&own.shop, &results.placed, Duration::from_secs(60)).await;
    let sold = results.placed.len() as i64;
    assert_eq!(own.shop.stock(load.product).await, (100_000 - sold, 0));
    println!("{sent} requests, {sold} of them orders, through {restarted:?}: none lost");
    for fate in ["-STOP", "-KILL"] {
        taken_over(&own.shop, fate).await;
    }
}

fn signal(pid: u64, signal: &str) {
    let sent = std::process::Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
    assert!(sent.success(), "{signal} of {pid}");
}

/// Orders whose replica hangs, or dies, while it waits for the provider: the other one finishes them.
async fn taken_over(shop: &Shop, fate: &str) {
    let (product, buyer) = (shop.product(10).await, shop.customer().await);
    // Nobody else may take the sagas up. By process ids from here on: `status` waits for whoever is stopped.
    let [Some(order), Some(other)] =
        ["order", "order-2"].map(|name| shop.process(name).and_then(|process| process["pid"].as_u64()))
    else {
        panic!("two replicas run");
    };
    let replica = shop.process("order-2").unwrap()["http"].as_str().unwrap().to_owned();
    signal(order, "-STOP");
    let mut orders = Vec::new();
    // The first is left alone between questions, the others wait for an answer that does not come.
    for card in ["pm_card_slow", "pm_card_confirm_lost", "pm_card_confirm_lost"] {
        let order = shop.client.post(format!("{replica}/api/v1/orders")).bearer_auth(&buyer.token);
        let order = order.header("Idempotency-Key", Uuid::now_v7().to_string()).json(&json!({
            "items": [{"product_id": product, "quantity": 1}],
            "shipping_address": address(), "payment_method": card,
        }));
        let placed = send(order).await.unwrap();
        assert_eq!(placed.status, 201, "{}", placed.body);
        orders.push(placed.id().parse::<Uuid>().unwrap());
    }
    let asked = || async {
        let asked = "SELECT count(*), count(*) FILTER (WHERE lease_until > now())
                     FROM orders.sagas WHERE order_id = ANY($1) AND intent_id IS NOT NULL";
        let asked = sqlx::query_as(asked).bind(&orders[1..]);
        let both: (i64, i64) = asked.fetch_one(&shop.database).await.ok()?;
        (both == (2, 2)).then_some(())
    };
    eventually("the replica to wait for the provider", Duration::from_secs(5), asked).await;
    let struck = Instant::now();
    signal(other, fate);
    let open = "SELECT count(*) FROM orders.orders WHERE id = ANY($1) AND status = 'pending'";
    let open: i64 = sqlx::query_scalar(open).bind(&orders).fetch_one(&shop.database).await.unwrap();
    assert_eq!(open, 3, "the replica was to be struck before it was done");
    signal(order, "-CONT");
    // It is started again, and is not to finish them itself.
    let successor = if fate == "-KILL" {
        let another = || async {
            let pid = shop.process("order-2")?["pid"].as_u64()?;
            (pid != other).then_some(pid)
        };
        eventually("the replica to be started again", Duration::from_secs(4), another).await
    } else {
        other
    };
    signal(successor, "-STOP");
    confirmed(shop, &orders, LEASE + Duration::from_secs(30)).await;
    println!("taken over and confirmed {:?} after {fate} of the replica", struck.elapsed());

    signal(successor, "-CONT");
    let awake = || async {
        let orders = shop.client.get(format!("{replica}/api/v1/orders")).bearer_auth(&buyer.token);
        (send(orders).await.ok()?.status == 200).then_some(())
    };
    eventually("the replica to answer again", Duration::from_secs(10), awake).await;
    for order in &orders {
        let ledger = shop.ledger(&order.to_string()).await;
        assert_eq!((&ledger["captured"], &ledger["captures"]), (&json!(1250), &json!(1)), "{ledger}");
    }
    assert_eq!(shop.stock(product).await, (7, 0));
}
