//! How many of a product are in a cart, for who changes that number.

use order_core::ids::{ProductId, UserId};
use service::db::Connection;

use super::store;

/// How many there are until the transaction ends: the line is locked, and nobody else puts one there meanwhile.
pub async fn quantity(connection: &mut Connection, user: UserId, product: ProductId) -> sqlx::Result<u32> {
    store::take_turn(connection, user).await?;
    let found = sqlx::query_scalar!(
        "SELECT quantity FROM orders.cart_items WHERE user_id = $1 AND product_id = $2 FOR UPDATE",
        user as UserId,
        product as ProductId,
    )
    .fetch_optional(connection)
    .await?;
    Ok(found.map_or(0, |quantity| u32::try_from(quantity).unwrap_or(0)))
}
