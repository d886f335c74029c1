//! Facts applied to sagas: lock the rows, apply the rule, write what changed.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Effect, Input, NotCancellable, Phase, State};
use crate::order::store::announce;
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
                o.total, o.currency, o.payment_method, r.id AS "refund_id?", r.amount AS "refund_amount?"
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

/// Applies facts, one after the other, in the caller's transaction. An answer
/// for each, in order; `None` for an unknown order.
pub async fn apply(
    connection: &mut PgConnection,
    facts: &[(Uuid, Input)],
) -> sqlx::Result<Vec<Option<Result<State, NotCancellable>>>> {
    let mut ids: Vec<Uuid> = facts.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    ids.dedup();
    let before = lock(connection, &ids).await?;
    let mut now = before.clone();
    let mut effects: Vec<(Uuid, Effect)> = Vec::new();
    let mut answers = Vec::with_capacity(facts.len());
    for (id, input) in facts {
        let Some(state) = now.get_mut(id) else {
            answers.push(None);
            continue;
        };
        let applied = state.clone().apply(input.clone());
        if let Ok((new, caused)) = &applied {
            effects.extend(caused.iter().map(|effect| (*id, *effect)));
            *state = new.clone();
        }
        answers.push(Some(applied.map(|(state, _)| state)));
    }
    now.retain(|id, state| before.get(id) != Some(state));
    let mut changed: Vec<(Uuid, State)> = now.into_iter().collect();
    changed.sort_unstable_by_key(|(id, _)| *id);
    write(connection, &changed).await?;
    perform(connection, &effects).await?;
    Ok(answers)
}

/// The state of each order, its saga's row locked in the order of ids.
async fn lock(connection: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<HashMap<Uuid, State>> {
    let rows = sqlx::query!(
        "SELECT s.order_id, s.phase, s.intent_id, s.pending_cancel, o.status, o.cancel_reason, o.payment_status
         FROM orders.sagas s JOIN orders.orders o ON o.id = s.order_id
         WHERE s.order_id = ANY($1) ORDER BY s.order_id FOR UPDATE",
        ids
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let state = State {
                status: Status::try_from(row.status)?,
                cancel_reason: row.cancel_reason.map(CancelReason::try_from).transpose()?,
                payment: PaymentStatus::try_from(row.payment_status)?,
                phase: Phase::try_from(row.phase)?,
                intent: row.intent_id,
                pending_cancel: row.pending_cancel.map(CancelReason::try_from).transpose()?,
            };
            Ok((row.order_id, state))
        })
        .collect()
}

async fn write(connection: &mut PgConnection, changed: &[(Uuid, State)]) -> sqlx::Result<()> {
    if changed.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = changed.iter().map(|(id, _)| *id).collect();
    let column = |value: fn(&State) -> &'static str| -> Vec<String> {
        changed.iter().map(|(_, state)| value(state).to_owned()).collect()
    };
    let optional = |value: fn(&State) -> Option<CancelReason>| -> Vec<Option<String>> {
        changed.iter().map(|(_, state)| value(state).map(|reason| reason.as_str().to_owned())).collect()
    };
    let intents: Vec<Option<String>> = changed.iter().map(|(_, state)| state.intent.clone()).collect();
    sqlx::query!(
        "UPDATE orders.sagas s
         SET phase = c.phase, intent_id = c.intent, pending_cancel = c.pending, version = s.version + 1,
             attempts = CASE WHEN s.phase = c.phase THEN s.attempts ELSE 0 END, next_at = now()
         FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[]) AS c (id, phase, intent, pending)
         WHERE s.order_id = c.id",
        &ids,
        &column(|state| state.phase.as_str()),
        &intents as &[Option<String>],
        &optional(|state| state.pending_cancel) as &[Option<String>],
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "UPDATE orders.orders o
         SET status = c.status, cancel_reason = c.reason, payment_status = c.payment,
             version = o.version + 1, updated_at = now()
         FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[]) AS c (id, status, reason, payment)
         WHERE o.id = c.id AND (o.status, o.payment_status) IS DISTINCT FROM (c.status, c.payment)",
        &ids,
        &column(|state| state.status.as_str()),
        &optional(|state| state.cancel_reason) as &[Option<String>],
        &column(|state| state.payment.as_str()),
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn perform(connection: &mut PgConnection, effects: &[(Uuid, Effect)]) -> sqlx::Result<()> {
    if effects.is_empty() {
        return Ok(());
    }
    let of = |wanted: Effect| -> Vec<Uuid> {
        effects.iter().filter(|(_, effect)| *effect == wanted).map(|(id, _)| *id).collect()
    };
    let (confirmed, cancelled) = (of(Effect::Confirm), of(Effect::Cancel));
    if !confirmed.is_empty() || !cancelled.is_empty() {
        sqlx::query!(
            "INSERT INTO orders.order_history (order_id, version, status, at)
             SELECT o.id, o.version, h.status, now()
             FROM (SELECT id, 'confirmed' AS status FROM UNNEST($1::uuid[]) AS id
                   UNION ALL SELECT id, 'cancelled' FROM UNNEST($2::uuid[]) AS id) AS h
             JOIN orders.orders o ON o.id = h.id",
            &confirmed,
            &cancelled,
        )
        .execute(&mut *connection)
        .await?;
        let reasons = sqlx::query!(
            "SELECT id, cancel_reason FROM orders.orders WHERE id = ANY($1) AND cancel_reason IS NOT NULL",
            &cancelled
        )
        .fetch_all(&mut *connection)
        .await?;
        let mut announced: Vec<(Uuid, Option<CancelReason>)> =
            confirmed.iter().map(|id| (*id, None)).collect();
        for row in reasons {
            announced.push((row.id, row.cancel_reason.map(CancelReason::try_from).transpose()?));
        }
        announce(connection, &announced).await?;
    }
    for order in of(Effect::OpenRefund) {
        sqlx::query!(
            "INSERT INTO orders.refunds (id, order_id, amount, reason)
             SELECT $1, id, total - refunded, 'order cancelled' FROM orders.orders
             WHERE id = $2 AND total > refunded",
            Uuid::now_v7(),
            order,
        )
        .execute(&mut *connection)
        .await?;
    }
    for order in of(Effect::CloseRefund) {
        sqlx::query!(
            "WITH closed AS (
                 UPDATE orders.refunds SET status = 'succeeded'
                 WHERE order_id = $1 AND status = 'pending' RETURNING amount
             )
             UPDATE orders.orders SET refunded = refunded + (SELECT COALESCE(sum(amount), 0) FROM closed)::bigint,
                    updated_at = now()
             WHERE id = $1",
            order,
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
