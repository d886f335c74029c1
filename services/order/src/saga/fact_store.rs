//! The SQL by which facts are applied: the rows are locked, and what changed is written.

use std::collections::HashMap;

use order_core::ids::{IntentId, OrderId};
use service::db::Connection;
use service::money::Currency;

use super::columns::{columns, is_refundable};
use super::row::{Row, Step};
use super::store::Progress;
use super::{State, refund_store};
use crate::events::publish::About;
use crate::order::store::currency;
use crate::order::{CancelReason, Card, Status};
use crate::times::Times;

/// The state of each order, its saga's row locked in the order of ids.
pub async fn lock(connection: &mut Connection, ids: &[OrderId]) -> sqlx::Result<HashMap<OrderId, Row>> {
    let rows = sqlx::query!(
        r#"SELECT s.order_id, s.phase, s.intent_id, s.pending_cancel, s.epoch, s.version AS saga_version, s.attempts,
                s.news, s.news_read, s.traceparent, s.deadline_at <= now() AS "overdue!",
                EXTRACT(epoch FROM COALESCE(s.waiting_since, now()) - s.waited - o.placed_at)::float8 AS "in_work!",
                o.user_id, o.currency, o.status, o.cancel_reason,
                o.payment_status, o.payment_action, o.decline_reason, o.card_brand, o.card_last4, o.dispute, o.tracking, o.total, o.version,
                o.shipping_address ->> 'name' AS recipient,
                COALESCE(o.shipping_address ->> 'city', o.shipping_address ->> 'region') AS town
         FROM orders.sagas s JOIN orders.orders o ON o.id = s.order_id
         WHERE s.order_id = ANY($1) ORDER BY s.order_id FOR UPDATE"#,
        ids as &[OrderId]
    )
    .fetch_all(&mut *connection)
    .await?;
    // Read after the lock: a statement that waits for a lock sees other tables as they were before. And only
    // where there can be any.
    let paid = rows.iter().filter(|row| is_refundable(&row.payment_status));
    let paid = paid.map(|row| Ok((row.order_id.into(), currency(&row.currency)?)));
    let paid: HashMap<OrderId, Currency> = paid.collect::<sqlx::Result<_>>()?;
    let mut refunds = refund_store::read(connection, &paid).await?;
    rows.into_iter()
        .map(|row| {
            let id = OrderId::from(row.order_id);
            let progress = Progress {
                epoch: row.epoch,
                version: row.saga_version,
                attempts: row.attempts,
                reports: row.news,
                reports_read: row.news_read,
                released: false,
            };
            let (user, recipient, town, traceparent) =
                (row.user_id.into(), row.recipient, row.town, row.traceparent);
            let (version, locked) = (row.version, row.version);
            let (overdue, in_work) = (row.overdue, row.in_work);
            let state = columns!(row).state(refunds.remove(&id).unwrap_or_default())?;
            let about = About { user, total: state.total, recipient, town, traceparent };
            let (lease, steps) = (None, Vec::new());
            Ok((id, Row { about, state, version, locked, progress, in_work, overdue, lease, steps }))
        })
        .collect()
}

