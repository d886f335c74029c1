//! The ledger: every change of what is on hand, and why.

use serde::Serialize;
use service::db::Connection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// Why stock changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, sqlx::Type, ToSchema)]
#[schema(as = StockEntryKind)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Kind {
    /// What the product started with.
    Initial,
    /// By staff.
    Adjustment,
    /// An order's reservation was committed.
    Sale,
    /// An order that was sold was cancelled, or refunded with its goods returned.
    Restock,
}

/// An entry as the API shows it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = StockEntry)]
pub struct Entry {
    pub id: Uuid,
    pub product_id: Uuid,
    /// Grows with every entry of the product: `stock_if_version` of an import names the newest.
    #[serde(rename = "version")]
    #[schema(rename = "version", minimum = 1)]
    pub seq: i64,
    pub delta: i32,
    /// What was on hand after it.
    #[schema(minimum = 0)]
    pub on_hand: i32,
    pub kind: Kind,
    /// What staff gave as the reason.
    #[schema(required)]
    pub reason: Option<String>,
    #[schema(required)]
    pub order_id: Option<Uuid>,
    /// The user who made the adjustment.
    #[schema(required)]
    pub actor: Option<Uuid>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
}

/// A change of several products' stock for a reason of the shop's own.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub product_id: Uuid,
    pub delta: i32,
    pub on_hand: i32,
    pub order_id: Option<Uuid>,
}

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
