//! The timeline of a saga, read from the tables.

use order_core::ids::{OrderId, UserId};
use proto::events::{
    ORDER_CANCELLED, ORDER_CONFIRMED, ORDER_DELIVERED, ORDER_PLACED, ORDER_REFUNDED, ORDER_SHIPPED,
};
use service::Money;
use service::db::Connection;
use time::{Duration, OffsetDateTime};
use uuid::{Builder, Uuid};

use super::Phase;
use super::timeline::{Fact, Step, Timeline, WaitingEvent, in_order};
use crate::order::store::currency;
use crate::order::{CancelReason, PaymentStatus, Status};

/// Begins a transaction whose statements all see the same.
pub const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";

/// None when there is no such order. In a transaction that [`BEGIN`] began.
pub async fn read(connection: &mut Connection, order: OrderId) -> sqlx::Result<Option<Timeline>> {
    let saga = sqlx::query!(
        r#"SELECT s.phase, s.intent_id, s.pending_cancel, s.attempts, s.deadline_at, s.waiting_since, s.news, s.news_read,
                  CASE WHEN s.busy OR s.news > s.news_read THEN s.next_at END AS next_at,
                  CASE WHEN s.lease_until > now() THEN s.lease_until END AS lease_until, o.currency, o.placed_at
           FROM orders.sagas s JOIN orders.orders o ON o.id = s.order_id WHERE s.order_id = $1"#,
        order as OrderId,
    );
    let Some(saga) = saga.fetch_optional(&mut *connection).await? else { return Ok(None) };
    let requested = requested(connection, order).await?;
    let statuses = statuses(connection, order).await?;
    let refunds = refunds(connection, order, &saga.currency).await?;
    Ok(Some(Timeline {
        order_id: order,
        phase: Phase::try_from(saga.phase)?,
        intent_id: saga.intent_id,
        pending_cancel: saga.pending_cancel.map(CancelReason::try_from).transpose()?,
        next_at: saga.next_at,
        attempts: saga.attempts,
        lease_until: saga.lease_until,
        deadline_at: saga.deadline_at,
        waiting_since: saga.waiting_since,
        reports: saga.news,
        reports_unread: saga.news.saturating_sub(saga.news_read),
        steps: in_order(requested, statuses, refunds),
        waiting_events: waiting_events(connection, order, saga.placed_at).await?,
    }))
}

async fn requested(connection: &mut Connection, order: OrderId) -> sqlx::Result<Option<Step>> {
    let at =
        sqlx::query_scalar!("SELECT created_at FROM orders.claims WHERE order_id = $1", order as OrderId);
    let at = at.fetch_optional(connection).await?;
    Ok(at.map(|at| Step { at, fact: Fact::Requested, event: None }))
}

/// In the order in which the order had them.
async fn statuses(connection: &mut Connection, order: OrderId) -> sqlx::Result<Vec<Step>> {
    let rows = sqlx::query!(
        "SELECT version, status, at, payment_status FROM orders.order_history WHERE order_id = $1 ORDER BY version, status DESC",
        order as OrderId,
    );
    let mut steps = Vec::new();
    for row in rows.fetch_all(connection).await? {
        let status = Status::try_from(row.status)?;
        let event = match status {
            Status::Pending => ORDER_PLACED,
            Status::Confirmed => ORDER_CONFIRMED,
            Status::PartiallyShipped | Status::Shipped => ORDER_SHIPPED,
            Status::Delivered => ORDER_DELIVERED,
            Status::Cancelled => ORDER_CANCELLED,
        };
        let payment = PaymentStatus::try_from(row.payment_status)?;
        let fact = Fact::Status { status, payment, version: row.version };
        steps.push(Step { at: row.at, fact, event: Some(event) });
    }
    Ok(steps)
}

async fn refunds(connection: &mut Connection, order: OrderId, code: &str) -> sqlx::Result<Vec<Step>> {
    let currency = currency(code)?;
    let rows = sqlx::query!(
        "SELECT id, amount, status, made_by, actor, provider_id, told, created_at FROM orders.refunds
         WHERE order_id = $1 ORDER BY id",
        order as OrderId,
    );
    let step = |(at, fact, announced): (OffsetDateTime, Fact, bool)| Step {
        at,
        fact,
        event: announced.then_some(ORDER_REFUNDED),
    };
    let facts = rows.fetch_all(connection).await?.into_iter().map(|row| {
        let fact = Fact::Refund {
            id: row.id.into(),
            amount: Money::new(row.amount, currency),
            status: row.status,
            made_by: row.made_by,
            actor: row.actor.map(UserId::from),
            provider_id: row.provider_id,
        };
        (row.created_at, fact, row.told)
    });
    Ok(facts.map(step).collect())
}

/// The clocks of replicas differ by less.
const CLOCKS: Duration = Duration::hours(1);

async fn waiting_events(
    connection: &mut Connection,
    order: OrderId,
    placed_at: OffsetDateTime,
) -> sqlx::Result<Vec<WaitingEvent>> {
    // Ids hold the time when their events were written: events from before the order are not read.
    let first = lowest_id(placed_at - CLOCKS);
    sqlx::query_as!(
        WaitingEvent,
        r#"SELECT id, type AS kind, created_at, attempts FROM orders.outbox
           WHERE published_at IS NULL AND aggregate_id = $1 AND id >= $2 ORDER BY id LIMIT 100"#,
        order as OrderId,
        first,
    )
    .fetch_all(connection)
    .await
}

/// The lowest UUIDv7 of a moment.
fn lowest_id(at: OffsetDateTime) -> Uuid {
    let millis = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_id_of_a_moment_is_not_above_those_that_are_made_then() {
        let before = OffsetDateTime::now_utc();
        let made = Uuid::now_v7();
        assert!(lowest_id(before) <= made);
        assert!(lowest_id(before + Duration::seconds(1)) > made);
        assert_eq!(
            lowest_id(OffsetDateTime::UNIX_EPOCH - Duration::days(1)),
            lowest_id(OffsetDateTime::UNIX_EPOCH)
        );
    }
}
