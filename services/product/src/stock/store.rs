//! The SQL of stock and reservations.

use std::collections::{BTreeMap, HashMap};

use service::db::{Connection, Pool};
use uuid::Uuid;

use super::ledger::Change;
use super::{Lives, State};

/// An offer of a product, read without a lock.
#[derive(Clone, Debug)]
pub struct Offer {
    pub id: Uuid,
    pub sku: String,
    pub name: String,
    pub price: i64,
    pub currency: String,
    pub archived: bool,
    pub available: i32,
}

pub async fn offers(connection: &mut Connection, products: &[Uuid]) -> sqlx::Result<HashMap<Uuid, Offer>> {
    let offers = sqlx::query_as!(
        Offer,
        r#"SELECT p.id, p.sku, p.name, p.price, p.currency, p.archived_at IS NOT NULL AS "archived!",
                  s.on_hand - s.reserved AS "available!"
           FROM products.products p JOIN products.stock s ON s.product_id = p.id
           WHERE p.id = ANY($1)"#,
        products,
    );
    let offers = offers.fetch_all(connection).await?;
    Ok(offers.into_iter().map(|offer| (offer.id, offer)).collect())
}

/// Makes a reservation for each order that has none, and returns those with the milliseconds left to them.
/// Waits for a concurrent transaction that makes the same one. Orders that are older than ended reservations
/// are kept for get none: theirs may have ended.
pub async fn claim(
    connection: &mut Connection,
    orders: &[Uuid],
    lives: Lives,
) -> sqlx::Result<HashMap<Uuid, i64>> {
    let claimed = sqlx::query!(
        "INSERT INTO products.reservations (order_id, state, expires_at)
         SELECT id, 'reserved', now() + make_interval(secs => $2)
         FROM UNNEST($1::uuid[]) AS id
         WHERE id >= (SELECT products.first_id(now() - make_interval(days => $3))) ORDER BY id
         ON CONFLICT DO NOTHING RETURNING order_id",
        orders,
        f64::from(lives.open_seconds),
        lives.ended_days,
    );
    let claimed = claimed.fetch_all(connection).await?;
    Ok(claimed.into_iter().map(|row| (row.order_id, i64::from(lives.open_seconds) * 1000)).collect())
}

/// Deletes reservations: what [`claim`] made in the same transaction, and what nobody asks for any more.
pub async fn unclaim(connection: &mut Connection, orders: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM products.reservations WHERE order_id = ANY($1)", orders)
        .execute(connection)
        .await?;
    Ok(())
}

#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub order_id: Uuid,
    pub state: State,
    /// Until it runs out, by the database's clock.
    pub remaining_ms: i64,
    /// Past its expiry by the database's clock, whether or not it was swept.
    pub lapsed: bool,
}

/// The orders' reservations as last committed.
pub async fn find(connection: &mut Connection, orders: &[Uuid]) -> sqlx::Result<Vec<Held>> {
    sqlx::query_as!(
        Held,
        r#"SELECT order_id, state AS "state: State", expires_at <= now() AS "lapsed!",
                  (EXTRACT(epoch FROM expires_at - clock_timestamp()) * 1000)::bigint AS "remaining_ms!"
           FROM products.reservations WHERE order_id = ANY($1)"#,
        orders,
    )
    .fetch_all(connection)
    .await
}

/// The orders' reservations, locked.
pub async fn lock(connection: &mut Connection, orders: &[Uuid]) -> sqlx::Result<Vec<Held>> {
    sqlx::query_as!(
        Held,
        r#"SELECT order_id, state AS "state: State", expires_at <= now() AS "lapsed!",
                  (EXTRACT(epoch FROM expires_at - clock_timestamp()) * 1000)::bigint AS "remaining_ms!"
           FROM products.reservations WHERE order_id = ANY($1) ORDER BY order_id FOR UPDATE"#,
        orders,
    )
    .fetch_all(connection)
    .await
}

