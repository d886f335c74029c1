//! Clients that listen to an order's events, as many as the order service takes.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::customers::{Customer, stocked};
use crate::shop::Shop;

/// Of EVENT_LISTENERS in docker-compose.yml; with many more this process has too few files.
const MOST: usize = 600;
const LEAST: usize = 100;
/// From the change of an order to the last of its listeners.
const DEADLINE: Duration = Duration::from_secs(10);

pub struct Listeners {
    streams: Vec<TcpStream>,
    order: String,
    staff: Customer,
}

impl Listeners {
    /// Fills the service up: the next client is refused for now.
    pub fn fill(shop: &Shop) -> Result<Listeners> {
        let product = stocked(shop, 1, 10)?.remove(0);
        let customer = Customer::new(shop)?;
        let order = customer.buys(shop, &product)?["id"].as_str().context("no id")?.to_owned();
        let mut streams = Vec::new();
        for _ in 0..MOST {
            let mut stream = ask(shop, &order, &customer)?;
            let head = read_until(&mut stream, "\r\n", Instant::now() + DEADLINE)?;
            if head.starts_with("HTTP/1.1 503 ") {
                ensure!(streams.len() >= LEAST, "only {} clients may listen at once", streams.len());
                return Ok(Listeners { streams, order, staff: Customer::staff(shop)? });
            }
            ensure!(head.starts_with("HTTP/1.1 200 "), "a listener was answered {head}");
            streams.push(stream);
        }
        bail!("{MOST} clients may listen at once: too many to try here");
    }

    /// Ships the order; all listeners get the change. Returns how many they were, and how long it took.
    pub fn ship(mut self, shop: &Shop) -> Result<(usize, Duration)> {
        let parcel = json!({"carrier": "Tern", "tracking_number": "T-1"});
        let start = Instant::now();
        self.staff.call(shop, "POST", &format!("/orders/{}/ship", self.order), Some(&parcel), 200)?;
        for stream in &mut self.streams {
            read_until(stream, "\"status\":\"shipped\",\"cancel_reason\"", start + DEADLINE)
                .context("waiting until a listener gets that its order was shipped")?;
        }
        Ok((self.streams.len(), start.elapsed()))
    }
}

fn ask(shop: &Shop, order: &str, customer: &Customer) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(shop.address_of_edge())?;
    write!(
        stream,
        "GET /api/v1/orders/{order}/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\r\n",
        customer.bearer()
    )?;
    Ok(stream)
}

/// What was read up to some text.
fn read_until(stream: &mut TcpStream, text: &str, deadline: Instant) -> Result<String> {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "`{text}` did not come");
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => bail!("the stream ended before `{text}`"),
            Ok(length) => read.extend_from_slice(&buffer[..length]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => return Err(e.into()),
        }
        let found = String::from_utf8_lossy(&read);
        if found.contains(text) {
            return Ok(found.into_owned());
        }
    }
}
