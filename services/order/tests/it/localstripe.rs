//! The order service with another provider that speaks the same API, by other people: localstripe
//! (<https://pypi.org/project/localstripe/>), as it is but for one parameter that it refuses.
//!
//! `TEST_LOCALSTRIPE` is its program. `LOCALSTRIPE_ORDERS` says how many orders are paid with each of its cards.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::IntoResponse;
use futures_util::{StreamExt, stream};
use reqwest::{Client, Url};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::common::{Buyer, Shop, order_of};

const KEY: &str = "sk_test_orders";

/// Orders of a card that are placed and checked at the same time, and cards. With more, a shop that is not
/// optimised refuses some.
const AT_ONCE: (usize, usize) = (16, 4);

/// What an order that is paid with a card ends as.
#[derive(Clone, Copy, Debug)]
enum End {
    Confirmed,
    Declined,
    /// After its customer has proved who they are.
    ConfirmedAfterProof,
    DeclinedAfterProof,
}

/// Each card that localstripe 1.15.10 treats in a way of its own, by its name or number.
const TABLE: [(&str, End); 18] = [
    ("pm_card_visa", End::Confirmed),
    ("pm_card_chargeCustomerFail", End::Declined),
    // It declines these when they are attached to a customer, and never when they pay.
    ("pm_card_visa_chargeDeclined", End::Confirmed),
    ("4000000000000002", End::Confirmed),
    ("4000000000009995", End::Confirmed),
    ("4000000000009987", End::Confirmed),
    ("4000000000009979", End::Confirmed),
    ("4000000000000069", End::Confirmed),
    ("4000000000000127", End::Confirmed),
    ("4000000000000119", End::Confirmed),
    ("4242424242424241", End::Confirmed),
    ("4000000000000341", End::Declined),
    ("4000002500003155", End::ConfirmedAfterProof),
    ("4000002760003184", End::ConfirmedAfterProof),
    ("4000000000003220", End::ConfirmedAfterProof),
    ("4000000000003063", End::ConfirmedAfterProof),
    ("4000008260003178", End::DeclinedAfterProof),
    ("4000008400001629", End::DeclinedAfterProof),
];

/// A running one, and the address of a proxy before it.
struct Localstripe {
    child: Child,
    client: Client,
    /// Its own.
    url: String,
    proxy: String,
}