/// The orders' reservations, locked. An order without one gets a `released` one, so that a late reserve finds
/// it ended. Only orders older than `ended_days` get none, as theirs may have been deleted: these come
/// second.
pub async fn lock_or_end(
    connection: &mut Connection,
    orders: &[Uuid],
    ended_days: i32,
) -> sqlx::Result<(Vec<Held>, Vec<Uuid>)> {
    // DO UPDATE locks the row even where its WHERE refuses the update. So rows are inserted or locked in one
    // sorted pass, and only those inserted are returned:
    // https://www.postgresql.org/docs/current/sql-insert.html#SQL-ON-CONFLICT
    let ended = sqlx::query!(
        r#"INSERT INTO products.reservations AS r (order_id, state, expires_at)
         SELECT DISTINCT id, 'released', now() FROM UNNEST($1::uuid[]) AS id ORDER BY id
         ON CONFLICT (order_id) DO UPDATE SET state = r.state WHERE false
         RETURNING order_id,
                   order_id < (SELECT products.first_id(now() - make_interval(days => $2))) AS "forgotten!""#,
        orders,
        ended_days,
    );
    let ended = ended.fetch_all(&mut *connection).await?.into_iter();
    let forgotten: Vec<Uuid> = ended.filter(|row| row.forgotten).map(|row| row.order_id).collect();
    if !forgotten.is_empty() {
        unclaim(connection, &forgotten).await?;
    }
    Ok((find(connection, orders).await?, forgotten))
}

/// Deletes up to `limit` reservations that ended so many days ago or more, with their lines, and records up
/// to where. Returns how many. It goes by the order's id, which contains its time, and so needs no other
/// index.
pub async fn forget(connection: &mut Connection, ended_days: i32, limit: i64) -> sqlx::Result<usize> {
    let ended = sqlx::query_scalar!(
        "SELECT order_id FROM products.reservations
         WHERE order_id < (SELECT products.first_id(now() - make_interval(days => $1)))
           AND created_at < now() - make_interval(days => $1) AND state <> 'reserved'
         ORDER BY order_id LIMIT $2 FOR UPDATE SKIP LOCKED",
        ended_days,
        limit,
    );
    let ended = ended.fetch_all(&mut *connection).await?;
    let Some(last) = ended.last() else { return Ok(0) };
    sqlx::query!("DELETE FROM products.reservation_lines WHERE order_id = ANY($1)", &ended)
        .execute(&mut *connection)
        .await?;
    unclaim(connection, &ended).await?;
    sqlx::query!("UPDATE products.forgotten_reservations SET up_to = $1 WHERE up_to < $1", last)
        .execute(connection)
        .await?;
    Ok(ended.len())
}

/// Up to `limit` reservations that ran out, locked; without those that another transaction is working on.
pub async fn lock_lapsed(connection: &mut Connection, limit: i64) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "SELECT order_id FROM products.reservations
         WHERE state = 'reserved' AND expires_at <= now()
         ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED",
        limit,
    )
    .fetch_all(connection)
    .await
}

/// How many hold stock.
pub async fn count_open(pool: &Pool) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM products.reservations WHERE state = 'reserved'"#)
        .fetch_one(pool)
        .await
}

pub async fn end(connection: &mut Connection, orders: &[Uuid], state: State) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE products.reservations SET state = $2 WHERE order_id = ANY($1)",
        orders,
        state as State,
    )
    .execute(connection)
    .await?;
    Ok(())
}

#[derive(Clone, Debug)]
pub struct LineRow {
    pub order_id: Uuid,
    pub product_id: Uuid,
    pub quantity: i32,
    pub restocked: i32,
    pub sku: String,
    pub name: String,
    pub unit_price: i64,
    pub currency: String,
}

/// The lines of the orders' reservations, sorted by order and product.
pub async fn lines(connection: &mut Connection, orders: &[Uuid]) -> sqlx::Result<Vec<LineRow>> {
    sqlx::query_as!(
        LineRow,
        "SELECT order_id, product_id, quantity, restocked, sku, name, unit_price, currency
         FROM products.reservation_lines WHERE order_id = ANY($1) ORDER BY order_id, product_id",
        orders,
    )
    .fetch_all(connection)
    .await
}

