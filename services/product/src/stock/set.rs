//! Stock counted anew: so many are on hand, whatever was thought before.

use std::collections::BTreeMap;

use service::db::Connection;
use uuid::Uuid;

use super::adjust::AdjustError;
use super::store::{self, Level};

/// Sets what is on hand; what differs becomes an adjustment in the ledger. On
/// an error the transaction is spent.
pub async fn set(
    connection: &mut Connection,
    on_hand: &BTreeMap<Uuid, i32>,
    reason: &str,
    actor: Uuid,
) -> Result<(), AdjustError> {
    if on_hand.is_empty() {
        return Ok(());
    }
    let products: Vec<Uuid> = on_hand.keys().copied().collect();
    let levels = store::lock_stock(connection, &products).await?;
    let mut changes = BTreeMap::new();
    for (product, units) in on_hand {
        let level = levels.get(product).copied().unwrap_or_default();
        if *units < level.reserved {
            return Err(AdjustError::Insufficient);
        }
        if *units != level.on_hand {
            changes.insert(*product, Level { on_hand: units - level.on_hand, reserved: 0 });
        }
    }
    store::add_to_stock(connection, &changes).await?;

    let products: Vec<Uuid> = changes.keys().copied().collect();
    let ids: Vec<Uuid> = products.iter().map(|_| Uuid::now_v7()).collect();
    let deltas: Vec<i32> = changes.values().map(|change| change.on_hand).collect();
    let units: Vec<i32> = products.iter().map(|product| on_hand[product]).collect();
    sqlx::query!(
        "INSERT INTO products.stock_ledger (kind, reason, actor, id, product_id, delta, on_hand)
         SELECT 'adjustment', $1, $2, * FROM UNNEST($3::uuid[], $4::uuid[], $5::int[], $6::int[])",
        reason,
        actor,
        &ids,
        &products,
        &deltas,
        &units,
    )
    .execute(connection)
    .await?;
    Ok(())
}
