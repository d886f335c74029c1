//! All SQL of orders.

use std::collections::HashMap;

use order_core::ids::{OrderId, ProductId, UserId};
use service::Money;
use service::db::{Connection, Defect};
use service::money::Currency;
use time::OffsetDateTime;
use uuid::Uuid;

use order_core::saga::State;

use crate::address::Address;

use super::{
    CancelReason, Card, DeclineReason, Dispute, Item, NextAction, Order, OrderNumber, Past, PaymentStatus,
    Placement, Status, Tracking, parcel_store,
};

/// The epoch of an order whose first worker is the process that placed it.
pub const FIRST_EPOCH: i64 = 1;

/// Whether an order was not written because another has its number.
pub fn is_number_taken(error: &sqlx::Error) -> bool {
    service::db::violated_constraint(error) == Some("directory_number_key")
}

/// Writes new orders with their items, history, sagas and places in the directory.
pub async fn insert(connection: &mut Connection, placements: &[Placement]) -> sqlx::Result<()> {
    let column = |value: fn(&Placement) -> String| placements.iter().map(value).collect::<Vec<String>>();
    let ids: Vec<OrderId> = placements.iter().map(|order| order.id).collect();
    let users: Vec<UserId> = placements.iter().map(|order| order.user_id).collect();
    let totals: Vec<i64> = placements.iter().map(|order| order.items.total().amount).collect();
    let addresses = placements.iter().map(|order| serde_json::to_value(&order.shipping_address));
    let addresses: Vec<serde_json::Value> =
        addresses.collect::<Result<_, _>>().map_err(|error| sqlx::Error::Encode(error.into()))?;
    let times: Vec<OffsetDateTime> = placements.iter().map(|order| order.placed_at).collect();
    let traces: Vec<Option<String>> = placements.iter().map(|order| order.traceparent.clone()).collect();
    let deadlines: Vec<f64> = placements.iter().map(|order| order.deadline_seconds).collect();
    let actions: Vec<f64> = placements.iter().map(|order| order.action_seconds).collect();
    let leases: Vec<Option<f64>> =
        placements.iter().map(|order| order.lease.map(|lease| lease.as_secs_f64())).collect();
    let mut items = Columns::default();
    for order in placements {
        for (position, item) in order.items.iter().enumerate() {
            items.push(order.id, position, item);
        }
    }
    sqlx::query!(
        "WITH placed AS (
             INSERT INTO orders.orders
                 (id, user_id, status, currency, total, shipping_address, payment_method, placed_at, updated_at)
             SELECT id, user_id, 'pending', currency, total, address, method, placed_at, placed_at
             FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::jsonb[], $6::text[],
                         $9::timestamptz[])
                 AS o (id, user_id, currency, total, address, method, placed_at)
         ), noted AS (
             INSERT INTO orders.order_history (order_id, version, status, at)
             SELECT id, 1, 'pending', at FROM UNNEST($1::uuid[], $9::timestamptz[]) AS h (id, at)
         ), listed AS (
             INSERT INTO orders.order_items (order_id, position, product_id, sku, name, unit_price, quantity)
             SELECT * FROM UNNEST
                 ($12::uuid[], $13::int[], $14::uuid[], $15::text[], $16::text[], $17::bigint[], $18::int[])
         ), entered AS (
             INSERT INTO orders.directory (order_id, number, currency, total, words)
             SELECT id, number, currency, total, orders.words(address, NULL)
             FROM UNNEST($1::uuid[], $21::text[], $3::text[], $4::bigint[], $5::jsonb[])
                 AS d (id, number, currency, total, address)
         )
         INSERT INTO orders.sagas
             (order_id, phase, deadline_at, action_deadline_at, traceparent, epoch, lease_until)
         SELECT id, phase, now() + make_interval(secs => seconds), now() + make_interval(secs => action), traceparent,
                CASE WHEN lease IS NULL THEN 0 ELSE $11::bigint END,
                COALESCE(now() + make_interval(secs => lease), '-infinity')
         FROM UNNEST($1::uuid[], $7::float8[], $8::text[], $10::float8[], $19::text[], $20::float8[])
             AS s (id, seconds, traceparent, lease, phase, action)",
        &ids as &[OrderId],
        &users as &[UserId],
        &column(|order| order.items.total().currency.code().to_owned()),
        &totals,
        &addresses,
        &column(|order| order.payment_method.clone()),
        &deadlines,
        &traces as &[Option<String>],
        &times,
        &leases as &[Option<f64>],
        FIRST_EPOCH,
        &items.orders as &[OrderId],
        &items.positions,
        &items.products as &[ProductId],
        &items.skus,
        &items.names,
        &items.prices,
        &items.quantities,
        &column(|order| State::placed(order.items.total()).phase.as_str().to_owned()),
        &actions,
        &column(|order| order.number.as_str().to_owned()),
    )
    .execute(connection)
    .await?;
    Ok(())
}