pub async fn insert_lines(connection: &mut Connection, lines: &[LineRow]) -> sqlx::Result<()> {
    let orders: Vec<Uuid> = lines.iter().map(|line| line.order_id).collect();
    let products: Vec<Uuid> = lines.iter().map(|line| line.product_id).collect();
    let quantities: Vec<i32> = lines.iter().map(|line| line.quantity).collect();
    let skus: Vec<String> = lines.iter().map(|line| line.sku.clone()).collect();
    let names: Vec<String> = lines.iter().map(|line| line.name.clone()).collect();
    let prices: Vec<i64> = lines.iter().map(|line| line.unit_price).collect();
    let currencies: Vec<String> = lines.iter().map(|line| line.currency.clone()).collect();
    sqlx::query!(
        "INSERT INTO products.reservation_lines
             (order_id, product_id, quantity, sku, name, unit_price, currency)
         SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::text[], $6::bigint[], $7::text[])",
        &orders,
        &products,
        &quantities,
        &skus,
        &names,
        &prices,
        &currencies,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Counts units as back on the shelf.
pub async fn add_restocked(connection: &mut Connection, back: &[Change]) -> sqlx::Result<()> {
    let orders: Vec<Option<Uuid>> = back.iter().map(|change| change.order_id).collect();
    let products: Vec<Uuid> = back.iter().map(|change| change.product_id).collect();
    let units: Vec<i32> = back.iter().map(|change| change.delta).collect();
    sqlx::query!(
        "UPDATE products.reservation_lines l SET restocked = l.restocked + b.units
         FROM UNNEST($1::uuid[], $2::uuid[], $3::int[]) AS b (order_id, product_id, units)
         WHERE l.order_id = b.order_id AND l.product_id = b.product_id",
        &orders as &[Option<Uuid>],
        &products,
        &units,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A stock row, or what is to be added to one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    pub on_hand: i32,
    pub reserved: i32,
}

/// The products' stock rows, locked.
pub async fn lock_stock(
    connection: &mut Connection,
    products: &[Uuid],
) -> sqlx::Result<HashMap<Uuid, Level>> {
    let rows = sqlx::query!(
        "SELECT product_id, on_hand, reserved FROM products.stock
         WHERE product_id = ANY($1) ORDER BY product_id FOR UPDATE",
        products,
    );
    let rows = rows.fetch_all(connection).await?.into_iter();
    Ok(rows
        .map(|row| {
            let (on_hand, reserved) = (row.on_hand, row.reserved);
            (row.product_id, Level { on_hand, reserved })
        })
        .collect())
}

/// Gives new products, each named once, their stock rows.
pub async fn insert_stock(connection: &mut Connection, products: &[Uuid], units: &[i32]) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO products.stock (product_id, on_hand) SELECT * FROM UNNEST($1::uuid[], $2::int[])",
        products,
        units,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Adds to stock rows that this transaction holds locked.
pub async fn add_to_stock(connection: &mut Connection, changes: &BTreeMap<Uuid, Level>) -> sqlx::Result<()> {
    let products: Vec<Uuid> = changes.keys().copied().collect();
    let on_hand: Vec<i32> = changes.values().map(|change| change.on_hand).collect();
    let reserved: Vec<i32> = changes.values().map(|change| change.reserved).collect();
    sqlx::query!(
        "UPDATE products.stock s SET on_hand = s.on_hand + c.on_hand, reserved = s.reserved + c.reserved
         FROM UNNEST($1::uuid[], $2::int[], $3::int[]) AS c (product_id, on_hand, reserved)
         WHERE s.product_id = c.product_id",
        &products,
        &on_hand,
        &reserved,
    )
    .execute(connection)
    .await?;
    Ok(())
}
