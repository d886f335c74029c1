//! Returning stock: released by the order, expired, or cancelled after the sale.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use service::batch::MAX_BATCH;
use service::db::{Connection, Defect, Pool};
use service::{Pulse, failpoint, telemetry};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ledger::{self, Change, Kind};
use super::store::{self, Level, LineRow};
use super::{Lives, State};

const SWEEP_EVERY: Duration = Duration::from_secs(1);
const MEASURE_EVERY: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// Not reserved any more; a later reserve is refused.
    Released,
    /// Sold before: nothing was returned.
    Committed,
}

/// Ends the orders' reservations; a result each, in order.
pub async fn release(
    connection: &mut Connection,
    orders: &[Uuid],
    lives: Lives,
) -> sqlx::Result<Vec<Released>> {
    let (held, _) = store::lock_or_end(connection, orders, lives.ended_days).await?;
    let open = held.iter().filter(|held| held.state == State::Reserved);
    let open: Vec<Uuid> = open.map(|held| held.order_id).collect();
    release_stock(connection, &open, State::Released).await?;
    let states: HashMap<Uuid, State> = held.iter().map(|held| (held.order_id, held.state)).collect();
    Ok(orders
        .iter()
        .map(|order| match states.get(order) {
            Some(State::Committed) => Released::Committed,
            _ => Released::Released,
        })
        .collect())
}

/// Units of a sale that are returned.
#[derive(Clone, Copy, Debug)]
pub struct Return {
    pub order_id: Uuid,
    pub product_id: Uuid,
    pub quantity: u32,
}

/// Puts back what orders return: of a cancelled one all that is reserved or was sold, of a refund the units
/// it names. In any order, a line gets back no more than was sold of it.
///
/// The reservation of a very old order may have been deleted. Then a refund's units are taken as they are:
/// the order service has counted them against what it sold. What such an order sold is not known here, so its
/// cancellation puts nothing back.
pub async fn restock(
    connection: &mut Connection,
    cancelled: &[Uuid],
    returns: &[Return],
    lives: Lives,
) -> sqlx::Result<()> {
    let orders: Vec<Uuid> =
        cancelled.iter().copied().chain(returns.iter().map(|line| line.order_id)).collect();
    let (held, forgotten) = store::lock_or_end(connection, &orders, lives.ended_days).await?;
    for order in cancelled.iter().filter(|order| forgotten.contains(order)) {
        tracing::warn!(order.id = %order, "stock.cancelled_too_late");
    }
    let in_state = |state| held.iter().filter(move |held| held.state == state).map(|held| held.order_id);
    let open: Vec<Uuid> = in_state(State::Reserved).filter(|order| cancelled.contains(order)).collect();
    let sold: Vec<Uuid> = in_state(State::Committed).collect();
    let both: Vec<Uuid> = open.iter().chain(&sold).copied().collect();
    let late: Vec<&Return> = returns.iter().filter(|back| forgotten.contains(&back.order_id)).collect();
    if both.is_empty() && late.is_empty() {
        return Ok(());
    }
    let lines = store::lines(connection, &both).await?;
    let products = lines.iter().map(|line| line.product_id).chain(late.iter().map(|back| back.product_id));
    let products: Vec<Uuid> = products.collect();
    let mut levels = store::lock_stock(connection, &products).await?;
    let mut changes = BTreeMap::<Uuid, Level>::new();
    let mut entries = Vec::new();
    for line in &lines {
        if open.contains(&line.order_id) {
            changes.entry(line.product_id).or_default().reserved -= line.quantity;
            continue;
        }
        let delta = comes_back(line, cancelled, returns);
        if delta > 0 {
            changes.entry(line.product_id).or_default().on_hand += delta;
            let level = levels.get_mut(&line.product_id).ok_or(Defect("a product has no stock level"))?;
            level.on_hand += delta;
            let (product_id, on_hand, order_id) = (line.product_id, level.on_hand, Some(line.order_id));
            entries.push(Change { product_id, delta, on_hand, order_id });
        }
    }
    store::end(connection, &open, State::Released).await?;
    store::add_restocked(connection, &entries).await?;
    for back in late {
        // A product that does not exist was not sold either.
        let (Some(level), Ok(delta)) = (levels.get_mut(&back.product_id), i32::try_from(back.quantity))
        else {
            continue;
        };
        changes.entry(back.product_id).or_default().on_hand += delta;
        level.on_hand += delta;
        let (product_id, on_hand, order_id) = (back.product_id, level.on_hand, Some(back.order_id));
        entries.push(Change { product_id, delta, on_hand, order_id });
    }
    ledger::store::append(connection, Kind::Restock, &entries).await?;
    store::add_to_stock(connection, &changes).await
}

