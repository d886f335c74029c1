//! All SQL of carts.

use std::collections::HashMap;

use order_core::ids::{ProductId, UserId};
use service::Money;
use service::db::Connection;

use crate::order::store::currency;
use crate::order::{Line, MAX_LINES};

/// A user's cart, in the order it was filled.
pub async fn lines(connection: &mut Connection, user: UserId) -> sqlx::Result<Vec<Line>> {
    let rows = sqlx::query!(
        "SELECT product_id, quantity FROM orders.cart_items WHERE user_id = $1 ORDER BY added_at, product_id",
        user as UserId
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| Ok(Line { product_id: row.product_id.into(), quantity: row.quantity.try_into()? }))
        .collect()
}

/// What became of a line that was to be put into a cart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Done,
    Full,
    /// Another line is in another currency.
    MixedCurrencies,
}

/// In the caller's transaction. Two requests that fill one cart at the same moment wait for each other, so
/// that it keeps to one currency and to its most lines.
async fn take_turn(connection: &mut Connection, user: UserId) -> sqlx::Result<()> {
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended($1::text, 4217))", user.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// How many of a product there are. The line is locked until the transaction ends, and nobody else can add
/// one meanwhile.
pub async fn locked_quantity(
    connection: &mut Connection,
    user: UserId,
    product: ProductId,
) -> sqlx::Result<u32> {
    take_turn(connection, user).await?;
    let found = sqlx::query_scalar!(
        "SELECT quantity FROM orders.cart_items WHERE user_id = $1 AND product_id = $2 FOR UPDATE",
        user as UserId,
        product as ProductId,
    )
    .fetch_optional(connection)
    .await?;
    Ok(found.map_or(0, |quantity| u32::try_from(quantity).unwrap_or(0)))
}

/// Sets how many of a product are in the cart, at the price that its user is shown. Requests for one cart
/// take turns.
pub async fn put(connection: &mut Connection, user: UserId, line: Line, price: Money) -> sqlx::Result<Put> {
    take_turn(connection, user).await?;
    let others = sqlx::query!(
        r#"SELECT count(*) AS "count!", COALESCE(bool_or(currency <> $3), false) AS "mixed!"
           FROM orders.cart_items WHERE user_id = $1 AND product_id <> $2"#,
        user as UserId,
        line.product_id as ProductId,
        price.currency.code(),
    )
    .fetch_one(&mut *connection)
    .await?;
    if others.mixed {
        return Ok(Put::MixedCurrencies);
    }
    if others.count >= MAX_LINES as i64 {
        return Ok(Put::Full);
    }
    sqlx::query!(
        "INSERT INTO orders.cart_items (user_id, product_id, quantity, currency, shown_price)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (user_id, product_id) DO UPDATE
             SET quantity = EXCLUDED.quantity, currency = EXCLUDED.currency, shown_price = EXCLUDED.shown_price",
        user as UserId,
        line.product_id as ProductId,
        i32::from(line.quantity),
        price.currency.code(),
        price.amount,
    )
    .execute(connection)
    .await?;
    Ok(Put::Done)
}

/// The prices that the cart was last shown at, by product; none of lines from before they were kept.
pub async fn shown(connection: &mut Connection, user: UserId) -> sqlx::Result<HashMap<ProductId, Money>> {
    let rows = sqlx::query!(
        r#"SELECT product_id, shown_price AS "shown_price!", currency AS "currency!" FROM orders.cart_items
           WHERE user_id = $1 AND shown_price IS NOT NULL AND currency IS NOT NULL"#,
        user as UserId
    )
    .fetch_all(connection)
    .await?;
    let price = |amount, code: &str| Ok::<_, sqlx::Error>(Money::new(amount, currency(code)?));
    rows.into_iter().map(|row| Ok((row.product_id.into(), price(row.shown_price, &row.currency)?))).collect()
}

/// Keeps the prices that the cart is shown at. Most are the same as last time, and nothing is written. Rows
/// are locked in the same order as in [`take_out`].
pub async fn show(
    connection: &mut Connection,
    user: UserId,
    prices: &[(ProductId, Money)],
) -> sqlx::Result<()> {
    let products: Vec<ProductId> = prices.iter().map(|(product, _)| *product).collect();
    let amounts: Vec<i64> = prices.iter().map(|(_, price)| price.amount).collect();
    let currencies: Vec<String> = prices.iter().map(|(_, price)| price.currency.code().to_owned()).collect();
    sqlx::query!(
        "WITH held AS MATERIALIZED (
             SELECT product_id FROM orders.cart_items
             WHERE user_id = $1 AND product_id = ANY($2) ORDER BY product_id FOR UPDATE
         )
         UPDATE orders.cart_items c SET shown_price = p.price, currency = p.currency
         FROM UNNEST($2::uuid[], $3::bigint[], $4::text[]) AS p (product_id, price, currency)
         JOIN held USING (product_id)
         WHERE c.user_id = $1 AND c.product_id = p.product_id
           AND (c.shown_price, c.currency) IS DISTINCT FROM (p.price, p.currency)",
        user as UserId,
        &products as &[ProductId],
        &amounts,
        &currencies,
    )
    .execute(connection)
    .await?;
    Ok(())
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

/// Takes out what is bought; what was added meanwhile stays. False, and nothing is taken, when the cart no
/// longer holds all of it: it was bought already, or its owner removed it.
pub async fn take_out(connection: &mut Connection, user: UserId, bought: &[Line]) -> sqlx::Result<bool> {
    let products: Vec<ProductId> = bought.iter().map(|line| line.product_id).collect();
    let quantities: Vec<i32> = bought.iter().map(|line| line.quantity.into()).collect();
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
