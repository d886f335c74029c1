//! Leases of sagas, and their progress.

use std::collections::HashMap;
use std::time::Duration;

use order_core::ids::OrderId;
use service::db::{Connection, Pool};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::columns::{columns, is_refundable};
use super::{State, refund_store};
use crate::order::Placement;
use crate::order::store::{FIRST_EPOCH, currency};

/// A saga that this process works on.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    pub order_id: OrderId,
    pub epoch: i64,
}

/// Takes up to `limit` sagas that are due and that nobody works on.
pub async fn claim(connection: &mut Connection, limit: i64, lease: Duration) -> sqlx::Result<Vec<Lease>> {
    sqlx::query_as!(
        Lease,
        // An array, so that the index is used however many are due.
        "UPDATE orders.sagas SET epoch = epoch + 1, lease_until = now() + make_interval(secs => $2)
         WHERE order_id = ANY(ARRAY(
             SELECT order_id FROM orders.sagas
             WHERE (busy OR news > news_read) AND next_at <= now() AND lease_until < now()
             ORDER BY next_at LIMIT $1 FOR UPDATE SKIP LOCKED))
         RETURNING order_id, epoch",
        limit,
        lease.as_secs_f64(),
    )
    .fetch_all(connection)
    .await
}

/// How many are due and wait for a worker, counted up to `most`.
pub async fn waiting(connection: &mut Connection, most: i64) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM (
             SELECT FROM orders.sagas
             WHERE (busy OR news > news_read) AND next_at <= now() AND lease_until < now()
             LIMIT $1
         ) due"#,
        most,
    )
    .fetch_one(connection)
    .await
}

/// How far a saga is, beside its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub epoch: i64,
    /// Changes with every write.
    pub version: i64,
    /// Failed calls since the phase began.
    pub attempts: i32,
    /// How many reports came about its intent, and how many of them were followed up.
    pub reports: i64,
    pub reports_read: i64,
    /// The last write released the lease: nothing is left to do.
    pub released: bool,
}

/// What a worker needs to make the next call.
#[derive(Clone, Debug)]
pub struct Job {
    pub state: State,
    pub progress: Progress,
    pub placed_at: OffsetDateTime,
    pub payment_method: String,
    pub traceparent: Option<String>,
    /// When the time for paying is over, as of a moment of the database's clock.
    pub deadline: Instant,
    /// The same once the customer has to prove who they are.
    action_deadline: Instant,
}

impl Job {
    /// For an order that this process placed a moment ago, with the first lease.
    pub fn placed(order: &Placement) -> Self {
        Self {
            state: State::placed(order.items.total()),
            progress: Progress {
                epoch: FIRST_EPOCH,
                version: 1,
                attempts: 0,
                reports: 0,
                reports_read: 0,
                released: false,
            },
            placed_at: order.placed_at,
            payment_method: order.payment_method.clone(),
            traceparent: order.traceparent.clone(),
            deadline: Instant::now() + Duration::from_secs_f64(order.deadline_seconds),
            action_deadline: Instant::now() + Duration::from_secs_f64(order.action_seconds),
        }
    }

    /// A customer who has to prove who they are gets longer to pay; the row has the later deadline, too.
    pub fn give_time(&mut self) {
        if self.state.action.is_some() {
            self.deadline = self.deadline.max(self.action_deadline);
        }
    }

    /// Whether the time for paying is over, where that still matters.
    pub fn is_overdue(&self) -> bool {
        self.deadline <= Instant::now() && self.state.has_deadline()
    }

    /// Whether reports came that were not followed up.
    pub fn has_unread_reports(&self) -> bool {
        self.progress.reports > self.progress.reports_read
    }
}

/// The saga, if `lease` is still valid; the lease is extended by `hold`.
pub async fn load(connection: &mut Connection, lease: Lease, hold: Duration) -> sqlx::Result<Option<Job>> {
    let row = sqlx::query!(
        r#"WITH held AS (
             UPDATE orders.sagas SET lease_until = now() + make_interval(secs => $3)
             WHERE order_id = $1 AND epoch = $2
             RETURNING order_id, phase, intent_id, pending_cancel, version, attempts, deadline_at,
                       action_deadline_at, traceparent, news, news_read
         )
         SELECT s.phase, s.intent_id, s.pending_cancel, s.version, s.attempts, s.traceparent, s.news, s.news_read,
                GREATEST(EXTRACT(epoch FROM s.deadline_at - now()), 0)::float8 AS "left!",
                GREATEST(EXTRACT(epoch FROM s.action_deadline_at - now()), 0)::float8 AS action_left, o.status, o.cancel_reason,
                o.payment_status, o.payment_action, o.decline_reason, o.card_brand, o.card_last4, o.dispute, o.tracking, o.total, o.currency, o.payment_method, o.placed_at
         FROM held s JOIN orders.orders o ON o.id = s.order_id"#,
        lease.order_id as OrderId,
        lease.epoch,
        hold.as_secs_f64(),
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let mut refunds = match is_refundable(&row.payment_status) {
        true => {
            let paid = HashMap::from([(lease.order_id, currency(&row.currency)?)]);
            refund_store::read(connection, &paid).await?
        }
        false => HashMap::new(),
    };
    let progress = Progress {
        epoch: lease.epoch,
        version: row.version,
        attempts: row.attempts,
        reports: row.news,
        reports_read: row.news_read,
        released: false,
    };
    let (placed_at, payment_method, traceparent) = (row.placed_at, row.payment_method, row.traceparent);
    let deadline = Instant::now() + Duration::from_secs_f64(row.left);
    let action_deadline = Instant::now() + Duration::from_secs_f64(row.action_left.unwrap_or(0.0));
    let state = columns!(row).state(refunds.remove(&lease.order_id).unwrap_or_default())?;
    Ok(Some(Job { state, progress, placed_at, payment_method, traceparent, deadline, action_deadline }))
}

