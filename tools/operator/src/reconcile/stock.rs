//! Stock against its ledger, and against the orders that took it.

use std::collections::HashSet;

use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::{About, Difference, Options, Remedy};

pub(super) async fn count(connection: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM products.stock").fetch_one(connection).await
}

/// Products whose levels are not the sums they should be.
pub(super) async fn levels(connection: &mut PgConnection) -> sqlx::Result<Vec<Difference>> {
    let rows: Vec<(Uuid, i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT s.product_id, s.on_hand::bigint, s.reserved::bigint, COALESCE(l.sum, 0), COALESCE(r.sum, 0)
         FROM products.stock s
         LEFT JOIN (SELECT product_id, sum(delta)::bigint AS sum
                    FROM products.stock_ledger GROUP BY product_id) l USING (product_id)
         LEFT JOIN (SELECT n.product_id, sum(n.quantity)::bigint AS sum
                    FROM products.reservations r JOIN products.reservation_lines n USING (order_id)
                    WHERE r.state = 'reserved' GROUP BY n.product_id) r USING (product_id)
         WHERE s.on_hand <> COALESCE(l.sum, 0) OR s.reserved <> COALESCE(r.sum, 0)
         ORDER BY s.product_id",
    )
    .fetch_all(connection)
    .await?;
    let mut differences = Vec::new();
    for (id, on_hand, reserved, ledger, open) in rows {
        let mut differs = |what| {
            let remedy =
                Remedy::nothing("find who wrote to the table; count, and correct it by an adjustment");
            differences.push(Difference { about: About::Stock, id, what, remedy });
        };
        if on_hand != ledger {
            differs(format!("{on_hand} on hand, and its ledger comes to {ledger}"));
        }
        if reserved != open {
            differs(format!("{reserved} reserved, and its open reservations come to {open}"));
        }
    }
    Ok(differences)
}

#[derive(FromRow)]
struct Held {
    id: Uuid,
    status: String,
    state: Option<String>,
    /// The event that would put it right and was not applied yet.
    event: Option<Uuid>,
    /// Lines that are not as the order has them.
    unlike: i64,
    /// Units that were to come back and have not.
    out: i64,
}

/// Orders whose reservations don't fit them, and reservations without an order.
pub(super) async fn reservations(
    connection: &mut PgConnection,
    options: &Options,
    dead: &HashSet<(&'static str, Uuid)>,
) -> sqlx::Result<Vec<Difference>> {
    let (since, grace) = (options.since_seconds(), options.grace.as_secs_f64());
    // Sold and not given back; given back and still held. What an event is to bring about gets the grace.
    // The product service deletes the oldest reservations, and says up to where.
    let held: Vec<Held> = sqlx::query_as(
        "WITH sides AS (
             SELECT o.id, o.status, r.state,
                    (SELECT count(*) FROM (
                         SELECT product_id, sum(quantity) AS quantity FROM orders.order_items
                         WHERE order_id = o.id GROUP BY product_id) i
                     FULL JOIN (SELECT product_id, quantity FROM products.reservation_lines
                                WHERE order_id = o.id) n USING (product_id)
                     WHERE i.quantity IS DISTINCT FROM n.quantity AND r.order_id IS NOT NULL
                       AND r.state <> 'released') AS unlike,
                    (SELECT COALESCE(sum(GREATEST(LEAST(n.quantity, CASE WHEN o.status = 'cancelled'
                         THEN n.quantity ELSE COALESCE(b.units, 0) END) - n.restocked, 0)), 0)::bigint
                     FROM products.reservation_lines n
                     LEFT JOIN (SELECT (line ->> 'product_id')::uuid AS product_id,
                                       sum((line ->> 'quantity')::int) AS units
                                FROM orders.refunds f CROSS JOIN jsonb_array_elements(f.restock) AS line
                                WHERE f.order_id = o.id AND f.told GROUP BY 1) b USING (product_id)
                     WHERE n.order_id = o.id AND r.state = 'committed') AS out,
                    (SELECT e.id FROM orders.outbox e LEFT JOIN products.inbox x
                         ON x.consumer = 'product' AND x.event_id = e.id
                     WHERE e.aggregate_id = o.id AND e.type IN ('order.cancelled.v1', 'order.refunded.v1')
                       AND x.event_id IS NULL ORDER BY e.id LIMIT 1) AS event,
                    o.updated_at < now() - make_interval(secs => $2) AS settled
             FROM orders.orders o LEFT JOIN products.reservations r ON r.order_id = o.id
             WHERE $1::float8 IS NULL OR o.updated_at > now() - make_interval(secs => $1)
         )
         SELECT id, status, state, event, unlike, out FROM sides
         WHERE unlike > 0
            OR (status IN ('confirmed', 'partially_shipped', 'shipped', 'delivered') AND state IS DISTINCT FROM 'committed'
                AND NOT (state IS NULL AND id <= (SELECT up_to FROM products.forgotten_reservations)))
            OR (settled AND (out > 0 OR (status = 'cancelled' AND state = 'reserved')))
         ORDER BY id",
    )
    .bind(since)
    .bind(grace)
    .fetch_all(&mut *connection)
    .await?;
    let mut differences: Vec<Difference> = held.into_iter().map(|held| held.difference(dead)).collect();
    differences.extend(ledger(connection, since).await?);
    differences.extend(ownerless(connection, since, grace).await?);
    Ok(differences)
}

