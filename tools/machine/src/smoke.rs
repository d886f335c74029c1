//! `smoke`: buys something through the edge and says how long each step took.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::console::{green, line, seconds};
use crate::layout::Layout;
use crate::net::{Answer, request};
use crate::process::pause;
use crate::state::{State, random_hex};

const CONFIRMED_WITHIN: Duration = Duration::from_secs(15);

pub fn run(layout: &Layout, url: Option<&str>) -> Result<ExitCode> {
    let edge = match url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => State::load(layout)
            .edge
            .context("the shop does not run here: `cargo dockside up` starts it, --url names another one")?,
    };
    let start = Instant::now();
    let shop = Shop { api: format!("{edge}/api/v1") };
    let products = timed("browse products", || {
        shop.call("GET", "/products?in_stock=true&sort=price&limit=5", None, &[], 200)
    })?;
    let product = products["items"].get(0).context("the catalogue is empty: start with demo data")?;
    let (id, name) = (text(product, "id")?, text(product, "name")?);

    let (email, password) = (format!("smoke-{}@dockside.test", random_hex()?), random_hex()?);
    let account = json!({"email": email, "password": password, "name": "Smoke Test"});
    timed("register", || shop.call("POST", "/auth/register", Some(&account), &[], 201))?;
    let login = json!({"email": email, "password": password});
    let session = timed("log in", || shop.call("POST", "/auth/login", Some(&login), &[], 200))?;
    let bearer = format!("Bearer {}", text(&session, "access_token")?);
    let signed_in = [("Authorization", bearer.as_str())];

    let order = json!({
        "items": [{"product_id": id, "quantity": 1}],
        "shipping_address": {
            "name": "Smoke Test", "line1": "1 Harbour Street", "city": "Hamburg", "postal_code": "20457", "country": "DE"
        },
        "payment_method": "pm_card_visa",
    });
    let key = random_hex()?;
    let headers = [signed_in[0], ("Idempotency-Key", key.as_str())];
    let placed =
        timed(&format!("order one {name}"), || shop.call("POST", "/orders", Some(&order), &headers, 201))?;
    let path = format!("/orders/{}", text(&placed, "id")?);
    let order = timed("wait until confirmed", || {
        let deadline = Instant::now() + CONFIRMED_WITHIN;
        loop {
            let order = shop.call("GET", &path, None, &signed_in, 200)?;
            match text(&order, "status")? {
                "confirmed" => return Ok(order),
                "pending" if Instant::now() < deadline => pause(20),
                other => bail!("the order is {other}: {order}"),
            }
        }
    })?;
    let total = &order["total"];
    let amount = total["amount"].as_u64().unwrap_or_default();
    let total = format!("{}.{:02} {}", amount / 100, amount % 100, total["currency"].as_str().unwrap_or("?"));
    line(&format!(
        "{} order {} confirmed and paid, {total}, in {}",
        green("ok"),
        text(&order, "id")?,
        seconds(start.elapsed())
    ));
    Ok(ExitCode::SUCCESS)
}

struct Shop {
    api: String,
}

impl Shop {
    /// The answer's document.
    ///
    /// # Errors
    /// when it has another status than the one wanted.
    fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
        wanted: u16,
    ) -> Result<Value> {
        let url = format!("{}{path}", self.api);
        let answer: Answer = request(method, &url, headers, body, Duration::from_secs(10))?;
        if answer.status != wanted {
            bail!("{method} {url} answered {}, not {wanted}: {}", answer.status, answer.body);
        }
        answer.json()
    }
}

fn text<'a>(document: &'a Value, field: &str) -> Result<&'a str> {
    document[field].as_str().with_context(|| format!("no {field} in {document}"))
}

fn timed<T>(what: &str, action: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let result = action().with_context(|| what.to_owned())?;
    line(&format!("  {what:<40} {:>7.1} ms", start.elapsed().as_secs_f64() * 1000.0));
    Ok(result)
}
