//! Forgetting a user.
//!
//! What is kept for convenience goes at once. An open order needs its address
//! until it ends, or is refunded whole before it was shipped, and then loses it
//! ([`store::forget_ended`], a step of its end); one that was shipped and that nobody
//! reports delivered loses it after a while ([`store::forget_long_shipped`]). Orders
//! stay, under an id that leads to nobody. The tombstone is looked at wherever an
//! order or a claim is written, so that it doesn't matter what comes first.

pub mod store;

use audit::Entry;
use order_core::ids::UserId;
use service::db::Connection;
use service::idempotency;
use uuid::Uuid;

/// Leaves tombstones and forgets what can be forgotten now; safe to repeat.
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
    // Locked first: one that is about to end would not show as ended to a single statement.
    let orders = store::lock_orders(connection, users).await?;
    store::forget_ended(connection, &orders).await
}

/// Records what was done to an order of this customer. Of one who is forgotten no personal value is kept.
pub async fn record(connection: &mut Connection, customer: UserId, entry: Entry) -> sqlx::Result<()> {
    let forgotten = store::is_deleted(connection, customer).await?;
    audit::record(connection, if forgotten { entry.impersonal() } else { entry }).await
}

/// Once more for those erased within the last hour: their access tokens outlive
/// them by minutes, and a request of theirs may have been under way.
pub async fn erase_again(connection: &mut Connection) -> sqlx::Result<()> {
    let users = store::deleted_lately(connection).await?;
    erase(connection, &users).await
}
