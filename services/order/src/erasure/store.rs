//! The SQL of erasing a user.

use order_core::ids::{OrderId, UserId};
use service::db::Connection;

/// Writes tombstones; safe to repeat.
pub async fn mark_deleted(connection: &mut Connection, users: &[UserId]) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO orders.deleted_users (user_id)
         SELECT DISTINCT id FROM UNNEST($1::uuid[]) AS id ORDER BY id ON CONFLICT DO NOTHING",
        users as &[UserId],
    )
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn delete_claims(connection: &mut Connection, users: &[UserId]) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM orders.claims WHERE order_id IN (
             SELECT order_id FROM orders.claims WHERE user_id = ANY($1) ORDER BY order_id FOR UPDATE)",
        users as &[UserId],
    )
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn delete_carts(connection: &mut Connection, users: &[UserId]) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM orders.cart_items WHERE (user_id, product_id) IN (
             SELECT user_id, product_id FROM orders.cart_items
             WHERE user_id = ANY($1) ORDER BY user_id, product_id FOR UPDATE)",
        users as &[UserId],
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Locks the users' orders that still hold personal data, and returns their ids.
pub async fn lock_orders(connection: &mut Connection, users: &[UserId]) -> sqlx::Result<Vec<OrderId>> {
    sqlx::query_scalar!(
        r#"SELECT id AS "id: OrderId" FROM orders.orders
         WHERE user_id = ANY($1) AND (
             shipping_address IS NOT NULL OR tracking IS NOT NULL
             OR EXISTS (SELECT FROM orders.refunds r
                        WHERE r.order_id = orders.id AND r.made_by = 'staff' AND r.reason <> ''))
         ORDER BY id FOR UPDATE"#,
        users as &[UserId],
    )
    .fetch_all(connection)
    .await
}

/// Takes address, card and parcel, and what staff wrote of refunds, from those of the orders
/// that have ended and whose users are erased. A confirmed order that was refunded
/// whole is never shipped.
pub async fn forget_ended(connection: &mut Connection, orders: &[OrderId]) -> sqlx::Result<()> {
    if orders.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "WITH ended AS (
             SELECT id FROM orders.orders o
             WHERE id = ANY($1)
               AND (status IN ('delivered', 'cancelled') OR (status = 'confirmed' AND payment_status = 'refunded'))
               AND EXISTS (SELECT FROM orders.deleted_users d WHERE d.user_id = o.user_id)
         ), blanked AS (
             UPDATE orders.refunds SET reason = ''
             WHERE order_id IN (SELECT id FROM ended) AND made_by = 'staff' AND reason <> ''
         )
         UPDATE orders.orders SET shipping_address = NULL, tracking = NULL, card_brand = NULL, card_last4 = NULL
         WHERE id IN (SELECT id FROM ended)",
        orders as &[OrderId],
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Days after which a shipped order of an erased user loses address and parcel even if nobody
/// has reported it delivered.
const SHIPPED_DAYS: i32 = 90;

/// Takes address, card and parcel from erased users' orders that were shipped long ago.
pub async fn forget_long_shipped(connection: &mut Connection) -> sqlx::Result<()> {
    // One user after the other (OFFSET 0 keeps the planner from merging the two): shipped orders are many,
    // erased users few.
    sqlx::query!(
        "WITH long_ago AS (
             SELECT id FROM orders.orders
             WHERE id = ANY(ARRAY(
                 SELECT sent.id FROM orders.deleted_users d CROSS JOIN LATERAL (
                     SELECT o.id FROM orders.orders o
                     WHERE o.user_id = d.user_id AND o.status IN ('partially_shipped', 'shipped')
                       AND (o.shipping_address IS NOT NULL OR o.tracking IS NOT NULL)
                       AND (SELECT max(h.at) FROM orders.order_history h WHERE h.order_id = o.id
                            AND h.status IN ('partially_shipped', 'shipped')) < now() - make_interval(days => $1)
                     OFFSET 0) sent))
             ORDER BY id FOR UPDATE
         )
         UPDATE orders.orders SET shipping_address = NULL, tracking = NULL, card_brand = NULL, card_last4 = NULL
         WHERE id IN (SELECT id FROM long_ago)",
        SHIPPED_DAYS,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Cards in one go.
const MOST_CARDS: i64 = 1000;

/// Takes the card from orders that have lost their address: a replica of a release before cards leaves it.
pub async fn forget_cards_left(connection: &mut Connection) -> sqlx::Result<()> {
    sqlx::query!(
        "WITH left_over AS (
             SELECT id FROM orders.orders
             WHERE card_last4 IS NOT NULL AND shipping_address IS NULL ORDER BY id LIMIT $1 FOR UPDATE
         )
         UPDATE orders.orders SET card_brand = NULL, card_last4 = NULL
         WHERE id IN (SELECT id FROM left_over)",
        MOST_CARDS,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Users erased within the last hour.
pub async fn deleted_lately(connection: &mut Connection) -> sqlx::Result<Vec<UserId>> {
    sqlx::query_scalar!(
        r#"SELECT user_id AS "user_id: UserId" FROM orders.deleted_users
           WHERE at > now() - interval '1 hour' ORDER BY user_id"#,
    )
    .fetch_all(connection)
    .await
}

pub async fn is_deleted(connection: &mut Connection, user: UserId) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM orders.deleted_users WHERE user_id = $1) AS "deleted!""#,
        user as UserId,
    )
    .fetch_one(connection)
    .await
}
