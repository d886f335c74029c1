//! Stock of many products at once: a new count, or more or fewer units.

use std::collections::BTreeMap;

use service::db::Connection;
use uuid::Uuid;

use super::adjust::MAX_ON_HAND;
use super::ledger::{self, Change};
use super::store::{self, Level};

/// What is to be on hand.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// This many, whatever was there before; with `seen` only while there are as many as that.
    Exactly { units: i32, seen: Option<i32> },
    /// This many more, or fewer.
    Change(i32),
}

#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// The units on hand or reserved are not what they were when this was decided.
    #[error("the stock has changed meanwhile")]
    Changed,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Sets what is on hand; what differs becomes an adjustment in the ledger. On
/// an error the transaction is spent.
pub async fn set(
    connection: &mut Connection,
    wanted: &BTreeMap<Uuid, Wanted>,
    reason: &str,
    actor: Uuid,
) -> Result<(), SetError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let products: Vec<Uuid> = wanted.keys().copied().collect();
    let levels = store::lock_stock(connection, &products).await?;
    let (mut changes, mut entries) = (BTreeMap::new(), Vec::new());
    for (product, wanted) in wanted {
        let level = levels.get(product).copied().unwrap_or_default();
        let units = match *wanted {
            Wanted::Exactly { seen: Some(seen), .. } if seen != level.on_hand => {
                return Err(SetError::Changed);
            }
            Wanted::Exactly { units, .. } => units,
            Wanted::Change(units) => level.on_hand + units,
        };
        if units < level.reserved || units > MAX_ON_HAND {
            return Err(SetError::Changed);
        }
        if units != level.on_hand {
            let delta = units - level.on_hand;
            changes.insert(*product, Level { on_hand: delta, reserved: 0 });
            entries.push(Change { product_id: *product, delta, on_hand: units, order_id: None });
        }
    }
    store::add_to_stock(connection, &changes).await?;
    ledger::store::append_adjustments(connection, &entries, reason, actor).await?;
    Ok(())
}