#[derive(Default)]
struct Columns {
    orders: Vec<OrderId>,
    positions: Vec<i32>,
    products: Vec<ProductId>,
    skus: Vec<String>,
    names: Vec<String>,
    prices: Vec<i64>,
    quantities: Vec<i32>,
}

impl Columns {
    fn push(&mut self, order: OrderId, position: usize, item: &Item) {
        self.orders.push(order);
        self.positions.push(i32::try_from(position).unwrap_or(i32::MAX));
        self.products.push(item.product_id);
        self.skus.push(item.sku.clone());
        self.names.push(item.name.clone());
        self.prices.push(item.unit_price.amount);
        self.quantities.push(item.quantity.into());
    }
}

/// An order's line. Its price is in the order's currency.
struct ItemRow {
    order_id: OrderId,
    number: OrderNumber,
    product_id: ProductId,
    sku: String,
    name: String,
    unit_price: i64,
    quantity: i32,
}

impl ItemRow {
    fn item(&self, currency: Currency) -> sqlx::Result<Item> {
        Ok(Item {
            product_id: self.product_id,
            sku: self.sku.clone(),
            name: self.name.clone(),
            unit_price: Money::new(self.unit_price, currency),
            quantity: self.quantity.try_into()?,
        })
    }
}

/// An order's number and its lines.
pub struct Contents {
    pub number: OrderNumber,
    lines: Vec<ItemRow>,
}

impl Contents {
    pub fn items(&self, currency: Currency) -> sqlx::Result<Vec<Item>> {
        self.lines.iter().map(|line| line.item(currency)).collect()
    }
}

/// The number and the lines of each order, by its id.
pub async fn contents(
    connection: &mut Connection,
    orders: &[OrderId],
) -> sqlx::Result<HashMap<OrderId, Contents>> {
    let rows = sqlx::query_as!(
        ItemRow,
        r#"SELECT i.order_id, i.product_id, i.sku, i.name, i.unit_price, i.quantity,
                  (SELECT number FROM orders.directory d WHERE d.order_id = i.order_id) AS "number!: OrderNumber"
           FROM orders.order_items i
           WHERE i.order_id = ANY($1) ORDER BY i.order_id, i.position"#,
        orders as &[OrderId]
    )
    .fetch_all(connection)
    .await?;
    let mut contents: HashMap<OrderId, Contents> = HashMap::new();
    for row in rows {
        let new = || Contents { number: row.number.clone(), lines: Vec::new() };
        contents.entry(row.order_id).or_insert_with(new).lines.push(row);
    }
    Ok(contents)
}

