//! Reservations become sales.

use std::collections::{BTreeMap, HashMap};

use service::db::{Connection, Defect};
use uuid::Uuid;

use super::State;
use super::ledger::{self, Change, Kind};
use super::store::{self, Level};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Sold, now or by an earlier call.
    Committed,
    /// Never reserved, released, or run out.
    Gone,
}

/// Takes the orders' reserved stock off the shelf; a result each, in order.
pub async fn commit(connection: &mut Connection, orders: &[Uuid]) -> sqlx::Result<Vec<Committed>> {
    let held = store::lock(connection, orders).await?;
    let open = held.iter().filter(|held| held.state == State::Reserved && !held.lapsed);
    let open: Vec<Uuid> = open.map(|held| held.order_id).collect();
    if !open.is_empty() {
        sell(connection, &open).await?;
    }
    let before: HashMap<Uuid, State> = held.iter().map(|held| (held.order_id, held.state)).collect();
    Ok(orders
        .iter()
        .map(|order| match before.get(order) {
            Some(State::Committed) => Committed::Committed,
            Some(State::Reserved) if open.contains(order) => Committed::Committed,
            _ => Committed::Gone,
        })
        .collect())
}

async fn sell(connection: &mut Connection, orders: &[Uuid]) -> sqlx::Result<()> {
    let lines = store::lines(connection, orders).await?;
    let products: Vec<Uuid> = lines.iter().map(|line| line.product_id).collect();
    let mut levels = store::lock_stock(connection, &products).await?;
    let mut changes = BTreeMap::<Uuid, Level>::new();
    let mut entries = Vec::with_capacity(lines.len());
    for line in &lines {
        let change = changes.entry(line.product_id).or_default();
        change.on_hand -= line.quantity;
        change.reserved -= line.quantity;
        let level = levels.get_mut(&line.product_id).ok_or(Defect("a product has no stock level"))?;
        level.on_hand -= line.quantity;
        entries.push(Change {
            product_id: line.product_id,
            delta: -line.quantity,
            on_hand: level.on_hand,
            order_id: Some(line.order_id),
        });
    }
    store::end(connection, orders, State::Committed).await?;
    ledger::store::append(connection, Kind::Sale, &entries).await?;
    store::add_to_stock(connection, &changes).await
}
