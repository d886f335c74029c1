//! Erases what is known of a user.
//!
//! What is kept for convenience goes at once. An open order needs its address until it ends, or is refunded
//! whole before it was shipped, and then loses it ([`store::forget_ended`], a step of its end). An order that
//! was shipped and is never reported delivered loses it after a while ([`store::forget_long_shipped`]).
//! Orders stay, under an id that leads to nobody. Each write of an order or a claim checks for the tombstone,
//! so the order of events does not matter.

pub mod store;

use audit::Entry;
use order_core::ids::UserId;
use service::db::Connection;
use service::idempotency;
use uuid::Uuid;

/// Writes tombstones and erases what can be erased now; safe to repeat.
pub async fn erase(connection: &mut Connection, users: &[UserId]) -> sqlx::Result<()> {
    if users.is_empty() {
        return Ok(());
    }
    store::mark_deleted(connection, users).await?;
    // Claims before carts and orders, as those who place them lock.
    store::delete_claims(connection, users).await?;
    store::delete_carts(connection, users).await?;
    let ids: Vec<Uuid> = users.iter().copied().map(Uuid::from).collect();
    idempotency::forget(connection, &ids).await?;
    audit::forget(connection, &ids).await?;
    // Locked first: a single statement would not see that an order is about to end.
    let orders = store::lock_orders(connection, users).await?;
    store::forget_ended(connection, &orders).await
}

/// Records what was done to an order of this customer. For an erased customer no personal value is kept.
pub async fn record(connection: &mut Connection, customer: UserId, entry: Entry) -> sqlx::Result<()> {
    let forgotten = store::is_deleted(connection, customer).await?;
    audit::record(connection, if forgotten { entry.impersonal() } else { entry }).await
}

/// Again for users erased within the last hour: their access tokens outlive them by minutes, and a request of
/// theirs may have been under way.
pub async fn erase_again(connection: &mut Connection) -> sqlx::Result<()> {
    let users = store::deleted_lately(connection).await?;
    erase(connection, &users).await
}