impl Held {
    fn difference(self, dead: &HashSet<(&'static str, Uuid)>) -> Difference {
        let status = self.status;
        let state = self.state.as_deref().unwrap_or("not there");
        let (what, by_event) = match (status.as_str(), state) {
            _ if self.unlike > 0 => (format!("{} of its lines are not as reserved", self.unlike), false),
            ("cancelled", "reserved") => ("is cancelled, and its stock still reserved".to_owned(), true),
            (_, "committed") => {
                (format!("is {status}, and {} units it gave back are not on the shelf", self.out), true)
            }
            _ => (format!("is {status}, and its reservation is {state}"), false),
        };
        let remedy = match self.event {
            Some(event) if by_event && dead.contains(&("product", event)) => Remedy::replay(event),
            Some(event) if by_event => Remedy::Publish { service: "order", event },
            _ => {
                Remedy::nothing("compare the order's lines with products.reservation_lines and stock_ledger")
            }
        };
        Difference { about: About::Stock, id: self.id, what, remedy }
    }
}

/// Sales whose entries in the ledger are not what was sold and came back.
async fn ledger(connection: &mut PgConnection, since: Option<f64>) -> sqlx::Result<Vec<Difference>> {
    let rows: Vec<(Uuid, Uuid, i64, i64)> = sqlx::query_as(
        "SELECT n.order_id, n.product_id,
                (CASE WHEN r.state = 'committed' THEN n.restocked - n.quantity ELSE 0 END)::bigint,
                COALESCE(l.sum, 0)
         FROM products.reservations r
         JOIN products.reservation_lines n USING (order_id)
         LEFT JOIN (SELECT order_id, product_id, sum(delta)::bigint AS sum FROM products.stock_ledger
                    WHERE order_id IS NOT NULL GROUP BY 1, 2) l
             ON l.order_id = n.order_id AND l.product_id = n.product_id
         WHERE ($1::float8 IS NULL OR r.created_at > now() - make_interval(secs => $1))
           AND (CASE WHEN r.state = 'committed' THEN n.restocked - n.quantity ELSE 0 END) <> COALESCE(l.sum, 0)
         ORDER BY 1, 2",
    )
    .bind(since)
    .fetch_all(connection)
    .await?;
    let difference = |(id, product, lines, ledger)| Difference {
        about: About::Stock,
        id,
        what: format!("moved {lines} of product {product}, and the ledger says {ledger}"),
        remedy: Remedy::nothing("find who wrote to the tables"),
    };
    Ok(rows.into_iter().map(difference).collect())
}

/// Sold to no order, or held beyond its time.
async fn ownerless(
    connection: &mut PgConnection,
    since: Option<f64>,
    grace: f64,
) -> sqlx::Result<Vec<Difference>> {
    let rows: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT r.order_id, r.state FROM products.reservations r
         WHERE (r.state = 'reserved' AND r.expires_at < now() - make_interval(secs => $2))
            OR (r.state = 'committed' AND NOT EXISTS (SELECT FROM orders.orders o WHERE o.id = r.order_id)
                AND ($1::float8 IS NULL OR r.created_at > now() - make_interval(secs => $1)))
         ORDER BY r.order_id",
    )
    .bind(since)
    .bind(grace)
    .fetch_all(connection)
    .await?;
    let difference = |(id, state): (Uuid, String)| {
        let (what, hint) = match state.as_str() {
            "committed" => ("was sold, and there is no such order", "was a schema restored from a backup?"),
            _ => ("holds stock beyond its time", "the product service ends these each second: does it run?"),
        };
        let (what, remedy) = (format!("its reservation {what}"), Remedy::nothing(hint));
        Difference { about: About::Stock, id, what, remedy }
    };
    Ok(rows.into_iter().map(difference).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_event_is_to_put_right_is_published_again_unless_it_is_a_dead_letter() {
        let event = Uuid::now_v7();
        let remedy = |dead: &[(&'static str, Uuid)]| {
            let held = Held {
                id: Uuid::now_v7(),
                status: "cancelled".to_owned(),
                state: Some("reserved".to_owned()),
                event: Some(event),
                unlike: 0,
                out: 0,
            };
            held.difference(&dead.iter().copied().collect()).remedy.to_string()
        };
        assert_eq!(remedy(&[]), format!("publish {event} of order again"));
        assert_eq!(remedy(&[("user", event)]), remedy(&[]));
        assert_eq!(
            remedy(&[("product", event)]),
            format!("`dlq show {event}` says why; then `dlq replay {event}`")
        );
    }
}