/// Units of a sold line that go back on the shelf now.
fn comes_back(line: &LineRow, cancelled: &[Uuid], returns: &[Return]) -> i32 {
    let out = line.quantity - line.restocked;
    if cancelled.contains(&line.order_id) {
        return out;
    }
    let of_line = |back: &&Return| back.order_id == line.order_id && back.product_id == line.product_id;
    let back: u64 = returns.iter().filter(of_line).map(|back| u64::from(back.quantity)).sum();
    i32::try_from(back).unwrap_or(i32::MAX).min(out)
}

/// Ends up to [`MAX_BATCH`] reservations that ran out; returns how many.
pub async fn expire(connection: &mut Connection) -> sqlx::Result<usize> {
    let lapsed = store::lock_lapsed(connection, MAX_BATCH as i64).await?;
    release_stock(connection, &lapsed, State::Expired).await?;
    Ok(lapsed.len())
}

/// Sweeps every second until `stop`. Any number of replicas may do so at once.
pub async fn expire_until(pool: &Pool, stop: &CancellationToken, pulse: &Pulse) {
    let description = "Reservations that ran out.";
    let expired = telemetry::counter("reservations.expired", "{reservation}", description);
    let open = telemetry::gauge("reservations.open", "{reservation}", "Reservations that hold stock.");
    let mut measured: Option<Instant> = None;
    loop {
        pulse.beat();
        if measured.is_none_or(|at| at.elapsed() >= MEASURE_EVERY) {
            match timeout(MEASURE_EVERY, store::count_open(pool)).await {
                Ok(Ok(count)) => open.record(count as f64, &[]),
                Ok(Err(error)) => tracing::debug!(%error, "reservations.not_measured"),
                Err(_) => tracing::debug!("reservations.not_measured_in_time"),
            }
            measured = Some(Instant::now());
        }
        let pause = match sweep(pool).await {
            Ok(count) => {
                expired.add(count as u64, &[]);
                // The batch was full: there are probably more.
                if count == MAX_BATCH { Duration::ZERO } else { SWEEP_EVERY }
            }
            Err(error) => {
                tracing::warn!(%error, "expiry.failed");
                SWEEP_EVERY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn sweep(pool: &Pool) -> sqlx::Result<usize> {
    let mut transaction = service::db::begin(pool).await?;
    let count = expire(&mut transaction).await?;
    if count > 0 {
        failpoint::hit("product.expiry.written").await?;
    }
    transaction.commit().await?;
    if count > 0 {
        failpoint::hit("product.expiry.committed").await?;
    }
    Ok(count)
}

/// Releases the stock of reservations that this transaction has locked.
async fn release_stock(connection: &mut Connection, orders: &[Uuid], end_as: State) -> sqlx::Result<()> {
    if orders.is_empty() {
        return Ok(());
    }
    let mut changes = BTreeMap::<Uuid, Level>::new();
    for line in store::lines(connection, orders).await? {
        changes.entry(line.product_id).or_default().reserved -= line.quantity;
    }
    let products: Vec<Uuid> = changes.keys().copied().collect();
    store::lock_stock(connection, &products).await?;
    store::end(connection, orders, end_as).await?;
    store::add_to_stock(connection, &changes).await
}
