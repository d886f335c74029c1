//! P8: overload sheds, never collapses. What there is too much of is refused at once and told when to come again,
//! and the rest is served as fast as ever; who sends slowly, or too much, is cut off by the edge.

mod http;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use system_tests::{Shop, address, eventually};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use http::{Connection, Request};

/// Clients of the run that finds out what the shop can do: nearly as many as it works for at once, as it works in batches.
const CLOSED: usize = 96;
/// Connections of the run that offers more.
const OPEN: usize = 256;
/// No answer in this time is none.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of the requests of a run.
#[derive(Default)]
struct Tally {
    placed: usize,
    refused: usize,
    /// Of those that were placed.
    times: Vec<Duration>,
    /// Answers that no client should get.
    wrong: Vec<String>,
}

impl Tally {
    fn add(&mut self, answer: Option<http::Answer>, took: Duration) {
        match answer {
            Some(answer) if answer.status == 201 => {
                self.placed += 1;
                self.times.push(took);
            }
            Some(answer) if [429, 503].contains(&answer.status) && answer.retry_after.is_some() => {
                self.refused += 1;
            }
            Some(answer) => self.wrong.push(format!("{} {}", answer.status, answer.body)),
            None => self.wrong.push("no answer".to_owned()),
        }
    }

    fn percentile(&mut self, percent: usize) -> Duration {
        self.times.sort_unstable();
        let last = self.times.len().saturating_sub(1);
        self.times.get(last * percent / 100).copied().unwrap_or_default()
    }
}

/// Places orders over one connection, a request each time that `next` says so, until it says no more.
async fn client<F>(request: Arc<Request>, tally: Arc<Mutex<Tally>>, next: impl Fn() -> F)
where
    F: Future<Output = bool>,
{
    let mut connection: Option<Connection> = None;
    while next().await {
        let sent = Instant::now();
        let exchange = async {
            let mut open = match connection.take() {
                Some(open) => open,
                None => Connection::open(&request.edge).await.ok()?,
            };
            let answer = open.exchange(&request.with_key(Uuid::now_v7())).await.ok()?;
            connection = (!answer.last).then_some(open);
            Some(answer)
        };
        let answer = timeout(PATIENCE, exchange).await.ok().flatten();
        tally.lock().unwrap().add(answer, sent.elapsed());
    }
}

/// So many clients for so long, each with its next order as soon as it has an answer.
async fn closed_loop(request: &Arc<Request>, time: Duration) -> Tally {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let until = Instant::now() + time;
    let mut clients = JoinSet::new();
    for _ in 0..CLOSED {
        clients.spawn(client(request.clone(), tally.clone(), move || async move { Instant::now() < until }));
    }
    clients.join_all().await;
    std::mem::take(&mut *tally.lock().unwrap())
}

/// So many orders a second for so long, whatever becomes of those before: each goes out when its time has come, or
/// as soon as one of the connections is free.
async fn open_loop(request: &Arc<Request>, rate: f64, time: Duration) -> Tally {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let (sent, started) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let mut clients = JoinSet::new();
    for _ in 0..OPEN {
        let sent = sent.clone();
        let next = move || {
            let due = started + Duration::from_secs_f64(sent.fetch_add(1, Ordering::Relaxed) as f64 / rate);
            async move {
                sleep_until(due.min(started + time)).await;
                Instant::now() < started + time
            }
        };
        clients.spawn(client(request.clone(), tally.clone(), next));
    }
    clients.join_all().await;
    std::mem::take(&mut *tally.lock().unwrap())
}

/// Orders a second, of clients who are not too many.
async fn capacity(request: &Arc<Request>) -> f64 {
    let started = Instant::now();
    let closed = closed_loop(request, Duration::from_secs(4)).await;
    assert!(closed.wrong.is_empty(), "{:?}", closed.wrong);
    closed.placed as f64 / started.elapsed().as_secs_f64()
}

