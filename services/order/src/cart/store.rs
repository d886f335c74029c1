//! All SQL of carts.

use order_core::ids::{ProductId, UserId};
use service::db::Connection;

use crate::order::{Line, MAX_LINES};

/// A user's cart, in the order it was filled.
pub async fn lines(connection: &mut Connection, user: UserId) -> sqlx::Result<Vec<Line>> {
    let rows = sqlx::query!(
        "SELECT product_id, quantity FROM orders.cart_items WHERE user_id = $1 ORDER BY added_at, product_id",
        user as UserId
    )
    .fetch_all(connection)
    .await?;
    let line = |product_id, quantity| Line { product_id, quantity: u32::try_from(quantity).unwrap_or(0) };
    Ok(rows.into_iter().map(|row| line(row.product_id.into(), row.quantity)).collect())
}

/// Sets how many of a product are in the cart; false when the cart is full.
pub async fn put(connection: &mut Connection, user: UserId, line: Line) -> sqlx::Result<bool> {
    let put = sqlx::query!(
        "INSERT INTO orders.cart_items (user_id, product_id, quantity)
         SELECT $1, $2, $3
         WHERE EXISTS (SELECT FROM orders.cart_items WHERE user_id = $1 AND product_id = $2)
            OR (SELECT count(*) FROM orders.cart_items WHERE user_id = $1) < $4
         ON CONFLICT (user_id, product_id) DO UPDATE SET quantity = EXCLUDED.quantity",
        user as UserId,
        line.product_id as ProductId,
        i32::try_from(line.quantity).unwrap_or(i32::MAX),
        MAX_LINES as i64,
    )
    .execute(connection)
    .await?;
    Ok(put.rows_affected() == 1)
}

pub async fn remove(connection: &mut Connection, user: UserId, product: ProductId) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM orders.cart_items WHERE user_id = $1 AND product_id = $2",
        user as UserId,
        product as ProductId
    )
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn clear(connection: &mut Connection, user: UserId) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM orders.cart_items WHERE user_id = $1", user as UserId)
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes out what is bought; what was added meanwhile stays. False, and nothing
/// is taken, when the cart no longer holds all of it: it was bought already, or
/// its owner thought better of it.
pub async fn take_out(connection: &mut Connection, user: UserId, bought: &[Line]) -> sqlx::Result<bool> {
    let products: Vec<ProductId> = bought.iter().map(|line| line.product_id).collect();
    let quantities: Vec<i32> =
        bought.iter().map(|line| i32::try_from(line.quantity).unwrap_or(i32::MAX)).collect();
    let held = sqlx::query!(
        "SELECT product_id, quantity FROM orders.cart_items
         WHERE user_id = $1 AND product_id = ANY($2) ORDER BY product_id FOR UPDATE",
        user as UserId,
        &products as &[ProductId],
    )
    .fetch_all(&mut *connection)
    .await?;
    let holds = |product: &ProductId, quantity: &i32| {
        held.iter().any(|row| ProductId::from(row.product_id) == *product && row.quantity >= *quantity)
    };
    if !products.iter().zip(&quantities).all(|(product, quantity)| holds(product, quantity)) {
        return Ok(false);
    }
    sqlx::query!(
        "DELETE FROM orders.cart_items c USING UNNEST($2::uuid[], $3::int[]) AS b (product_id, quantity)
         WHERE c.user_id = $1 AND c.product_id = b.product_id AND c.quantity <= b.quantity",
        user as UserId,
        &products as &[ProductId],
        &quantities,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "UPDATE orders.cart_items c SET quantity = c.quantity - b.quantity
         FROM UNNEST($2::uuid[], $3::int[]) AS b (product_id, quantity)
         WHERE c.user_id = $1 AND c.product_id = b.product_id",
        user as UserId,
        &products as &[ProductId],
        &quantities,
    )
    .execute(connection)
    .await?;
    Ok(true)
}