/// Writes the changes, and returns the progress of each saga. One statement: it costs little more than each
/// of its parts.
pub async fn write(
    connection: &mut Connection,
    changed: &[(OrderId, Row)],
    history: &[(&Step, Status)],
    times: &Times,
) -> sqlx::Result<HashMap<OrderId, Progress>> {
    if changed.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<OrderId> = changed.iter().map(|(id, _)| *id).collect();
    let column = |value: fn(&State) -> &'static str| -> Vec<String> {
        changed.iter().map(|(_, row)| value(&row.state).to_owned()).collect()
    };
    let optional = |value: fn(&State) -> Option<CancelReason>| -> Vec<Option<String>> {
        changed.iter().map(|(_, row)| value(&row.state).map(|reason| reason.as_str().to_owned())).collect()
    };
    let intents: Vec<Option<&IntentId>> = changed.iter().map(|(_, row)| row.state.intent.as_ref()).collect();
    let held: Vec<bool> = changed.iter().map(|(_, row)| row.lease.is_some()).collect();
    let busy: Vec<bool> = changed.iter().map(|(_, row)| row.state.next_call().is_some()).collect();
    let parcels =
        changed.iter().map(|(_, row)| row.state.tracking.as_ref().map(serde_json::to_value).transpose());
    let parcels: Vec<Option<serde_json::Value>> =
        parcels.collect::<Result<_, _>>().map_err(|error| sqlx::Error::Encode(error.into()))?;
    let actions =
        changed.iter().map(|(_, row)| row.state.action.as_ref().map(serde_json::to_value).transpose());
    let actions: Vec<Option<serde_json::Value>> =
        actions.collect::<Result<_, _>>().map_err(|error| sqlx::Error::Encode(error.into()))?;
    let declines = changed.iter().map(|(_, row)| row.state.decline.map(|reason| reason.as_str().to_owned()));
    let declines: Vec<Option<String>> = declines.collect();
    let disputes =
        changed.iter().map(|(_, row)| row.state.dispute.map(|dispute| dispute.as_str().to_owned()));
    let disputes: Vec<Option<String>> = disputes.collect();
    let card = |value: fn(&Card) -> &String| -> Vec<Option<String>> {
        changed.iter().map(|(_, row)| row.state.card.as_ref().map(|card| value(card).clone())).collect()
    };
    // When an order looks to its customer as before, only the saga is written.
    let seen: Vec<Option<i64>> =
        changed.iter().map(|(_, row)| (row.version > row.locked).then_some(row.version)).collect();
    let step_orders: Vec<OrderId> = history.iter().map(|(step, _)| step.order).collect();
    let versions: Vec<i64> = history.iter().map(|(step, _)| step.version).collect();
    let statuses: Vec<String> = history.iter().map(|(_, status)| status.as_str().to_owned()).collect();
    let payments: Vec<String> = history.iter().map(|(step, _)| step.payment.as_str().to_owned()).collect();
    let refunded: Vec<i64> = history.iter().map(|(step, _)| step.refunded.amount).collect();
    // `next_at` is in an index, so it does not change while a worker goes on.
    let rows = sqlx::query!(
        r#"WITH ordered AS (
             UPDATE orders.orders o
             SET status = c.status, cancel_reason = c.reason, payment_status = c.payment, tracking = c.tracking,
                 payment_action = c.action, decline_reason = c.decline, dispute = c.dispute, refunded = c.refunded, version = c.version, updated_at = now(),
                 -- One that has forgotten its customer learns it no more.
                 card_brand = CASE WHEN o.shipping_address IS NOT NULL THEN c.card_brand END,
                 card_last4 = CASE WHEN o.shipping_address IS NOT NULL THEN c.card_last4 END
             FROM UNNEST($1::uuid[], $9::text[], $10::text[], $6::text[], $11::jsonb[], $12::bigint[], $13::bigint[],
                         $19::jsonb[], $20::text[], $21::text[], $22::text[], $23::text[])
                  AS c (id, status, reason, payment, tracking, version, refunded, action, decline, dispute,
                        card_brand, card_last4)
             WHERE o.id = c.id AND c.version IS NOT NULL
         ), noted AS (
             INSERT INTO orders.order_history (order_id, version, status, payment_status, refunded)
             SELECT * FROM UNNEST($14::uuid[], $15::bigint[], $16::text[], $17::text[], $18::bigint[])
         )
         UPDATE orders.sagas s
         SET phase = c.phase, intent_id = c.intent, pending_cancel = c.pending, busy = c.busy,
             version = s.version + 1, attempts = CASE WHEN s.phase = c.phase THEN s.attempts ELSE 0 END,
             next_at = CASE WHEN c.held THEN s.next_at ELSE now() END,
             deadline_at = CASE
                 WHEN c.action IS NULL THEN s.deadline_at
                 ELSE GREATEST(s.deadline_at, s.action_deadline_at) END,
             waited = s.waited
                 + CASE WHEN c.action IS NULL THEN COALESCE(now() - s.waiting_since, '0') ELSE '0' END,
             waiting_since = CASE WHEN c.action IS NOT NULL THEN COALESCE(s.waiting_since, now()) END,
             lease_until = CASE
                 WHEN NOT c.held THEN s.lease_until
                 WHEN c.busy OR s.news > s.news_read AND NOT orders.is_known(c.payment, s.news_of)
                     THEN now() + make_interval(secs => $8)
                 ELSE '-infinity' END,
             news_read = CASE WHEN orders.is_known(c.payment, s.news_of) THEN s.news ELSE s.news_read END,
             news_of = CASE WHEN orders.is_known(c.payment, s.news_of) THEN '{}' ELSE s.news_of END
         FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bool[], $6::text[], $7::bool[],
                     $19::jsonb[])
              AS c (id, phase, intent, pending, busy, payment, held, action)
         WHERE s.order_id = c.id
         RETURNING s.order_id, s.epoch, s.version, s.attempts, s.news, s.news_read,
                   c.held AND s.lease_until = '-infinity' AS "released!""#,
        &ids as &[OrderId],
        &column(|state| state.phase.as_str()),
        &intents as &[Option<&IntentId>],
        &optional(|state| state.pending_cancel) as &[Option<String>],
        &busy,
        &column(|state| state.payment.as_str()),
        &held,
        times.saga_lease.as_secs_f64(),
        &column(|state| state.status.as_str()),
        &optional(|state| state.cancel_reason) as &[Option<String>],
        &parcels as &[Option<serde_json::Value>],
        &seen as &[Option<i64>],
        &changed.iter().map(|(_, row)| row.state.returned().amount).collect::<Vec<i64>>(),
        &step_orders as &[OrderId],
        &versions,
        &statuses,
        &payments,
        &refunded,
        &actions as &[Option<serde_json::Value>],
        &declines as &[Option<String>],
        &disputes as &[Option<String>],
        &card(|card| &card.brand) as &[Option<String>],
        &card(|card| &card.last4) as &[Option<String>],
    )
    .fetch_all(&mut *connection)
    .await?;
    let progress = rows.into_iter().map(|row| {
        let progress = Progress {
            epoch: row.epoch,
            version: row.version,
            attempts: row.attempts,
            reports: row.news,
            reports_read: row.news_read,
            released: row.released,
        };
        (row.order_id.into(), progress)
    });
    Ok(progress.collect())
}
