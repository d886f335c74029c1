//! Stock that staff put on the shelf or take off it.

use std::collections::BTreeMap;

use service::db::{Connection, Defect};
use uuid::Uuid;

use super::ledger::{self, Change, Entry, Kind};
use super::store::{self, Level};

/// Most units on hand: sales and restocks stay far from what an `int` holds.
pub const MAX_ON_HAND: i32 = 100_000_000;

#[derive(Debug, thiserror::Error)]
pub enum AdjustError {
    #[error("less would be left than is reserved")]
    Insufficient,
    #[error("more than a shelf can hold")]
    TooMuch,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Gives new products, each named once, their stock rows.
pub async fn open(connection: &mut Connection, products: &[(Uuid, i32)]) -> sqlx::Result<()> {
    let (ids, units): (Vec<Uuid>, Vec<i32>) = products.iter().copied().unzip();
    store::insert_stock(connection, &ids, &units).await?;
    let filled = products.iter().filter(|(_, units)| *units > 0);
    let entries = filled.map(|&(product_id, units)| Change {
        product_id,
        delta: units,
        on_hand: units,
        order_id: None,
    });
    let entries: Vec<Change> = entries.collect();
    ledger::store::append(connection, Kind::Initial, &entries).await
}

/// Adds `delta` units, or takes them when it is negative. A refusal has changed nothing.
pub async fn adjust(
    connection: &mut Connection,
    product_id: Uuid,
    delta: i32,
    reason: &str,
    actor: Uuid,
) -> Result<Entry, AdjustError> {
    let levels = store::lock_stock(connection, &[product_id]).await?;
    let level =
        levels.get(&product_id).ok_or_else(|| sqlx::Error::from(Defect("a product has no stock level")))?;
    let on_hand = level.on_hand + delta;
    if on_hand < level.reserved {
        return Err(AdjustError::Insufficient);
    }
    if on_hand > MAX_ON_HAND {
        return Err(AdjustError::TooMuch);
    }
    let added = BTreeMap::from([(product_id, Level { on_hand: delta, reserved: 0 })]);
    store::add_to_stock(connection, &added).await?;
    let change = Change { product_id, delta, on_hand, order_id: None };
    Ok(ledger::store::append_adjustment(connection, change, reason, actor).await?)
}