/// The orders of `ids`, newest first.
pub async fn load(connection: &mut Connection, ids: &[OrderId]) -> sqlx::Result<Vec<Order>> {
    let rows = sqlx::query!(
        r#"SELECT id, user_id, status, cancel_reason, currency, total, refunded, payment_status,
                  payment_method, payment_action, decline_reason, dispute, shipping_address, tracking, version, placed_at, updated_at,
                  (SELECT COALESCE(sum(amount), 0) FROM orders.refunds r
                   WHERE r.order_id = o.id AND r.status = 'pending')::bigint AS "refunding!",
                  EXISTS (SELECT FROM orders.refunds r WHERE r.order_id = o.id AND r.told) AS "restocked!"
           FROM orders.orders o WHERE id = ANY($1) ORDER BY id DESC"#,
        ids as &[OrderId]
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut contents = contents(connection, ids).await?;
    let found = sqlx::query!(
        "SELECT order_id, version, status, at, payment_status, refunded FROM orders.order_history
         WHERE order_id = ANY($1) ORDER BY order_id, version, status DESC",
        ids as &[OrderId]
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut parcels = parcel_store::read(connection, ids).await?;
    // Only where an order can have some, and it matters.
    let can_be_less = rows.iter().filter(|row| match row.status.as_str() {
        "confirmed" => row.refunded > 0 || row.refunding > 0 || row.restocked,
        status => status == "partially_shipped",
    });
    let can_be_less: Vec<OrderId> = can_be_less.map(|row| row.id.into()).collect();
    let mut unsent = parcel_store::restocked_unsent(connection, &can_be_less).await?;
    let mut history: HashMap<OrderId, Vec<_>> = HashMap::new();
    for row in found {
        history.entry(row.order_id.into()).or_default().push(row);
    }
    rows.into_iter()
        .map(|row| {
            let id = OrderId::from(row.id);
            let currency = currency(&row.currency)?;
            let history = history.remove(&id).unwrap_or_default().into_iter();
            // Each statement sees what is committed by then: a change since the first one is left to the next
            // read.
            let history = history.filter(|past| past.version <= row.version).map(|past| {
                Ok(Past {
                    version: past.version,
                    status: Status::try_from(past.status)?,
                    at: past.at,
                    payment_status: PaymentStatus::try_from(past.payment_status)?,
                    refunded: Money::new(past.refunded, currency),
                })
            });
            let history = history.collect::<sqlx::Result<Vec<Past>>>()?;
            let contents = contents.remove(&id).ok_or(Defect("an order has no lines"))?;
            let (status, items) = (Status::try_from(row.status)?, contents.items(currency)?);
            let tracking = row.tracking.map(tracking).transpose()?;
            let left = history.iter().find(|past| past.status == Status::Shipped).map(|past| past.at);
            let parcels = match (parcels.remove(&id), left) {
                // Read a moment after the order: a parcel that left in between.
                _ if matches!(status, Status::Pending | Status::Confirmed) => vec![],
                (Some(parcels), _) => parcels,
                (None, Some(at)) => vec![parcel_store::of_all(id, &items, tracking.clone(), at)],
                (None, None) => vec![],
            };
            Ok(Order {
                id,
                user_id: row.user_id.into(),
                status,
                cancel_reason: row.cancel_reason.map(CancelReason::try_from).transpose()?,
                total: Money::new(row.total, currency),
                refunded: Money::new(row.refunded, currency),
                refunding: Money::new(row.refunding, currency),
                payment_status: PaymentStatus::try_from(row.payment_status)?,
                payment_method: row.payment_method,
                payment_action: row.payment_action.map(action).transpose()?,
                dispute: row.dispute.map(Dispute::try_from).transpose()?,
                decline_reason: row.decline_reason.map(DeclineReason::try_from).transpose()?,
                shipping_address: row.shipping_address,
                tracking,
                parcels,
                unsent: unsent.remove(&id).unwrap_or_default(),
                placed_at: row.placed_at,
                updated_at: row.updated_at,
                items,
                number: contents.number,
                version: row.version,
                history,
            })
        })
        .collect()
}

/// Gives an order another address; false when a part of it has left, it has ended, or its customer was
/// erased.
pub async fn readdress(connection: &mut Connection, id: OrderId, address: &Address) -> sqlx::Result<bool> {
    let address = serde_json::to_value(address).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let changed = sqlx::query!(
        "UPDATE orders.orders SET shipping_address = $2, version = version + 1, updated_at = now()
         WHERE id = $1 AND status IN ('pending', 'confirmed') AND shipping_address IS NOT NULL",
        id as OrderId,
        address,
    )
    .execute(connection)
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// Ids of orders, newest first, older than `before`: of one user, or of all.
pub async fn ids(
    connection: &mut Connection,
    user: Option<UserId>,
    status: Option<Status>,
    before: Option<OrderId>,
    limit: i64,
) -> sqlx::Result<Vec<OrderId>> {
    let before = before.unwrap_or_else(|| Uuid::max().into());
    // A statement for each, so that each has an index of its own.
    match (user, status) {
        (Some(user), None) => {
            sqlx::query_scalar!(
                r#"SELECT id AS "id: OrderId" FROM orders.orders WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3"#,
                user as UserId,
                before as OrderId,
                limit
            )
            .fetch_all(connection)
            .await
        }
        (Some(user), Some(status)) => {
            sqlx::query_scalar!(
                r#"SELECT id AS "id: OrderId" FROM orders.orders WHERE user_id = $1 AND status = $2 AND id < $3
                 ORDER BY id DESC LIMIT $4"#,
                user as UserId,
                status.as_str(),
                before as OrderId,
                limit
            )
            .fetch_all(connection)
            .await
        }
        (None, None) => {
            sqlx::query_scalar!(
                r#"SELECT id AS "id: OrderId" FROM orders.orders WHERE id < $1 ORDER BY id DESC LIMIT $2"#,
                before as OrderId,
                limit
            )
            .fetch_all(connection)
            .await
        }
        // With `status = $1` the order of the primary key would do too. PostgreSQL chooses it when it
        // thinks that orders of a status lie everywhere, and reads all others to find an old one.
        (None, Some(status)) => {
            sqlx::query_scalar!(
                r#"SELECT id AS "id: OrderId" FROM orders.orders WHERE status >= $1 AND status <= $1 AND id < $2
                 ORDER BY status, id DESC LIMIT $3"#,
                status.as_str(),
                before as OrderId,
                limit
            )
            .fetch_all(connection)
            .await
        }
    }
}

pub fn tracking(column: serde_json::Value) -> sqlx::Result<Tracking> {
    serde_json::from_value(column).map_err(|error| sqlx::Error::Decode(error.into()))
}

pub fn action(column: serde_json::Value) -> sqlx::Result<NextAction> {
    serde_json::from_value(column).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// The card that was charged, of its two columns.
pub fn card(brand: Option<String>, last4: Option<String>) -> Option<Card> {
    Card::new(&brand.unwrap_or_default(), &last4?)
}

pub fn currency(code: &str) -> sqlx::Result<Currency> {
    Currency::from_code(code).ok_or_else(|| sqlx::Error::Decode(format!("{code} is no currency").into()))
}
