//! Who works on which saga, and until when.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Phase, State};
use crate::order::store::tracking;
use crate::order::{CancelReason, PaymentStatus, Status};

/// A saga that this process works on.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    pub order_id: Uuid,
    pub epoch: i64,
}

/// Takes up to `limit` sagas that are due and that nobody works on.
pub async fn claim(connection: &mut PgConnection, limit: i64, lease: Duration) -> sqlx::Result<Vec<Lease>> {
    sqlx::query_as!(
        Lease,
        "WITH due AS MATERIALIZED (
             SELECT order_id FROM orders.sagas
             WHERE phase NOT IN ('confirmed', 'settled') AND next_at <= now() AND lease_until < now()
             ORDER BY next_at LIMIT $1 FOR UPDATE SKIP LOCKED
         )
         UPDATE orders.sagas s SET epoch = epoch + 1, lease_until = now() + make_interval(secs => $2)
         FROM due WHERE s.order_id = due.order_id
         RETURNING s.order_id, s.epoch",
        limit,
        lease.as_secs_f64(),
    )
    .fetch_all(connection)
    .await
}

/// What a worker needs to make the next call.
#[derive(Clone, Debug)]
pub struct Job {
    pub state: State,
    pub version: i64,
    pub attempts: i32,
    pub total: i64,
    pub currency: String,
    pub payment_method: String,
    pub traceparent: Option<String>,
    pub overdue: bool,
    /// The open refund, when the saga is refunding.
    pub refund: Option<(Uuid, i64)>,
}

/// The saga, if `lease` still holds; holding it is extended to `hold`.
pub async fn load(connection: &mut PgConnection, lease: Lease, hold: Duration) -> sqlx::Result<Option<Job>> {
    let row = sqlx::query!(
        r#"WITH held AS (
             UPDATE orders.sagas SET lease_until = now() + make_interval(secs => $3)
             WHERE order_id = $1 AND epoch = $2
             RETURNING order_id, phase, intent_id, pending_cancel, version, attempts, deadline_at, traceparent
         )
         SELECT s.phase, s.intent_id, s.pending_cancel, s.version, s.attempts, s.traceparent,
                s.deadline_at <= now() AS "overdue!", o.status, o.cancel_reason, o.payment_status,
                o.tracking, o.total, o.currency, o.payment_method, r.id AS "refund_id?", r.amount AS "refund_amount?"
         FROM held s JOIN orders.orders o ON o.id = s.order_id
         LEFT JOIN orders.refunds r ON r.order_id = s.order_id AND r.status = 'pending'
         ORDER BY r.created_at LIMIT 1"#,
        lease.order_id,
        lease.epoch,
        hold.as_secs_f64(),
    )
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let state = State {
        status: Status::try_from(row.status)?,
        cancel_reason: row.cancel_reason.map(CancelReason::try_from).transpose()?,
        payment: PaymentStatus::try_from(row.payment_status)?,
        phase: Phase::try_from(row.phase)?,
        intent: row.intent_id,
        pending_cancel: row.pending_cancel.map(CancelReason::try_from).transpose()?,
        tracking: row.tracking.map(tracking).transpose()?,
    };
    Ok(Some(Job {
        state,
        version: row.version,
        attempts: row.attempts,
        total: row.total,
        currency: row.currency,
        payment_method: row.payment_method,
        traceparent: row.traceparent,
        overdue: row.overdue,
        refund: row.refund_id.zip(row.refund_amount),
    }))
}

/// Lets go of a saga, to be taken up again after `pause`. An `attempt` was in
/// vain and counts towards longer pauses.
pub async fn release(
    connection: &mut PgConnection,
    lease: Lease,
    pause: Duration,
    attempt: bool,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE orders.sagas SET lease_until = '-infinity', next_at = now() + make_interval(secs => $3),
                attempts = CASE WHEN $4 THEN attempts + 1 ELSE 0 END
         WHERE order_id = $1 AND epoch = $2",
        lease.order_id,
        lease.epoch,
        pause.as_secs_f64(),
        attempt,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes the saga of an intent due now; false when there is none.
pub async fn nudge(connection: &mut PgConnection, intent: &str) -> sqlx::Result<bool> {
    let nudged = sqlx::query!("UPDATE orders.sagas SET next_at = now() WHERE intent_id = $1", intent)
        .execute(connection)
        .await?;
    Ok(nudged.rows_affected() == 1)
}
