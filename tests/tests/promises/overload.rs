//! P8: overload sheds, never collapses. What there is too much of is refused at once with a time to come
//! again, and the rest is served; the edge cuts off clients that send slowly, or too much. That the rest is
//! served as fast as ever is for optimised programs on a machine that does nothing else: `cargo dockside
//! bench overload`.

mod http;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use system_tests::{Shop, address, eventually};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use http::{Connection, Request};

/// Clients of the run that finds out what the shop can do: nearly as many as it works for at once, as it works in batches.
const CLOSED: usize = 96;
/// Connections of the run that offers more.
const OPEN: usize = 256;
/// Of enough clients, and then too many.
const ROUNDS: u32 = 3;
const RUN: Duration = Duration::from_secs(6);
/// Orders that may wait for their payment: 128 in the queue, 64 in work, and those let in before the queue was looked at.
const MOST_LEFT_OVER: i64 = 400;
/// Whether figures are held too.
const BENCH: bool = !cfg!(debug_assertions);
/// No answer in this time is none.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of the requests of a run.
#[derive(Default)]
struct Tally {
    placed: usize,
    refused: usize,
    /// Of those that were placed.
    times: Vec<Duration>,
    /// Of those that were refused.
    refusals: Vec<Duration>,
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
                self.refusals.push(took);
            }
            Some(answer) => self.wrong.push(format!("{} {}", answer.status, answer.body)),
            None => self.wrong.push("no answer".to_owned()),
        }
    }
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    times.get(last * percent / 100).copied().unwrap_or_default()
}

/// Places orders over one connection, one request each time that `next` says so, until it says no more. A
/// `patient` client comes again after a refusal.
async fn client<F>(request: Arc<Request>, tally: Arc<Mutex<Tally>>, patient: bool, next: impl Fn() -> F)
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
        let again = answer.as_ref().and_then(|answer| answer.retry_after).filter(|_| patient);
        tally.lock().unwrap().add(answer, sent.elapsed());
        if let Some(seconds) = again {
            sleep(Duration::from_secs(seconds.into())).await;
        }
    }
}

/// So many clients for so long, each with its next order as soon as it has an answer.
async fn closed_loop(request: &Arc<Request>, time: Duration) -> Tally {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let until = Instant::now() + time;
    let mut clients = JoinSet::new();
    for _ in 0..CLOSED {
        clients.spawn(client(
            request.clone(),
            tally.clone(),
            true,
            move || async move { Instant::now() < until },
        ));
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
        clients.spawn(client(request.clone(), tally.clone(), false, next));
    }
    clients.join_all().await;
    std::mem::take(&mut *tally.lock().unwrap())
}

/// Runs of one kind, added up.
#[derive(Default)]
struct Runs {
    tally: Tally,
    /// From the first request until the last order was seen through.
    took: Duration,
    /// Of that, seconds of processor time that the shop could have: the clients take theirs from the same machine.
    left: f64,
    /// Orders that were still waiting for their payment when the last client was gone, at most.
    left_over: i64,
}

impl Runs {
    /// Makes another run; returns how many orders a second were completed.
    async fn add(&mut self, shop: &Shop, product: Uuid, run: impl Future<Output = Tally>) -> f64 {
        let (started, own) = (Instant::now(), processor_time());
        let tally = run.await;
        self.left_over = self.left_over.max(pending(shop, product).await);
        let settled = || async { (pending(shop, product).await == 0).then_some(()) };
        eventually("all orders to be confirmed", Duration::from_secs(60), settled).await;
        let took = started.elapsed();
        let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
        self.left += cores * took.as_secs_f64() - (processor_time() - own).as_secs_f64();
        self.took += took;
        self.tally.placed += tally.placed;
        self.tally.refused += tally.refused;
        self.tally.times.extend(tally.times);
        self.tally.refusals.extend(tally.refusals);
        self.tally.wrong.extend(tally.wrong);
        tally.placed as f64 / took.as_secs_f64()
    }

    fn placed_per_second(&self) -> f64 {
        self.tally.placed as f64 / self.took.as_secs_f64()
    }