impl Drop for Localstripe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "tests have no settings of their own")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Localstripe {
    /// `None`, said loudly, without a program.
    async fn start() -> Option<Self> {
        let Some(program) = setting("TEST_LOCALSTRIPE") else {
            // Not by a macro, whose output a test that passes keeps to itself.
            let message =
                "\nSKIPPED, no localstripe: TEST_LOCALSTRIPE is not set. `cargo dockside test` gets it.\n";
            std::io::stderr().write_all(message.as_bytes()).ok();
            return None;
        };
        let client = Client::builder().timeout(Duration::from_secs(20)).build().expect("a client");
        let port = free_port().await;
        let child = Command::new(program)
            .args(["--from-scratch", "--port", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("localstripe starts");
        let url = format!("http://127.0.0.1:{port}");
        let proxy = proxy(url.clone()).await;
        let started = Self { child, client, url, proxy };
        testing::eventually("localstripe to answer", || async {
            let answer =
                started.client.get(format!("{}/v1/refunds", started.url)).bearer_auth(KEY).send().await;
            answer.is_ok_and(|answer| answer.status().is_success()).then_some(())
        })
        .await;
        Some(started)
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Value {
        let request = self.client.post(format!("{}{path}", self.url)).bearer_auth(KEY).form(form);
        let answer = request.send().await.expect("an answer");
        let (status, body) = (answer.status(), answer.text().await.expect("a text"));
        assert!(status.is_success() || status == StatusCode::PAYMENT_REQUIRED, "{path}: {status} {body}");
        serde_json::from_str(&body).unwrap_or_default()
    }

    async fn get(&self, path: &str) -> Value {
        let request = self.client.get(format!("{}{path}", self.url)).bearer_auth(KEY);
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    /// A shop that is paid through it, and gets its webhooks.
    async fn shop(&self) -> Shop {
        let shop = Shop::open_with(&[
            &format!("--payment-url={}", self.proxy),
            "--payment-return-url=https://shop.test/orders/{order_id}",
        ])
        .await;
        let hook = format!("{}/payments/webhook", shop.base);
        let form = [("url", hook.as_str()), ("secret", "whsec_test")];
        self.post("/_config/webhooks/shop", &form).await;
        shop
    }

    /// What an order can be paid with: a name, or what a card's number is known by here.
    async fn card(&self, card: &str) -> String {
        if card.starts_with("pm_") {
            return card.to_owned();
        }
        let form = [
            ("type", "card"),
            ("card[number]", card),
            ("card[exp_month]", "12"),
            ("card[exp_year]", "2030"),
            ("card[cvc]", "123"),
        ];
        self.post("/v1/payment_methods", &form).await["id"].as_str().expect("an id").to_owned()
    }

    /// The customer's part, once the order asks for it.
    async fn prove(&self, buyer: &Buyer<'_>, order: &str) {
        let action = testing::within(Duration::from_secs(60), "its customer to be asked", || async {
            let order = buyer.get(&format!("/orders/{order}")).await.body;
            order["payment"]["next_action"]["client_secret"].as_str().map(str::to_owned)
        })
        .await;
        let intent = action.split("_secret_").next().expect("an id");
        let path = format!("/v1/payment_intents/{intent}/_authenticate");
        self.post(&path, &[("client_secret", &action), ("success", "true")]).await;
    }
}

/// Passes everything on but `return_url`, which localstripe does not know.
/// A port that was free, below those that the system chooses from
/// (<https://docs.kernel.org/networking/ip-sysctl.html>, `ip_local_port_range`): localstripe binds it anew, and would take
/// it from another test that was given it meanwhile and does not listen yet.
async fn free_port() -> u16 {
    for _ in 0..1000 {
        let port = rand::random_range(20_000..32_000);
        if TcpListener::bind(("::", port)).await.is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

async fn proxy(target: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let client = Client::builder().timeout(Duration::from_secs(20)).build().expect("a client");
    let app = Router::new().fallback(pass).with_state(Arc::new((client, target)));
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn pass(
    State(to): State<Arc<(Client, String)>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    let (client, target) = &*to;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = client.request(method.clone(), format!("{target}{path}"));
    if let Some(key) = headers.get("authorization") {
        request = request.header("authorization", key);
    }
    if method == Method::POST {
        let mut form = Url::parse("http://form").expect("an address");
        form.set_query(std::str::from_utf8(&body).ok());
        let kept: Vec<_> = form.query_pairs().filter(|(name, _)| name != "return_url").collect();
        request = request.form(&kept);
    }
    match request.send().await {
        Ok(answer) => (answer.status(), answer.bytes().await.unwrap_or_default()),
        Err(_) => (StatusCode::BAD_GATEWAY, Bytes::new()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_end_as_the_table_says_with_each_of_localstripes_cards() {
    let count: usize = setting("LOCALSTRIPE_ORDERS").map_or(2, |count| count.parse().expect("a number"));
    let paid = |(card, end): (&'static str, End)| async move {
        // It writes all that it knows to a file at each change: what is new is quick.
        let Some(provider) = Localstripe::start().await else { return };
        let shop = provider.shop().await;
        let method = provider.card(card).await;
        let thing = shop.stock.add(1250, u32::MAX / 2);
        let orders: Vec<Ended> = stream::iter(0..count)
            .map(|_| one(&provider, &shop, thing, &method, end))
            .buffer_unordered(AT_ONCE.0)
            .collect()
            .await;
        agrees(&provider, card, end, &orders).await;
        shop.close().await;
    };
    stream::iter(TABLE).for_each_concurrent(AT_ONCE.1, paid).await;
}

/// An order that has ended: its id, and what of it went back.
struct Ended {
    order: String,
    refunded: i64,
}

/// Places one, and waits until it has ended as it is to; some of what was paid goes back.
async fn one(provider: &Localstripe, shop: &Shop, product: uuid::Uuid, method: &str, end: End) -> Ended {
    let buyer = shop.customer();
    let order = buyer.place(&order_of(product, 2, method)).await.id();
    if matches!(end, End::ConfirmedAfterProof | End::DeclinedAfterProof) {
        provider.prove(&buyer, &order).await;
    }
    let (status, payment) = match end {
        End::Confirmed | End::ConfirmedAfterProof => ("confirmed", "captured"),
        End::Declined | End::DeclinedAfterProof => ("cancelled", "declined"),
    };
    testing::within(Duration::from_secs(90), &format!("{order} to be {status} and {payment}"), || async {
        let order = buyer.get(&format!("/orders/{order}")).await.body;
        (order["status"] == status && order["payment"]["status"] == payment).then_some(())
    })
    .await;
    let mut refunded = 0;
    if status == "confirmed" {
        refunded = 900;
        let part = json!({"reason": "a dent", "amount": {"amount": refunded, "currency": "EUR"}});
        let key = uuid::Uuid::now_v7().to_string();
        // Many pay at once: a shop that is busy says so, and is asked again under the same key.
        testing::within(Duration::from_secs(60), &format!("{order}'s refund to be taken"), || async {
            let answer = shop.staff().refund_under(&key, &order, &part).await;
            assert!(matches!(answer.status.as_u16(), 201 | 503), "{}: {}", answer.status, answer.body);
            (answer.status == 201).then_some(())
        })
        .await;
        buyer.until_refunded(&order, refunded).await;
    }
    Ended { order, refunded }
}

/// Compares what the provider has with the orders: one payment for each, in the right state, and what went back.
async fn agrees(provider: &Localstripe, card: &str, end: End, orders: &[Ended]) {
    let intents = provider.get("/v1/payment_intents?limit=10000").await;
    let intents = intents["data"].as_array().expect("a list");
    assert_eq!(intents.len(), orders.len(), "{card}: one payment for each order");
    let refunds = provider.get("/v1/refunds?limit=10000").await;
    let refunds = refunds["data"].as_array().expect("a list");
    for Ended { order, refunded } in orders {
        let of: Vec<_> =
            intents.iter().filter(|intent| intent["metadata"]["order_id"] == order.as_str()).collect();
        assert_eq!(of.len(), 1, "{card}: {order}");
        let (intent, taken) = (of[0], matches!(end, End::Confirmed | End::ConfirmedAfterProof));
        assert_eq!(intent["amount"], 2500, "{card}: {order}");
        let held = ["succeeded", "requires_capture"].iter().any(|status| intent["status"] == *status);
        assert_eq!((intent["status"] == "succeeded", held), (taken, taken), "{card}: {order}: {intent}");
        let back = refunds.iter().filter(|refund| refund["payment_intent"] == intent["id"]);
        let back: i64 = back.filter_map(|refund| refund["amount"].as_i64()).sum();
        assert_eq!(back, *refunded, "{card}: {order}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_cancelled_or_abandoned_leaves_nothing_held_at_localstripe() {
    let Some(provider) = Localstripe::start().await else { return };
    let shop = provider.shop().await;
    let method = provider.card("4000002760003184").await;
    let (thing, buyer) = (shop.stock.add(1250, 10), shop.customer());
    let order = buyer.place(&order_of(thing, 2, &method)).await.id();
    testing::eventually("its customer to be asked", || async {
        let order = buyer.get(&format!("/orders/{order}")).await.body;
        (!order["payment"]["next_action"].is_null()).then_some(())
    })
    .await;
    assert_eq!(buyer.post(&format!("/orders/{order}/cancel")).await.status, 200);
    buyer.until(&order, "cancelled", "voided").await;
    let paid = buyer.buy(thing, 1).await;
    assert_eq!(buyer.post(&format!("/orders/{paid}/cancel")).await.status, 200);
    buyer.until(&paid, "cancelled", "refunded").await;
    let intents = provider.get("/v1/payment_intents?limit=100").await;
    let mut states: Vec<_> =
        intents["data"].as_array().expect("a list").iter().map(|one| &one["status"]).collect();
    states.sort_by_key(|status| status.to_string());
    assert_eq!(states, ["canceled", "succeeded"]);
}
