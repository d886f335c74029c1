//! Customers of the shop, and staff that fills its shelves.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use machine::net::{self, Answer};
use machine::state::random_hex;
use serde_json::{Value, json};

use crate::shop::{Shop, wait};

/// The edge gives an address that has vanished 2 s before it tries the next, and the services have their own.
pub const TIME_OUT: Duration = Duration::from_secs(15);

pub struct Customer {
    email: String,
    password: String,
    token: Mutex<String>,
}

impl Customer {
    /// Registers and signs in.
    pub fn new(shop: &Shop) -> Result<Customer> {
        let email = format!("customer-{}@dockside.test", random_hex()?);
        let customer = Customer { email, password: random_hex()?, token: Mutex::default() };
        let account = json!({"email": customer.email, "password": customer.password, "name": "Deploy Test"});
        call(shop, "POST", "/auth/register", &[], Some(&account), 201)?;
        customer.sign_in(shop)?;
        Ok(customer)
    }

    /// One of the demo data's accounts.
    pub fn staff(shop: &Shop) -> Result<Customer> {
        let account = ("staff@dockside.test".to_owned(), "dockside-staff".to_owned());
        let staff = Customer { email: account.0, password: account.1, token: Mutex::default() };
        staff.sign_in(shop)?;
        Ok(staff)
    }

    /// What signing in sends.
    pub fn credentials(&self) -> Value {
        json!({"email": self.email, "password": self.password})
    }

    pub fn sign_in(&self, shop: &Shop) -> Result<()> {
        let session = call(shop, "POST", "/auth/login", &[], Some(&self.credentials()), 200)?;
        self.keep(&session)
    }

    /// Uses a session's token from here on.
    pub fn keep(&self, session: &Value) -> Result<()> {
        let token = session["access_token"].as_str().context("a session without a token")?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = format!("Bearer {token}");
        Ok(())
    }

    /// The value of the header `Authorization`.
    pub fn bearer(&self) -> String {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The document that a signed-in request is answered with.
    pub fn call(
        &self,
        shop: &Shop,
        method: &str,
        path: &str,
        body: Option<&Value>,
        wanted: u16,
    ) -> Result<Value> {
        call(shop, method, path, &[("Authorization", &self.bearer())], body, wanted)
    }

    /// Places an order, waits until it is paid and returns it.
    pub fn buys(&self, shop: &Shop, product: &str) -> Result<Value> {
        let key = random_hex()?;
        let headers = [("Authorization", &*self.bearer()), ("Idempotency-Key", &key)];
        let placed = call(shop, "POST", "/orders", &headers, Some(&order(&[(product, 1)])), 201)?;
        let path = format!("/orders/{}", placed["id"].as_str().context("an order without an id")?);
        let mut order = placed;
        wait(Duration::from_secs(15), || {
            order = self.call(shop, "GET", &path, None, 200)?;
            ensure!(order["status"] == "pending" || order["status"] == "confirmed", "not bought: {order}");
            Ok(order["status"] == "confirmed")
        })
        .context("waiting until an order is confirmed")?;
        Ok(order)
    }

    /// All orders of this customer, newest first.
    pub fn orders(&self, shop: &Shop) -> Result<Vec<Value>> {
        let mut orders = Vec::new();
        let mut path = "/orders?limit=100".to_owned();
        // Bounded: nobody here places so many.
        for _ in 0..1000 {
            let page = self.call(shop, "GET", &path, None, 200)?;
            orders.extend(page["items"].as_array().context("a page without items")?.iter().cloned());
            let Some(next) = page["next_cursor"].as_str() else { return Ok(orders) };
            path = format!("/orders?limit=100&cursor={next}");
        }
        anyhow::bail!("the list of orders has no end")
    }
}

/// The body of an order of these products, each so many times.
pub fn order(lines: &[(&str, u32)]) -> Value {
    let items: Vec<Value> = lines.iter().map(|(id, n)| json!({"product_id": id, "quantity": n})).collect();
    json!({
        "items": items,
        "shipping_address": {
            "name": "Deploy Test", "line1": "1 Quay", "city": "Hull", "postal_code": "HU1 1AA", "country": "GB"
        },
        "payment_method": "pm_card_visa",
    })
}

/// The ids of some products, `stock` more of each on the shelf.
pub fn stocked(shop: &Shop, count: usize, stock: u32) -> Result<Vec<String>> {
    let staff = Customer::staff(shop)?;
    let page = staff.call(shop, "GET", &format!("/products?sort=name&limit={count}"), None, 200)?;
    let products = page["items"].as_array().context("a page without items")?;
    ensure!(products.len() == count, "the catalogue has only {} products", products.len());
    let more = json!({"delta": stock, "reason": "deploy-test"});
    products
        .iter()
        .map(|product| {
            let id = product["id"].as_str().context("a product without an id")?;
            staff.call(shop, "POST", &format!("/products/{id}/stock-adjustments"), Some(&more), 201)?;
            Ok(id.to_owned())
        })
        .collect()
}

/// # Errors
/// when the answer has another status than the one wanted.
fn call(
    shop: &Shop,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
    wanted: u16,
) -> Result<Value> {
    let Answer { status, body } = net::request(method, &shop.api(path), headers, body, TIME_OUT)?;
    ensure!(status == wanted, "{method} {path} answered {status}, not {wanted}: {body}");
    serde_json::from_str(&body).with_context(|| format!("{method} {path} answered no JSON: {body}"))
}
