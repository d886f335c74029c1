//! What left for customers: all SQL of parcels.

use std::collections::HashMap;

use order_core::ids::{OrderId, ParcelId, UserId};
use serde::de::DeserializeOwned;
use service::db::Connection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Item, Line, Parcel, Sent, Tracking, Unsent};

/// The parcels of each order, oldest first.
pub async fn read(
    connection: &mut Connection,
    orders: &[OrderId],
) -> sqlx::Result<HashMap<OrderId, Vec<Sent>>> {
    let rows = sqlx::query!(
        "SELECT id, order_id, carrier, tracking_number, collected, lines, former, key, sent_at FROM orders.parcels
         WHERE order_id = ANY($1) ORDER BY order_id, id",
        orders as &[OrderId],
    )
    .fetch_all(connection)
    .await?;
    let mut parcels: HashMap<OrderId, Vec<Sent>> = HashMap::new();
    for row in rows {
        let tracking = row.carrier.zip(row.tracking_number);
        let tracking = tracking.map(|(carrier, tracking_number)| Tracking { carrier, tracking_number });
        let parcel = Parcel { id: row.id.into(), tracking, lines: decode(row.lines)? };
        let former = decode(row.former)?;
        let sent = Sent { parcel, collected: row.collected, former, key: row.key, sent_at: row.sent_at };
        parcels.entry(row.order_id.into()).or_default().push(sent);
    }
    Ok(parcels)
}

/// What of each order went back into stock without having left.
pub async fn restocked_unsent(
    connection: &mut Connection,
    orders: &[OrderId],
) -> sqlx::Result<HashMap<OrderId, Unsent>> {
    if orders.is_empty() {
        return Ok(HashMap::new());
    }
    // The units of a refund that failed after it had succeeded are back in stock: only the money returns.
    let rows = sqlx::query!(
        r#"SELECT r.order_id, (line ->> 'product_id')::uuid AS "product_id!",
                  sum((line ->> 'quantity')::int) AS "all!",
                  COALESCE(sum((line ->> 'quantity')::int) FILTER (WHERE r.told), 0) AS "done!"
           FROM orders.refunds r CROSS JOIN jsonb_array_elements(r.restock) AS line
           WHERE r.order_id = ANY($1) AND NOT r.returned AND (r.status <> 'failed' OR r.told) GROUP BY 1, 2"#,
        orders as &[OrderId],
    )
    .fetch_all(connection)
    .await?;
    let mut unsent: HashMap<OrderId, Unsent> = HashMap::new();
    for row in rows {
        let of = unsent.entry(row.order_id.into()).or_default();
        of.all.insert(row.product_id.into(), row.all);
        of.done.insert(row.product_id.into(), row.done);
    }
    Ok(unsent)
}

fn decode<T: DeserializeOwned>(column: serde_json::Value) -> sqlx::Result<T> {
    serde_json::from_value(column).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// The only parcel of an order from when there could be but one. It is in no row, and has the id of its
/// order.
pub fn of_all(order: OrderId, items: &[Item], tracking: Option<Tracking>, sent_at: OffsetDateTime) -> Sent {
    let line = |item: &Item| Line { product_id: item.product_id, quantity: item.quantity };
    let parcel = Parcel { id: Uuid::from(order).into(), tracking, lines: items.iter().map(line).collect() };
    Sent { parcel, collected: false, former: vec![], key: None, sent_at }
}

/// Writes a parcel that left now.
pub async fn insert(
    connection: &mut Connection,
    order: OrderId,
    parcel: &Parcel,
    key: Option<&str>,
    actor: UserId,
) -> sqlx::Result<()> {
    let lines = serde_json::to_value(&parcel.lines).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query!(
        "INSERT INTO orders.parcels (id, order_id, carrier, tracking_number, collected, lines, key, actor)
         VALUES ($1, $2, $3, $4, $3::text IS NULL, $5, $6, $7)",
        parcel.id as ParcelId,
        order as OrderId,
        parcel.tracking.as_ref().map(|tracking| tracking.carrier.as_str()),
        parcel.tracking.as_ref().map(|tracking| tracking.tracking_number.as_str()),
        lines,
        key,
        actor as UserId,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Gives a parcel another carrier and number, and keeps the earlier ones. A parcel without a row gets one.
pub async fn correct(
    connection: &mut Connection,
    order: OrderId,
    sent: &Sent,
    tracking: &Tracking,
    actor: UserId,
) -> sqlx::Result<()> {
    let lines =
        serde_json::to_value(&sent.parcel.lines).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let before = sent.parcel.tracking.as_ref();
    sqlx::query!(
        "INSERT INTO orders.parcels AS p (id, order_id, carrier, tracking_number, lines, former, actor, sent_at)
         VALUES ($1, $2, $3, $4, $5, jsonb_build_array(jsonb_build_object(
                     'carrier', $6::text, 'tracking_number', $7::text, 'until', now(), 'actor', $8::uuid)), $8, $9)
         ON CONFLICT (id) DO UPDATE
         SET carrier = $3, tracking_number = $4, former = p.former || EXCLUDED.former",
        sent.parcel.id as ParcelId,
        order as OrderId,
        tracking.carrier,
        tracking.tracking_number,
        lines,
        before.map(|tracking| tracking.carrier.as_str()),
        before.map(|tracking| tracking.tracking_number.as_str()),
        actor as UserId,
        sent.sent_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}
