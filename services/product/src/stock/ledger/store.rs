//! The SQL of the ledger.

use service::db::Connection;
use uuid::Uuid;

use super::{Change, Entry, Kind};

/// Appends in the order given. The transaction holds the stock rows locked.
pub async fn append(connection: &mut Connection, kind: Kind, changes: &[Change]) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = changes.iter().map(|_| Uuid::now_v7()).collect();
    let products: Vec<Uuid> = changes.iter().map(|change| change.product_id).collect();
    let deltas: Vec<i32> = changes.iter().map(|change| change.delta).collect();
    let on_hand: Vec<i32> = changes.iter().map(|change| change.on_hand).collect();
    let orders: Vec<Option<Uuid>> = changes.iter().map(|change| change.order_id).collect();
    sqlx::query!(
        "INSERT INTO products.stock_ledger (kind, id, product_id, delta, on_hand, order_id)
         SELECT $1, c.id, c.product_id, c.delta, c.on_hand, c.order_id
         FROM UNNEST($2::uuid[], $3::uuid[], $4::int[], $5::int[], $6::uuid[])
              WITH ORDINALITY AS c (id, product_id, delta, on_hand, order_id, place)
         ORDER BY c.place",
        kind as Kind,
        &ids,
        &products,
        &deltas,
        &on_hand,
        &orders as &[Option<Uuid>],
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Appends an adjustment by staff, and returns it.
pub async fn append_adjustment(
    connection: &mut Connection,
    change: Change,
    reason: &str,
    actor: Uuid,
) -> sqlx::Result<Entry> {
    sqlx::query_as!(
        Entry,
        r#"INSERT INTO products.stock_ledger (kind, id, product_id, delta, on_hand, reason, actor)
           VALUES ('adjustment', $1, $2, $3, $4, $5, $6)
           RETURNING seq, id, product_id, delta, on_hand, kind AS "kind: Kind", reason, order_id, actor,
                     created_at"#,
        Uuid::now_v7(),
        change.product_id,
        change.delta,
        change.on_hand,
        reason,
        actor,
    )
    .fetch_one(connection)
    .await
}

/// Appends adjustments of many products by staff.
pub async fn append_adjustments(
    connection: &mut Connection,
    changes: &[Change],
    reason: &str,
    actor: Uuid,
) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = changes.iter().map(|_| Uuid::now_v7()).collect();
    let products: Vec<Uuid> = changes.iter().map(|change| change.product_id).collect();
    let deltas: Vec<i32> = changes.iter().map(|change| change.delta).collect();
    let units: Vec<i32> = changes.iter().map(|change| change.on_hand).collect();
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

/// A product's entries before `before`, newest first.
pub async fn page(
    connection: &mut Connection,
    product: Uuid,
    before: i64,
    rows: i64,
) -> sqlx::Result<Vec<Entry>> {
    sqlx::query_as!(
        Entry,
        r#"SELECT seq, id, product_id, delta, on_hand, kind AS "kind: Kind", reason, order_id, actor, created_at
           FROM products.stock_ledger WHERE product_id = $1 AND seq < $2
           ORDER BY seq DESC LIMIT $3"#,
        product,
        before,
        rows,
    )
    .fetch_all(connection)
    .await
}
