//! Many buyers on one product: what queues up shares a transaction, and every unit is sold, once.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

#[path = "it/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Shop, reservation, shop_with};
use proto::product::v1 as wire;
use proto::product::v1::reserve_result::Outcome;
use service::batch::Batcher;
use sqlx::PgConnection;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinSet;
use uuid::Uuid;

const BUYERS: u32 = 64;

/// One test at a time: 64 connections that are measured leave no other shop its share of the database.
static ALONE: Mutex<()> = Mutex::const_new(());

/// With a place for every call: what is too much is refused elsewhere.
async fn spacious_shop() -> (Arc<Shop>, MutexGuard<'static, ()>) {
    let alone = ALONE.lock().await;
    (Arc::new(shop_with(&["--requests-at-once=1024"]).await), alone)
}

/// How many times a second 64 clients, each with a connection of its own, reserve a unit in the way that each order
/// would by itself: a transaction, with the hot row locked as late as possible.
async fn ceiling(shop: &Shop, product: &str, time: Duration) -> f64 {
    let options = (*shop.pool.connect_options()).clone();
    let pool = PgPoolOptions::new().max_connections(BUYERS).min_connections(BUYERS).connect_with(options);
    let pool = pool.await.unwrap();
    let (made, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut clients = JoinSet::new();
    for _ in 0..BUYERS {
        let mut connection = pool.acquire().await.unwrap();
        let (product, made, stop) = (product.parse().unwrap(), made.clone(), stop.clone());
        clients.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                reserve_alone(&mut connection, product).await.unwrap();
                made.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    measure(&made, &stop, clients, time).await
}

async fn reserve_alone(connection: &mut PgConnection, product: Uuid) -> sqlx::Result<()> {
    let order = Uuid::now_v7();
    sqlx::query("BEGIN").execute(&mut *connection).await?;
    sqlx::query(
        "INSERT INTO products.reservations (order_id, state, expires_at)
         VALUES ($1, 'reserved', now() + interval '10 minutes')",
    )
    .bind(order)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO products.reservation_lines (order_id, product_id, quantity, sku, name, unit_price, currency)
         SELECT $1, id, 1, sku, name, price, currency FROM products.products WHERE id = $2",
    )
    .bind(order)
    .bind(product)
    .execute(&mut *connection)
    .await?;
    let take = sqlx::query(
        "UPDATE products.stock SET reserved = reserved + 1 WHERE product_id = $1 AND on_hand - reserved >= 1",
    );
    assert_eq!(take.bind(product).execute(&mut *connection).await?.rows_affected(), 1);
    sqlx::query("COMMIT").execute(connection).await?;
    Ok(())
}

/// The same number of clients, through the service.
async fn service(shop: &Arc<Shop>, product: &str, time: Duration) -> f64 {
    let (made, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut clients = JoinSet::new();
    for _ in 0..BUYERS {
        let (shop, product, made, stop) = (shop.clone(), product.to_owned(), made.clone(), stop.clone());
        clients.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let outcome = shop.reserve(Uuid::now_v7(), &[(&product, 1)]).await;
                assert!(matches!(outcome, Outcome::Reserved(_)), "{outcome:?}");
                made.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    measure(&made, &stop, clients, time).await
}

/// As the order service asks for them: what its requests want meanwhile goes into one call.
async fn service_by_order(shop: &Arc<Shop>, product: &str, time: Duration) -> f64 {
    let caller = shop.clone();
    let reserve = Batcher::spawn("test", move |batch: Arc<Vec<wire::Reservation>>| {
        let caller = caller.clone();
        async move { caller.reserve_all(batch.to_vec()).await.unwrap() }
    });
    let (made, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut clients = JoinSet::new();
    for _ in 0..BUYERS {
        let (reserve, product, made, stop) =
            (reserve.clone(), product.to_owned(), made.clone(), stop.clone());
        clients.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let outcome = reserve.run(reservation(Uuid::now_v7(), &[(&product, 1)])).await.unwrap();
                assert!(matches!(outcome, Outcome::Reserved(_)), "{outcome:?}");
                made.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    measure(&made, &stop, clients, time).await
}

/// Per second, over `time`.
async fn measure(made: &AtomicU64, stop: &AtomicBool, clients: JoinSet<()>, time: Duration) -> f64 {
    let (started, before) = (Instant::now(), made.load(Ordering::Relaxed));
    tokio::time::sleep(time).await;
    let rate = (made.load(Ordering::Relaxed) - before) as f64 / started.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    clients.join_all().await;
    rate
}

/// Reservations of a product, and the transactions that wrote them.
async fn written(shop: &Shop, product: &str) -> (i64, i64) {
    let query = "SELECT count(*), count(DISTINCT l.xmin::text) FROM products.reservation_lines l
                 WHERE l.product_id = $1::uuid";
    sqlx::query_as(query).bind(product).fetch_one(&shop.pool).await.unwrap()
}

/// How many times the ceiling the service reaches, asked by the order service, and how many reservations shared a
/// transaction, asked in calls of their own.
async fn compared(shop: &Arc<Shop>, time: Duration) -> (f64, f64) {
    let [alone, together, by_order] =
        [shop.stocked(1_000_000).await, shop.stocked(1_000_000).await, shop.stocked(1_000_000).await];
    let ceiling = ceiling(shop, &alone, time).await;
    let service = service(shop, &together, time).await;
    let service_by_order = service_by_order(shop, &by_order, time).await;
    for product in [&alone, &together, &by_order] {
        let (reservations, _) = written(shop, product).await;
        assert_eq!(shop.stock(product).await, (1_000_000, i32::try_from(reservations).unwrap()));
    }
    let (reservations, transactions) = written(shop, &together).await;
    let (batch, times) = (reservations as f64 / transactions as f64, service_by_order / ceiling);
    println!(
        "{BUYERS} buyers of one product: {ceiling:.0}/s in a transaction each; through the service {service:.0}/s in \
         a call each, {batch:.1} reservations a transaction, and {service_by_order:.0}/s as the order service calls, \
         {times:.2} times the ceiling"
    );
    (times, batch)
}

#[tokio::test(flavor = "multi_thread")]
async fn reservations_of_one_product_that_queue_up_share_a_transaction() {
    let (shop, _alone) = spacious_shop().await;
    let (_, batch) = compared(&shop, Duration::from_secs(1)).await;
    assert!(batch > 4.0, "{batch} reservations a transaction");
    shop.assert_books_balance().await;
}

/// The figures of the README. Run it alone on the machine.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(debug_assertions, ignore = "a minute of measuring: cargo dockside bench hot-stock")]
async fn hot_product_measured_for_a_minute() {
    let (shop, _alone) = spacious_shop().await;
    let mut ratios = Vec::new();
    for _ in 0..10 {
        ratios.push(compared(&shop, Duration::from_secs(2)).await.0);
    }
    ratios.sort_by(f64::total_cmp);
    let median = (ratios[4] + ratios[5]) / 2.0;
    println!("ratios from {:.2} to {:.2}, median {median:.2}", ratios[0], ratios[9]);
    assert!(median > 2.0, "{median:.2} times the ceiling");
    shop.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_buyers_as_units_are_all_served_and_one_more_is_not() {
    let (shop, _alone) = spacious_shop().await;
    for _ in 0..5 {
        let product = shop.stocked(BUYERS).await;
        let mut buyers = JoinSet::new();
        for _ in 0..BUYERS {
            let (shop, product) = (shop.clone(), product.clone());
            buyers.spawn(async move {
                let order = Uuid::now_v7();
                let lines = [(product.as_str(), 1)];
                // Asked twice at once, as a client does whose first call is slow.
                tokio::join!(shop.reserve(order, &lines), shop.reserve(order, &lines))
            });
        }
        for (first, second) in buyers.join_all().await {
            let both = matches!((&first, &second), (Outcome::Reserved(_), Outcome::Reserved(_)));
            assert!(both, "{first:?} {second:?}");
        }
        let refused = shop.reserve(Uuid::now_v7(), &[(&product, 1)]).await;
        assert!(matches!(refused, Outcome::OutOfStock(_)), "{refused:?}");
    }
    shop.assert_books_balance().await;
}

/// A generator of few lines, so that a seed means the same for ever (<https://prng.di.unimi.it/splitmix64.c>).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// 64 buyers buy 500 units, as the seed has it: of what they reserve they pay for most, give some back and let some run
/// out, ask twice now and then, and try again until all is sold.
async fn sold_out(shop: Arc<Shop>, seed: u64) {
    const UNITS: i64 = 500;
    let product = shop.stocked(UNITS as u32).await;
    let sold = Arc::new(AtomicI64::new(0));
    let deadline = Instant::now() + Duration::from_secs(90);
    let mut buyers = JoinSet::new();
    for buyer in 0..u64::from(BUYERS) {
        let (shop, product, sold) = (shop.clone(), product.clone(), sold.clone());
        let mut dice = Dice((seed << 16) | buyer);
        buyers.spawn(async move {
            let mut most = 3;
            while sold.load(Ordering::SeqCst) < UNITS {
                assert!(Instant::now() < deadline, "seed {seed}: {} sold", sold.load(Ordering::SeqCst));
                let (order, quantity) = (Uuid::now_v7(), 1 + dice.below(most) as u32);
                let asked = reservation(order, &[(&product, quantity)]);
                // In one call or in two.
                let outcomes = match dice.below(4) {
                    0 => shop.reserve_all(vec![asked.clone(), asked]).await.unwrap(),
                    1 => {
                        let (a, b) = (shop.reserve_all(vec![asked.clone()]), shop.reserve_all(vec![asked]));
                        let (a, b) = tokio::join!(a, b);
                        [a.unwrap(), b.unwrap()].concat()
                    }
                    _ => shop.reserve_all(vec![asked]).await.unwrap(),
                };
                for outcome in &outcomes {
                    if let Outcome::OutOfStock(short) = outcome {
                        let line = &short.lines[0];
                        assert!(
                            line.available < line.requested,
                            "seed {seed}: refused for nothing: {line:?}"
                        );
                    }
                }
                if !outcomes.iter().any(|outcome| matches!(outcome, Outcome::Reserved(_))) {
                    most = 1;
                    tokio::time::sleep(Duration::from_millis(5 + dice.below(20))).await;
                    continue;
                }
                match dice.below(10) {
                    0 => {
                        shop.release(order).await;
                        assert_eq!(shop.commit(order).await, wire::CommitResult::Gone, "seed {seed}");
                    }
                    // The sweeper gives it back.
                    1 => {
                        shop.run_out(order).await;
                        assert_eq!(shop.commit(order).await, wire::CommitResult::Gone, "seed {seed}");
                    }
                    again => {
                        assert_eq!(shop.commit(order).await, wire::CommitResult::Committed, "seed {seed}");
                        sold.fetch_add(i64::from(quantity), Ordering::SeqCst);
                        if again == 2 {
                            assert_eq!(
                                shop.commit(order).await,
                                wire::CommitResult::Committed,
                                "seed {seed}"
                            );
                            assert_eq!(
                                shop.release(order).await,
                                wire::ReleaseResult::Committed,
                                "seed {seed}"
                            );
                        }
                    }
                }
            }
        });
    }
    buyers.join_all().await;
    assert_eq!(sold.load(Ordering::SeqCst), UNITS, "seed {seed}");
    assert_eq!(shop.stock(&product).await, (0, 0), "seed {seed}");
}

async fn seeds(seeds: std::ops::RangeInclusive<u64>) {
    let (shop, _alone) = spacious_shop().await;
    for seed in seeds {
        println!("seed {seed}");
        sold_out(shop.clone(), seed).await;
    }
    shop.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_buyers_of_500_units_buy_exactly_500() {
    seeds(1..=1).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    debug_assertions,
    ignore = "a minute, in cargo dockside bench hot-stock; the first seed always runs"
)]
async fn sixty_four_buyers_of_500_units_buy_exactly_500_whatever_the_seed() {
    seeds(1..=20).await;
}