    /// Orders seen through for each second of processor time that the clients left.
    fn goodput(&self) -> f64 {
        self.tally.placed as f64 / self.left
    }
}

async fn pending(shop: &Shop, product: Uuid) -> i64 {
    let pending = "SELECT count(*) FROM orders.orders o JOIN orders.order_items i ON i.order_id = o.id
                   WHERE i.product_id = $1 AND o.status <> 'confirmed'";
    sqlx::query_scalar(pending).bind(product).fetch_one(&shop.database).await.unwrap()
}

/// Of this process so far.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap()
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
    let (mut enough, mut many) = (Runs::default(), Runs::default());
    let (mut asked, mut shed) = (0.0, 0.0);
    // In turn, as what else the machine does changes meanwhile.
    for _ in 0..ROUNDS {
        let peak = enough.add(&shop, product, closed_loop(&request, RUN)).await;
        asked -= counter(&shop, "product", "reservations_asked").await;
        shed -= refusals(&shop).await;
        // The peak of a busy machine says little: what is surely too much does for all but figures.
        let offered = if BENCH { 4.0 * peak } else { f64::max(4.0 * peak, 1000.0) };
        many.add(&shop, product, open_loop(&request, offered, RUN)).await;
        asked += counter(&shop, "product", "reservations_asked").await;
        shed += refusals(&shop).await;
    }
    let ratio = many.goodput() / enough.goodput();
    let (median, p99) = (percentile(&mut many.tally.times, 50), percentile(&mut many.tally.times, 99));
    let turned_away = percentile(&mut many.tally.refusals, 50);
    let (placed, refused) = (many.tally.placed, many.tally.refused);
    println!(
        "peak {:.0}/s; {:.0}/s offered for {:?}: {:.0}/s seen through, {:.0} % of the peak for the processor time that was \
         left; at most {} orders waited at the end of the overload; placed in {median:?}, p99 {p99:?}, refused in \
         {turned_away:?}; {:.2} reservations asked for each",
        enough.placed_per_second(),
        (placed + refused + many.tally.wrong.len()) as f64 / (RUN * ROUNDS).as_secs_f64(),
        RUN * ROUNDS,
        many.placed_per_second(),
        100.0 * ratio,
        many.left_over,
        asked / placed as f64,
    );

    let wrong = [enough.tally.wrong, many.tally.wrong].concat();
    assert!(wrong.is_empty(), "neither placed nor refused with a time to come again: {wrong:?}");
    assert!(
        refused > 0 && placed > 0 && shed > 0.0,
        "{refused} were refused and {placed} placed: this was no overload"
    );
    if BENCH {
        assert!(refused > placed, "{refused} were refused and {placed} placed: this was little overload");
        assert!(ratio >= 0.8, "{:.0} % of the peak was seen through", 100.0 * ratio);
        assert!(turned_away <= median, "a refusal took {turned_away:?}, an order {median:?}");
        assert!(p99 <= Duration::from_secs(3), "{p99:?}");
    }
    assert!(many.left_over <= MOST_LEFT_OVER, "{} orders waited for their payment", many.left_over);
    assert!(asked <= 1.1 * placed as f64, "{asked} reservations asked for {placed} orders");
}

/// Requests that the order service refused for their number, or because of the orders that wait.
async fn refusals(shop: &Shop) -> f64 {
    counter(shop, "order", "requests_refused").await + counter(shop, "order", "orders_refused").await
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
                let status = timeout(Duration::from_secs(30), got_rid_of(&edge, nuisance)).await;
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
        let read = shop.request(reqwest::Method::GET, "/products?limit=1").send();
        let patience = if BENCH { Duration::from_secs(1) } else { PATIENCE };
        let answer = timeout(patience, read).await.expect("an answer in time").unwrap();
        assert_eq!(answer.status(), 200);
        answered += 1;
        tokio::select! {
            () = &mut attack => break,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
    println!("{answered} others were answered meanwhile");
    assert!(answered > if BENCH { 10 } else { 1 });
}