/// A counter of a service, over all its labels.
async fn counter(shop: &Shop, service: &str, name: &str) -> f64 {
    let metrics = shop.client.get(format!("{}/metrics", shop.admin(service))).send().await.unwrap();
    let text = metrics.text().await.unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_four_times_what_the_shop_can_do_is_shed_and_orders_go_on() {
    let shop = Shop::open().await;
    let product = shop.product(500_000).await;
    let buyer = shop.customer().await;
    let body = json!({
        "items": [{"product_id": product, "quantity": 1}],
        "shipping_address": address(),
        "payment_method": "pm_card_visa",
    });
    let request = Arc::new(Request::order(&shop.edge, &buyer.token, &body.to_string()));

    closed_loop(&request, Duration::from_secs(1)).await; // plans are made, pools filled
    let before = capacity(&request).await;

    let asked = counter(&shop, "product", "reservations_asked").await;
    let shed = counter(&shop, "order", "requests_refused").await;
    let time = Duration::from_secs(8);
    let started = Instant::now();
    let mut open = open_loop(&request, 4.0 * before, time).await;
    let took = started.elapsed();
    let asked = counter(&shop, "product", "reservations_asked").await - asked;
    let shed = counter(&shop, "order", "requests_refused").await - shed;
    // What else the machine does changes meanwhile.
    let after = capacity(&request).await;
    let peak = (before + after) / 2.0;
    let offered = (open.placed + open.refused + open.wrong.len()) as f64;
    let goodput = open.placed as f64 / took.as_secs_f64();
    let (median, p99) = (open.percentile(50), open.percentile(99));
    println!(
        "peak {before:.0}/s before, {after:.0}/s after; offered {:.0}/s: placed {goodput:.0}/s ({:.0} %), refused {:.0}/s, median {median:?}, \
         p99 {p99:?}; {:.2} reservations asked for each",
        offered / took.as_secs_f64(),
        100.0 * goodput / peak,
        open.refused as f64 / took.as_secs_f64(),
        asked / open.placed as f64,
    );

    assert!(open.wrong.is_empty(), "neither placed nor told when to come again: {:?}", open.wrong);
    assert!(open.refused > 0 && shed > 0.0, "nothing was shed: this was no overload");
    assert!(goodput >= 0.8 * peak, "placed {goodput:.0}/s of {peak:.0}/s");
    assert!(p99 <= Duration::from_secs(5), "{p99:?}");
    assert!(asked <= 1.1 * open.placed as f64, "{asked} reservations asked for {} orders", open.placed);

    // All that was placed comes to its end.
    let pending = "SELECT count(*) FROM orders.orders o JOIN orders.order_items i ON i.order_id = o.id
                   WHERE i.product_id = $1 AND o.status <> 'confirmed'";
    let settled = || async {
        let pending: i64 = sqlx::query_scalar(pending).bind(product).fetch_one(&shop.database).await.unwrap();
        (pending == 0).then_some(())
    };
    eventually("all orders to be confirmed", Duration::from_secs(60), settled).await;
}

/// What a client does that is slow, or sends too much.
#[derive(Clone, Copy, Debug)]
enum Nuisance {
    /// Connects and is silent.
    Silent,
    /// A header field each second, and no end (slowloris).
    EndlessHeader,
    /// Half a body.
    StuckBody,
    /// Says that it will send too much.
    HugeBody,
    /// Sends too much without saying so.
    EndlessBody,
    /// More header fields than anybody needs.
    HugeHeader,
}

/// How the edge got rid of it: the status of its answer, or 0 when it just closed.
async fn got_rid_of(edge: &str, nuisance: Nuisance) -> u16 {
    let mut connection = Connection::open(edge).await.unwrap();
    let head = "POST /api/v1/orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let first = match nuisance {
        Nuisance::Silent => String::new(),
        Nuisance::EndlessHeader => head.to_owned(),
        Nuisance::StuckBody => format!("{head}content-length: 1000\r\n\r\n{{"),
        Nuisance::HugeBody => format!("{head}content-length: 2000000\r\n\r\n"),
        Nuisance::EndlessBody => format!("{head}transfer-encoding: chunked\r\n\r\n"),
        Nuisance::HugeHeader => format!("{head}x-huge: {}\r\n\r\n", "x".repeat(40_000)),
    };
    connection.send(first.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = connection.split();
    let more = async {
        let (piece, pause) = match nuisance {
            Nuisance::EndlessHeader => ("x-more: x\r\n".to_owned(), Duration::from_secs(1)),
            Nuisance::EndlessBody => {
                (format!("10000\r\n{}\r\n", "x".repeat(0x10000)), Duration::from_millis(10))
            }
            _ => return std::future::pending().await,
        };
        while writer.send(piece.as_bytes()).await.is_ok() {
            tokio::time::sleep(pause).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        status = reader.until_closed() => status,
        () = more => 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_slow_and_huge_requests_are_cut_off_while_others_are_answered() {
    let shop = Shop::open().await;
    let nuisances = [
        (Nuisance::Silent, [0, 408]),
        (Nuisance::EndlessHeader, [0, 408]),
        (Nuisance::StuckBody, [0, 408]),
        (Nuisance::HugeBody, [413, 413]),
        (Nuisance::EndlessBody, [413, 413]),
        (Nuisance::HugeHeader, [431, 431]),
    ];
    let mut attackers = JoinSet::new();
    for (nuisance, expected) in nuisances {
        for _ in 0..8 {
            let edge = shop.edge.clone();
            attackers.spawn(async move {
                let status = timeout(Duration::from_secs(15), got_rid_of(&edge, nuisance)).await;
                let status = status.unwrap_or_else(|_| panic!("{nuisance:?} was never cut off"));
                assert!(expected.contains(&status), "{nuisance:?}: {status}");
            });
        }
    }
    let mut answered = 0;
    let attack = async {
        while let Some(done) = attackers.join_next().await {
            done.unwrap();
        }
    };
    tokio::pin!(attack);
    loop {
        let look = shop.request(reqwest::Method::GET, "/products?limit=1").send();
        let answer = timeout(Duration::from_secs(1), look).await.expect("an answer within a second").unwrap();
        assert_eq!(answer.status(), 200);
        answered += 1;
        tokio::select! {
            () = &mut attack => break,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
    println!("{answered} others were answered meanwhile");
    assert!(answered > 10);
}
