//! A load at a fixed rate, of what signed-in customers do. Every answer is judged, nothing is sent twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use machine::net;
use machine::state::random_hex;
use serde_json::{Value, json};

use crate::customers::{Customer, TIME_OUT, order, stocked};
use crate::shop::Shop;

/// No divisor in common with the hundred [kinds](role), so that each customer sends all of them.
const CUSTOMERS: usize = 11;
const PRODUCTS: usize = 20;
/// Of each product, so that nothing is sold out: 2,400 orders a minute at the highest rate.
const STOCK: u32 = 1000;
/// Requests that may wait for their answers at a time: with fewer, a pause of the shop would slow the load.
const WORKERS: usize = 256;
/// What has to be reached of the rate that is claimed.
const LEAST_SHARE: f64 = 0.95;
/// No request may wait longer: the edge tries another replica after 2 s.
const SLOWEST: Duration = Duration::from_secs(5);
/// Of those that failed, how many are listed.
const SHOWN: usize = 5;

pub struct Load<'a> {
    shop: &'a Shop,
    /// Requests a second.
    rate: u32,
    /// Requests have the ids `<run>-<n>`.
    pub run: String,
    pub customers: Vec<Customer>,
    products: Vec<String>,
}

/// An order that was answered with 201.
pub struct Placed {
    pub id: String,
    pub key: String,
    pub customer: usize,
    /// In minor units.
    pub total: u64,
    pub units: u32,
}

/// A request that did not get the answer that it should.
pub struct Lost {
    what: String,
    status: Option<u16>,
    /// Of an order, which may be there or not.
    pub key: Option<String>,
}

/// What became of a load.
#[derive(Default)]
pub struct Report {
    pub sent: usize,
    pub lost: Vec<Lost>,
    pub placed: Vec<Placed>,
    /// From when a request was due to its whole answer, sorted.
    latencies: Vec<Duration>,
    took: Duration,
}

struct Request<'a> {
    method: &'static str,
    path: String,
    body: Option<Value>,
    signed: bool,
    wanted: u16,
    /// Keeps what later requests need; an answer that it cannot use is a wrong one.
    keep: Keep<'a>,
}

enum Keep<'a> {
    /// It has this field.
    Field(&'a str),
    Session,
    /// Of so many units.
    Order(u32),
}

