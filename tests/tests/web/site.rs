//! The shop under test, and what is done on most of its pages.

use serde_json::{Value, json};
use system_tests::{Shop, eventually, send};
use uuid::Uuid;

use std::time::Duration;

use crate::browser::Browser;

pub const PASSWORD: &str = "correct horse battery";

pub struct Site {
    pub shop: Shop,
    /// The storefront's address in browsers.
    pub pages: String,
    /// Chromium's driver.
    pub driver: String,
}

#[expect(clippy::disallowed_methods, reason = "tests have no settings of their own")]
pub fn given(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn setting(name: &str) -> String {
    given(name).unwrap_or_else(|| panic!("{name} is not set: run these with `cargo dockside test web`"))
}

/// Somebody who has signed up in a browser.
pub struct Person {
    pub email: String,
}

impl Site {
    pub async fn open() -> Self {
        let shop = Shop::open().await;
        // They are at the edge, but for one who works on them.
        let pages = given("TEST_PAGES").unwrap_or_else(|| shop.edge.clone());
        Self { pages: pages.trim_end_matches('/').to_owned(), driver: setting("TEST_CHROMEDRIVER"), shop }
    }

    /// The orders of somebody who signed up in a browser.
    pub async fn orders(&self, person: &Person) -> Vec<Value> {
        let buyer = self.shop.sign_in(&person.email, PASSWORD).await;
        buyer.get("/orders").await.body["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until their one order has ended: it as it is then.
    pub async fn only_order(&self, person: &Person) -> Value {
        let buyer = self.shop.sign_in(&person.email, PASSWORD).await;
        let orders = buyer.get("/orders").await.body["items"].as_array().cloned().unwrap_or_default();
        assert_eq!(orders.len(), 1, "{orders:?}");
        buyer.ended(orders[0]["id"].as_str().unwrap()).await
    }

    /// A session of theirs whose access token has run out by the storefront's clock, as the cookie that a browser sets.
    pub async fn worn_session(&self, person: &Person) -> Value {
        let body = json!({"email": person.email, "password": PASSWORD});
        let tokens =
            send(self.shop.request(reqwest::Method::POST, "/auth/login").json(&body)).await.unwrap().body;
        let session = json!({"a": tokens["access_token"], "r": tokens["refresh_token"], "u": 0, "n": "Ada"});
        let secrets: Value = serde_json::from_str(&self.shop.file("secrets.json")).unwrap();
        let key = secrets["cookie_key"].as_str().unwrap();
        let key: Vec<u8> =
            (0..key.len() / 2).map(|n| u8::from_str_radix(&key[2 * n..2 * n + 2], 16).unwrap()).collect();
        let mut jar = cookie::CookieJar::new();
        jar.private_mut(&cookie::Key::from(&key)).add(cookie::Cookie::new("session", session.to_string()));
        let value = jar.get("session").unwrap().value();
        json!({"url": self.pages, "name": "session", "value": value, "httpOnly": true, "sameSite": "Lax"})
    }

    /// Staff change a product, as it is now.
    pub async fn change(&self, product: Uuid, change: &Value) {
        let staff = self.shop.staff().await;
        let path = format!("/products/{product}");
        let now = staff.get(&path).await;
        let tag = now.headers["etag"].to_str().unwrap();
        let change = staff.request(reqwest::Method::PATCH, &path).header("If-Match", tag).json(change);
        let answer = send(change).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// Staff add or take units.
    pub async fn adjust(&self, product: Uuid, delta: i32) {
        let body = json!({"delta": delta, "reason": "A test"});
        let answer =
            self.shop.staff().await.post(&format!("/products/{product}/stock-adjustments"), &body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
}

/// What people do.
impl Browser<'_> {
    pub async fn put_in_cart(&self, product: Uuid, quantity: u32) {
        self.goto(&format!("/products/{product}")).await;
        self.fill(".buy input[name=quantity]", &quantity.to_string()).await;
        self.click(".buy button").await;
        self.comes_to("/cart").await;
    }

    /// Signs up on the page that is open, which goes on to where it was told.
    pub async fn sign_up_here(&self) -> Person {
        let email = format!("{}@example.test", Uuid::now_v7());
        self.fill("#name", "Ada").await;
        self.fill("#email", &email).await;
        self.fill("#password", PASSWORD).await;
        self.click("main form button").await;
        Person { email }
    }

    pub async fn sign_up(&self) -> Person {
        self.goto("/sign-up").await;
        let person = self.sign_up_here().await;
        self.reads("[role=status]", "Welcome").await;
        person
    }

    pub async fn sign_in_here(&self, email: &str, password: &str) {
        self.fill("#email", email).await;
        self.fill("#password", password).await;
        self.click("main form button").await;
    }

    pub async fn fill_address(&self) {
        self.fill("#line1", "1 Quay").await;
        self.fill("#postal_code", "HU1 1AA").await;
        self.fill("#city", "Hull").await;
        self.select("#country", "GB").await;
    }

    /// At the checkout with so many of it in the cart, as somebody new, and the form filled in.
    pub async fn at_checkout(&self, product: Uuid, quantity: u32, card: &str) -> Person {
        let person = self.sign_up().await;
        self.put_in_cart(product, quantity).await;
        self.click("a[href='/checkout']").await;
        self.comes_to("/checkout").await;
        self.fill_address().await;
        self.click(&format!("input[value='{card}']")).await;
        person
    }

    /// Pays, and comes to the order: its id.
    pub async fn pay(&self) -> String {
        self.click(PAY).await;
        self.at_order().await
    }

    pub async fn at_order(&self) -> String {
        self.comes_to("/orders/").await["/orders/".len()..].to_owned()
    }

    /// Comes to the order by sending the same form again, as long as the page says that nobody knows yet.
    pub async fn insist(&self) {
        let at_order = || async {
            if self.path().await.starts_with("/orders/") {
                return Some(());
            }
            if self.has(AGAIN).await {
                self.click(AGAIN).await;
            }
            None
        };
        eventually("the order's page", Duration::from_secs(60), at_order).await;
    }

    /// Waits until the page that is open shows that its order is so far, by itself.
    pub async fn order_becomes(&self, status: &str) {
        self.find(&format!(".now .status-{status}")).await;
    }

    /// The same without script: by reloading it.
    pub async fn order_becomes_when_reloaded(&self, status: &str) {
        let css = format!(".now .status-{status}");
        let reloaded = || async {
            self.click(".without-script a").await;
            self.has(&css).await.then_some(())
        };
        eventually(&format!("an order that is {status}"), Duration::from_secs(60), reloaded).await;
    }
}

/// The button that pays.
pub const PAY: &str = "aside button";

/// The button that sends the same form again.
const AGAIN: &str = ".narrow form[action='/checkout'] button";
