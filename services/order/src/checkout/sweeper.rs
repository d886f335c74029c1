//! Releases the reservations of idempotency records that lapsed without an order: their process died, and the
//! customer did not come back. It also deletes what the last requests of erased users left behind.

use std::time::{Duration, Instant};

use order_core::ids::OrderId;
use rand::seq::SliceRandom;
use service::Pulse;
use service::db::Pool;
use service::failpoint;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::OPERATION;
use crate::clients::product::{Products, Unavailable};
use crate::erasure;
use crate::idempotency::store;
use crate::times::Times;

/// Calls in a row that may fail before a sweep ends.
const TRIES: u32 = 3;

/// For the calls of one sweep.
const LONGEST: Duration = Duration::from_secs(10);

/// For work that has months of time.
const SELDOM: Duration = Duration::from_secs(3600);

pub async fn run(pool: Pool, products: Products, times: Times, stop: CancellationToken, pulse: Pulse) {
    let mut seldom = tokio::time::interval(SELDOM);
    loop {
        let due = async {
            tokio::select! {
                () = tokio::time::sleep(times.sweep_every()) => Due::Often,
                _ = seldom.tick() => Due::Seldom,
            }
        };
        match pulse.rest(stop.run_until_cancelled(due)).await {
            None => return,
            Some(Due::Often) => {
                // Each by itself: a job that fails again and again does not stop the others.
                log(sweep(&pool, &products, &times, &stop, &pulse).await);
                pulse.beat();
                log(erase_again(&pool).await);
                pulse.beat();
                log(forget(&pool, &times).await);
            }
            Some(Due::Seldom) => log(forget_long_shipped(&pool).await),
        }
    }
}

enum Due {
    Often,
    Seldom,
}

fn log(done: anyhow::Result<()>) {
    if let Err(error) = done {
        tracing::warn!(error = format!("{error:#}"), "claims.sweep_failed");
    }
}

async fn erase_again(pool: &Pool) -> anyhow::Result<()> {
    let mut transaction = service::db::begin(pool).await?;
    erasure::erase_again(&mut transaction).await?;
    Ok(transaction.commit().await?)
}

async fn forget(pool: &Pool, times: &Times) -> anyhow::Result<()> {
    let mut connection = pool.acquire().await?;
    store::forget(&mut connection, OPERATION, times.key_life).await?;
    service::idempotency::sweep(&mut connection).await?;
    Ok(())
}

async fn forget_long_shipped(pool: &Pool) -> anyhow::Result<()> {
    let mut connection = pool.acquire().await?;
    erasure::store::forget_long_shipped(&mut connection).await?;
    Ok(erasure::store::forget_cards_left(&mut connection).await?)
}

/// Records are taken over before the release, so that no retry can place the order meanwhile. They are
/// released at once if the call fails.
async fn sweep(
    pool: &Pool,
    products: &Products,
    times: &Times,
    stop: &CancellationToken,
    pulse: &Pulse,
) -> anyhow::Result<()> {
    let owner = Uuid::now_v7();
    let lapsed = store::take_lapsed(&mut *pool.acquire().await?, OPERATION, owner, times).await?;
    if lapsed.is_empty() {
        return Ok(());
    }
    failpoint::hit("order.sweep.taken").await?;
    let orders: Vec<OrderId> = lapsed.iter().copied().map(OrderId::from).collect();
    let (released, failure) = release(products, &orders, times.claim_lease / 2, stop, pulse).await;
    failpoint::hit("order.sweep.released").await?;
    let (released, kept): (Vec<Uuid>, Vec<Uuid>) =
        lapsed.into_iter().partition(|order| released.contains(&OrderId::from(*order)));
    let mut connection = pool.acquire().await?;
    store::release(&mut connection, owner, &released, true).await?;
    store::release(&mut connection, owner, &kept, false).await?;
    if !released.is_empty() {
        tracing::info!(claims = released.len(), "claims.swept");
    }
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// Those of `orders` that are released, and the last failure. If the call for all of them fails, each gets a
/// call of its own, in any order, so that those that cannot be released do not hold up the others for ever.
/// It ends when [`TRIES`] calls have failed in a row, as they do when product is away, when its time is up,
/// and at `stop`.
async fn release(
    products: &Products,
    orders: &[OrderId],
    time: Duration,
    stop: &CancellationToken,
    pulse: &Pulse,
) -> (Vec<OrderId>, Option<Unavailable>) {
    let until = Instant::now() + time.min(LONGEST);
    let mut failure = match products.release(orders).await {
        Ok(()) => return (orders.to_vec(), None),
        Err(error) => error,
    };
    let (mut released, mut in_vain) = (Vec::new(), 0);
    let mut single = orders.to_vec();
    single.shuffle(&mut rand::rng());
    for order in single.into_iter().filter(|_| orders.len() > 1) {
        pulse.beat();
        if in_vain == TRIES || Instant::now() >= until || stop.is_cancelled() {
            break;
        }
        match products.release(&[order]).await {
            Ok(()) => {
                released.push(order);
                in_vain = 0;
            }
            Err(error) => {
                in_vain += 1;
                failure = error;
            }
        }
    }
    (released, Some(failure))
}