impl<'a> Load<'a> {
    /// Registers customers and fills shelves.
    pub fn new(shop: &'a Shop, rate: u32) -> Result<Load<'a>> {
        let customers = (0..CUSTOMERS).map(|_| Customer::new(shop)).collect::<Result<Vec<_>>>()?;
        Ok(Load { shop, rate, run: random_hex()?, customers, products: stocked(shop, PRODUCTS, STOCK)? })
    }

    /// Keeps the load up while `action` runs, and ends with it.
    ///
    /// # Errors
    /// of `action`, with what became of the load until then.
    pub fn during<T>(&self, action: impl FnOnce() -> Result<T>) -> Result<(T, Report)> {
        let (stop, schedule, report) = (AtomicBool::new(false), Mutex::new(0), Mutex::new(Report::default()));
        let start = Instant::now();
        let (done, took) = thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    while let Some((number, due)) = self.next(&schedule, start, &stop) {
                        let answer = self.send(number);
                        let took = due.elapsed();
                        report.lock().unwrap_or_else(PoisonError::into_inner).add(answer, took);
                    }
                });
            }
            let done = action();
            stop.store(true, Ordering::Relaxed);
            (done, start.elapsed())
        });
        let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.took = took;
        report.latencies.sort_unstable();
        let done = done.with_context(|| match report.none_lost() {
            Ok(()) => format!("under {}, none lost", report.summary()),
            Err(lost) => format!("under {}; {lost}\n  the step itself", report.summary()),
        })?;
        Ok((done, report))
    }

    /// The number of the next request, once it is due, and since when it is; `None` at the end.
    fn next(&self, schedule: &Mutex<u32>, start: Instant, stop: &AtomicBool) -> Option<(u32, Instant)> {
        // Held while sleeping: whoever has it sends the next request, the others have nothing to do before.
        let mut next = schedule.lock().unwrap_or_else(PoisonError::into_inner);
        let due = start + Duration::from_secs(1) * *next / self.rate;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        let number = *next;
        *next += 1;
        Some((number, due))
    }

    fn send(&self, number: u32) -> Result<Option<Placed>, Lost> {
        let (customer, kind) = role(number);
        let (id, request) = (format!("{}-{number}", self.run), self.request(number, customer, kind));
        let bearer = self.customers[customer].bearer();
        let ordering = matches!(request.keep, Keep::Order(_));
        let mut headers = vec![("X-Request-Id", id.as_str())];
        headers.extend(request.signed.then_some(("Authorization", bearer.as_str())));
        headers.extend(ordering.then_some(("Idempotency-Key", id.as_str())));
        let mut status = None;
        let mut judge = || -> Result<Option<Placed>> {
            let url = self.shop.api(&request.path);
            let answer = net::request(request.method, &url, &headers, request.body.as_ref(), TIME_OUT)?;
            status = Some(answer.status);
            ensure!(answer.status == request.wanted, "answered {}: {}", answer.status, answer.body);
            // An answer that was cut off is no JSON.
            let answer = answer.json()?;
            match request.keep {
                Keep::Field(name) => ensure!(!answer[name].is_null(), "no {name} in {answer}"),
                Keep::Session => self.customers[customer].keep(&answer)?,
                Keep::Order(units) => {
                    let total = answer["total"]["amount"].as_u64().context("no total")?;
                    let (key, id) = (id.clone(), answer["id"].as_str().context("no id")?.to_owned());
                    return Ok(Some(Placed { id, key, customer, total, units }));
                }
            }
            Ok(None)
        };
        judge().map_err(|e| {
            let what = format!("{} {}, request {id}: {e:#}", request.method, request.path);
            Lost { what, status, key: ordering.then(|| id.clone()) }
        })
    }

    /// A hundred in a row: 46 reads of the catalogue, 19 searches, 24 of cart and orders, a sign-in, ten
    /// orders.
    fn request(&self, number: u32, customer: usize, kind: u32) -> Request<'static> {
        let get = |path: String, field| Request {
            method: "GET",
            path,
            body: None,
            signed: true,
            wanted: 200,
            keep: Keep::Field(field),
        };
        let product = self.products[number as usize / 7 % PRODUCTS].as_str();
        match kind {
            0..22 => get("/products?in_stock=true&limit=20".to_owned(), "items"),
            22..42 => get(format!("/products/{product}"), "stock"),
            42..46 => get("/categories".to_owned(), "items"),
            46..65 => {
                let word = ["jacket", "coffee", "wool", "lamp", "jaket"][number as usize / 100 % 5];
                get(format!("/products?q={word}&limit=10"), "items")
            }
            65..74 => get("/cart".to_owned(), "total"),
            74..80 => Request {
                method: "PUT",
                body: Some(json!({"quantity": 1 + number % 9})),
                ..get(format!("/cart/items/{product}"), "total")
            },
            80..89 => get("/orders?limit=10".to_owned(), "items"),
            89 => Request {
                method: "POST",
                body: Some(self.customers[customer].credentials()),
                signed: false,
                keep: Keep::Session,
                ..get("/auth/login".to_owned(), "")
            },
            _ => {
                let other = self.products[(number as usize / 7 + 1) % PRODUCTS].as_str();
                let lines = [(product, 1), (other, 2)];
                let lines = if number.is_multiple_of(3) { &lines[..] } else { &lines[..1] };
                Request {
                    method: "POST",
                    body: Some(order(lines)),
                    wanted: 201,
                    keep: Keep::Order(lines.iter().map(|(_, units)| units).sum()),
                    ..get("/orders".to_owned(), "")
                }
            }
        }
    }
}

/// Which customer sends a request, and which of a hundred kinds it is. Any factor without a divisor in common with 100
/// mixes the kinds.
fn role(number: u32) -> (usize, u32) {
    (number as usize % CUSTOMERS, number * 37 % 100)
}

