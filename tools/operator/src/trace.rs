//! One order's history, from what the three databases and the provider hold: requests, statuses, events,
//! mails and payments, each with its time.

use anyhow::Result;
use serde::Serialize;
use sqlx::{FromRow, PgPool};
use uuid::{Builder, Uuid};

use crate::provider::Provider;

#[derive(Clone, Debug, Serialize)]
pub struct Trace {
    #[serde(flatten)]
    pub order: Order,
    /// Oldest first.
    pub moments: Vec<Moment>,
}

#[derive(Clone, Debug, FromRow, Serialize)]
pub struct Order {
    pub order_id: Uuid,
    pub status: String,
    pub payment: String,
    /// Where the saga is.
    pub phase: String,
    /// Calls in vain since the last one that brought it on.
    pub attempts: i32,
    /// Seconds until the next call is due; null when nothing is left to do.
    pub next_seconds: Option<f64>,
    /// The provider's name of the payment.
    pub intent_id: Option<String>,
    /// Of the distributed trace that the order was placed in.
    pub trace_id: Option<String>,
}

#[derive(Clone, Debug, FromRow, PartialEq, Serialize)]
pub struct Moment {
    /// RFC 3339, UTC. The provider tells whole seconds.
    pub at: String,
    /// Seconds since the first moment that a service tells: since the order was asked for, for a day.
    pub offset_seconds: f64,
    /// How long it took: until the answer, the broker's confirm, the mail server's. Null for what has no end, or none yet.
    pub took_seconds: Option<f64>,
    /// Whose time it is.
    pub service: String,
    /// `request`, `status`, `refund`, `event` (written, until it was published), `applied` (an event, by who consumes
    /// it, since it was written), `reservation`, `stock`, `mail` or `payment`.
    pub kind: String,
    pub what: String,
}

const ORDER: &str = "
    SELECT o.id AS order_id, o.status, o.payment_status AS payment, s.phase, s.attempts, s.intent_id,
           CASE WHEN s.busy OR s.news > s.news_read
                THEN EXTRACT(epoch FROM s.next_at - now())::float8 END AS next_seconds,
           split_part(s.traceparent, '-', 2) AS trace_id
    FROM orders.orders o JOIN orders.sagas s ON s.order_id = o.id WHERE o.id = $1";

/// $1: the order; $2: the lowest id that one of its events can have; $3 and $4: what the provider tells, by Unix
/// second.
/// One statement, so one snapshot.
const MOMENTS: &str = "
    WITH written AS (
        SELECT id, type, created_at, published_at, attempts FROM orders.outbox WHERE id >= $2 AND aggregate_id = $1
    ), entries (at, until, service, kind, what) AS (
        SELECT c.created_at, o.placed_at, 'order', 'request', c.operation
        FROM orders.claims c JOIN orders.orders o ON o.id = c.order_id WHERE c.order_id = $1
        UNION ALL
        SELECT at, NULL, 'order', 'status', format('%s, payment %s', status, payment_status)
        FROM orders.order_history WHERE order_id = $1
        UNION ALL
        SELECT r.created_at, NULL, 'order', 'refund',
               format('%s %s minor units, %s, by %s', r.amount, o.currency, r.status, r.made_by)
        FROM orders.refunds r JOIN orders.orders o ON o.id = r.order_id WHERE r.order_id = $1
        UNION ALL
        SELECT created_at, published_at, 'order', 'event',
               type || CASE WHEN published_at IS NULL THEN format(', waits (%s attempts in vain)', attempts) ELSE '' END
        FROM written
        UNION ALL
        SELECT w.created_at, i.applied_at, i.service, 'applied', w.type
        FROM written w JOIN (
            SELECT 'user' AS service, event_id, applied_at FROM users.inbox WHERE consumer = 'user'
            UNION ALL SELECT 'product', event_id, applied_at FROM products.inbox WHERE consumer = 'product'
            UNION ALL SELECT 'order', event_id, applied_at FROM orders.inbox WHERE consumer = 'order') i ON i.event_id = w.id
        UNION ALL
        SELECT n.created_at, n.settled_at, 'user', 'mail', format('%s, %s', n.kind, n.status)
        FROM users.notifications n JOIN written w ON w.id = n.event_id
        UNION ALL
        SELECT created_at, NULL, 'product', 'reservation',
               state || CASE WHEN state = 'reserved'
                             THEN to_char(expires_at AT TIME ZONE 'UTC', '\", until \"YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
                             ELSE '' END
        FROM products.reservations WHERE order_id = $1
        UNION ALL
        SELECT l.created_at, NULL, 'product', 'stock', format('%s, %s units of %s', l.kind, l.delta, r.sku)
        FROM products.reservation_lines r
        JOIN products.stock_ledger l ON l.product_id = r.product_id AND l.order_id = r.order_id
        WHERE r.order_id = $1
        UNION ALL
        SELECT to_timestamp(at), NULL, 'provider', 'payment', what
        FROM unnest($3::float8[], $4::text[]) AS told (at, what)
    )
    SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS at,
           EXTRACT(epoch FROM at - min(at) FILTER (WHERE service <> 'provider') OVER ())::float8 AS offset_seconds,
           EXTRACT(epoch FROM until - at)::float8 AS took_seconds, service, kind, what
    FROM entries
    ORDER BY entries.at, array_position(ARRAY['request', 'reservation', 'stock', 'status', 'refund', 'event'], kind),
             kind, service";

/// Clocks of replicas differ by less.
const CLOCKS: u64 = 60 * 60;

/// `None` when there is no such order. Events are known for 7 days after they were published, requests for a day.
pub async fn trace(database: &PgPool, provider: Option<&Provider>, order: Uuid) -> Result<Option<Trace>> {
    let mut connection = database.acquire().await?;
    let found: Option<Order> = sqlx::query_as(ORDER).bind(order).fetch_optional(&mut *connection).await?;
    let Some(found) = found else { return Ok(None) };
    let at_provider = match (provider, &found.intent_id) {
        (Some(provider), Some(intent)) => provider.moments(intent).await?,
        _ => Vec::new(),
    };
    let (seconds, what): (Vec<f64>, Vec<String>) = at_provider.into_iter().unzip();
    let moments = sqlx::query_as(MOMENTS).bind(order).bind(first_event(order)).bind(seconds).bind(what);
    Ok(Some(Trace { order: found, moments: moments.fetch_all(&mut *connection).await? }))
}

/// An order's id is made before its events' ids are, and both tell when.
fn first_event(order: Uuid) -> Uuid {
    let Some(made) = order.get_timestamp() else { return Uuid::nil() };
    let millis = made.to_unix().0.saturating_sub(CLOCKS) * 1000;
    Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_event_of_an_order_is_below_the_first() {
        let order = Uuid::now_v7();
        assert!(first_event(order) < order && first_event(order) < Uuid::now_v7());
        assert_eq!(first_event(Uuid::nil()), Uuid::nil());
    }
}