/// Releases a saga, to be taken up again after `pause`, or at once when reports came since `seen`. A failed
/// `attempt` counts towards longer pauses. While nothing can be paid because of `our_fault`, the order's
/// deadline waits.
pub async fn release(
    connection: &mut Connection,
    lease: Lease,
    pause: Duration,
    attempt: bool,
    seen: i64,
    our_fault: bool,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE orders.sagas
         SET lease_until = '-infinity',
             next_at = CASE WHEN news > $5 THEN now() ELSE now() + make_interval(secs => $3) END,
             attempts = CASE WHEN $4 THEN attempts + 1 ELSE 0 END,
             deadline_at = CASE WHEN $6 THEN GREATEST(deadline_at, now() + interval '5 minutes') ELSE deadline_at END
         WHERE order_id = $1 AND epoch = $2",
        lease.order_id as OrderId,
        lease.epoch,
        pause.as_secs_f64(),
        attempt,
        seen,
        our_fault,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The provider was asked about the reports up to `read`.
pub async fn mark_reports_read(connection: &mut Connection, order: OrderId, read: i64) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE orders.sagas
         SET news_read = GREATEST(news_read, $2), news_of = CASE WHEN news = $2 THEN '{}' ELSE news_of END
         WHERE order_id = $1",
        order as OrderId,
        read,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Releases a saga and undoes its claim.
pub async fn put_back(connection: &mut Connection, lease: Lease) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE orders.sagas SET lease_until = '-infinity' WHERE order_id = $1 AND epoch = $2",
        lease.order_id as OrderId,
        lease.epoch,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes that a report of this `kind` came about an intent, and makes its saga due now. A report that the
/// payment's status already contains is not written. Returns whether it was written.
pub async fn add_report(connection: &mut Connection, intent: &str, kind: &str) -> sqlx::Result<bool> {
    let written = sqlx::query!(
        "UPDATE orders.sagas s
         SET next_at = now(), news = s.news + 1,
             news_of = CASE WHEN $2 = ANY(s.news_of) THEN s.news_of ELSE s.news_of || $2::text END
         FROM orders.orders o
         WHERE s.intent_id = $1 AND o.id = s.order_id AND NOT orders.is_known(o.payment_status, ARRAY[$2])",
        intent,
        kind,
    )
    .execute(connection)
    .await?;
    Ok(written.rows_affected() > 0)
}

/// Makes an order's saga due now, even if its worker is about to release it.
pub async fn reschedule(connection: &mut Connection, order: OrderId) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE orders.sagas SET news = news + 1, next_at = now() WHERE order_id = $1",
        order as OrderId
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The sagas with work left that are at one phase.
pub struct Open {
    pub phase: String,
    pub open: i64,
    /// Due for more than a minute, or without success for long.
    pub stuck: i64,
    pub waiting: i64,
    pub oldest_seconds: f64,
}

/// How many sagas with work left there are at each phase that has any.
pub async fn open(pool: &Pool) -> sqlx::Result<Vec<Open>> {
    // The first 48 bits of an order's id (UUIDv7) are the time when it was placed, in milliseconds.
    sqlx::query_as!(
        Open,
        r#"SELECT phase, count(*) AS "open!",
                  count(*) FILTER (WHERE next_at < now() - interval '1 minute' OR attempts > 20) AS "stuck!",
                  count(waiting_since) AS "waiting!",
                  COALESCE(max(EXTRACT(epoch FROM COALESCE(waiting_since, now()) - waited)
                               - ('x' || translate(left(order_id::text, 13), '-', ''))::bit(48)::bigint / 1000.0),
                           0)::float8 AS "oldest_seconds!"
           FROM orders.sagas WHERE busy OR news > news_read GROUP BY phase"#
    )
    .fetch_all(pool)
    .await
}