impl Report {
    fn add(&mut self, answer: Result<Option<Placed>, Lost>, took: Duration) {
        self.sent += 1;
        self.latencies.push(took);
        match answer {
            Ok(placed) => self.placed.extend(placed),
            Err(lost) => {
                let what = format!("{} (after {} ms)", lost.what, took.as_millis());
                self.lost.push(Lost { what, ..lost });
            }
        }
    }

    /// Right answers a second.
    pub fn rate(&self) -> f64 {
        (self.sent - self.lost.len()) as f64 / self.took.as_secs_f64()
    }

    /// How many were answered 503: too busy.
    ///
    /// # Errors
    /// when one was lost in any other way.
    pub fn only_refused(&self) -> Result<usize> {
        if self.lost.iter().any(|l| l.status != Some(503)) {
            self.none_lost()?;
        }
        Ok(self.lost.len())
    }

    /// # Errors
    /// when one was lost, with the first of them.
    pub fn none_lost(&self) -> Result<()> {
        let shown: String = self.lost.iter().take(SHOWN).map(|l| format!("\n    {}", l.what)).collect();
        ensure!(self.lost.is_empty(), "{} of {} requests were lost:{shown}", self.lost.len(), self.sent);
        Ok(())
    }

    /// # Errors
    /// when fewer than so many requests a second were answered right, or one had to wait too long.
    pub fn kept_up(&self, rate: u32) -> Result<()> {
        let wanted = f64::from(rate) * LEAST_SHARE;
        ensure!(self.rate() >= wanted, "only {:.1} requests/s were answered, not {rate}", self.rate());
        let slowest = self.latencies.last().copied().unwrap_or_default();
        ensure!(slowest <= SLOWEST, "a request waited {slowest:?} for its answer: {}", self.summary());
        Ok(())
    }

    /// `12,001 requests (100/s, p50 4 ms, p99 31 ms, slowest 210 ms)`.
    pub fn summary(&self) -> String {
        let at = |share: usize| {
            let nth = (self.latencies.len() * share / 100).min(self.latencies.len().saturating_sub(1));
            self.latencies.get(nth).map_or(0, Duration::as_millis)
        };
        format!(
            "{} requests ({:.0}/s, p50 {} ms, p99 {} ms, slowest {} ms)",
            self.sent,
            self.rate(),
            at(50),
            at(99),
            at(100)
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_customer_sends_each_kind_of_request() {
        let number = 100 * CUSTOMERS as u32;
        let roles: BTreeSet<_> = (0..number).map(role).collect();
        assert_eq!(roles.len(), 100 * CUSTOMERS);
        assert!(roles.iter().all(|(customer, kind)| *customer < CUSTOMERS && *kind < 100));
    }

    #[test]
    fn a_load_keeps_up_when_it_reaches_its_rate_and_nobody_waits_long() {
        let report = |answered: usize, slowest: u64| {
            let mut report = Report { took: Duration::from_secs(1), ..Report::default() };
            (1..answered).for_each(|_| report.add(Ok(None), Duration::from_millis(1)));
            report.add(Ok(None), Duration::from_millis(slowest));
            report.kept_up(100)
        };
        report(95, 5_000).unwrap();
        assert!(report(94, 1).unwrap_err().to_string().contains("only 94.0 requests/s"));
        assert!(report(100, 5_001).unwrap_err().to_string().contains("waited 5.001s"));
    }

    #[test]
    fn a_report_names_what_was_lost_and_the_slowest() {
        let mut report = Report { took: Duration::from_secs(2), ..Report::default() };
        for millis in 1..=100 {
            report.add(Ok(None), Duration::from_millis(millis));
        }
        assert_eq!(report.summary(), "100 requests (50/s, p50 51 ms, p99 100 ms, slowest 100 ms)");
        report.none_lost().unwrap();
        report.add(Err(Lost { what: "too busy".into(), status: Some(503), key: None }), Duration::ZERO);
        assert!(report.none_lost().unwrap_err().to_string().contains("too busy"));
        assert_eq!(report.only_refused().unwrap(), 1);
        report.add(Err(Lost { what: "cut off".into(), status: None, key: None }), Duration::ZERO);
        assert!(report.only_refused().is_err());
    }
}
