//! How an order's saga went, and where it is: for staff, from what the tables hold. All SQL of it.

use order_core::ids::{OrderId, RefundId, UserId};
use proto::events::{
    ORDER_CANCELLED, ORDER_CONFIRMED, ORDER_DELIVERED, ORDER_PLACED, ORDER_REFUNDED, ORDER_SHIPPED,
};
use serde::Serialize;
use service::Money;
use service::db::Connection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Phase;
use crate::order::store::currency;
use crate::order::{CancelReason, PaymentStatus, Status};

/// Where the saga is, and the steps that led there.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrderSaga)]
pub struct Timeline {
    #[schema(inline)]
    pub order_id: OrderId,
    pub phase: Phase,
    /// The provider's name of the PaymentIntent; null until it is created, and of what costs nothing.
    #[schema(required)]
    pub intent_id: Option<String>,
    /// A cancellation that waits for the provider's answer.
    #[schema(required)]
    pub pending_cancel: Option<CancelReason>,
    /// When the next call is due; null when nothing is left to do.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub next_at: Option<OffsetDateTime>,
    /// Calls in vain since the last step.
    #[schema(minimum = 0)]
    pub attempts: i32,
    /// Until when a worker holds it; null when none does.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub lease_until: Option<OffsetDateTime>,
    /// When an unpaid order is cancelled.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub deadline_at: OffsetDateTime,
    /// Since when the order waits for its customer, who has to prove something to their bank.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub waiting_since: Option<OffsetDateTime>,
    /// How often the provider's webhooks had news, and how often they were not followed up yet.
    #[schema(minimum = 0)]
    pub reports: i64,
    #[schema(minimum = 0)]
    pub reports_unread: i64,
    /// Oldest first.
    pub steps: Vec<Step>,
    /// Events that are written and that the broker has not confirmed, oldest first, 100 at most.
    #[schema(max_items = 100)]
    pub waiting_events: Vec<WaitingEvent>,
}

/// A fact that was written.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SagaStep)]
pub struct Step {
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
    #[serde(flatten)]
    pub fact: Fact,
    /// The type of the event that was written with it; null without one.
    #[schema(required)]
    pub event: Option<&'static str>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schema(as = SagaFact)]
pub enum Fact {
    /// The request to order came. Known for a day after its answer.
    Requested,
    /// The order's status changed.
    #[schema(title = "SagaStatus")]
    Status {
        status: Status,
        /// Of the payment, at that moment.
        payment: PaymentStatus,
        /// The order's version from then on.
        version: i64,
    },
    /// A refund was written down, and is asked for at the provider.
    #[schema(title = "SagaRefund")]
    Refund {
        #[schema(inline)]
        id: RefundId,
        amount: Money,
        /// As it is now.
        #[schema(pattern = "^(pending|succeeded|failed)$")]
        status: String,
        /// Staff, a cancellation, or somebody at the provider.
        #[schema(pattern = "^(staff|cancel|provider)$")]
        made_by: String,
        /// Who of the staff.
        #[schema(inline, required)]
        actor: Option<UserId>,
        /// The provider's name of it; null until it has answered.
        #[schema(required)]
        provider_id: Option<String>,
    },
}

#[derive(Debug, Serialize, ToSchema)]
pub struct WaitingEvent {
    pub id: Uuid,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    /// How often the broker did not take it.
    #[schema(minimum = 0)]
    pub attempts: i32,
}

/// None when there is no such order.
pub async fn read(connection: &mut Connection, order: OrderId) -> sqlx::Result<Option<Timeline>> {
    let saga = sqlx::query!(
        r#"SELECT s.phase, s.intent_id, s.pending_cancel, s.attempts, s.deadline_at, s.waiting_since, s.news, s.news_read,
                  CASE WHEN s.busy OR s.news > s.news_read THEN s.next_at END AS next_at,
                  CASE WHEN s.lease_until > now() THEN s.lease_until END AS lease_until, o.currency
           FROM orders.sagas s JOIN orders.orders o ON o.id = s.order_id WHERE s.order_id = $1"#,
        order as OrderId,
    );
    let Some(saga) = saga.fetch_optional(&mut *connection).await? else { return Ok(None) };
    let mut steps = requested(connection, order).await?;
    steps.extend(statuses(connection, order).await?);
    steps.extend(refunds(connection, order, &saga.currency).await?);
    // Stable: what was written in one transaction keeps its order.
    steps.sort_by_key(|step| step.at);
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
        steps,
        waiting_events: waiting_events(connection, order).await?,
    }))
}

async fn requested(connection: &mut Connection, order: OrderId) -> sqlx::Result<Vec<Step>> {
    let at =
        sqlx::query_scalar!("SELECT created_at FROM orders.claims WHERE order_id = $1", order as OrderId);
    let at = at.fetch_optional(connection).await?;
    Ok(at.map(|at| Step { at, fact: Fact::Requested, event: None }).into_iter().collect())
}

async fn statuses(connection: &mut Connection, order: OrderId) -> sqlx::Result<Vec<Step>> {
    let rows = sqlx::query!(
        "SELECT version, status, at, payment_status FROM orders.order_history WHERE order_id = $1 ORDER BY version, at",
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
    let step = |(at, fact, told): (OffsetDateTime, Fact, bool)| Step {
        at,
        fact,
        event: told.then_some(ORDER_REFUNDED),
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

async fn waiting_events(connection: &mut Connection, order: OrderId) -> sqlx::Result<Vec<WaitingEvent>> {
    sqlx::query_as!(
        WaitingEvent,
        r#"SELECT id, type AS kind, created_at, attempts FROM orders.outbox
           WHERE published_at IS NULL AND aggregate_id = $1 ORDER BY id LIMIT 100"#,
        order as OrderId,
    )
    .fetch_all(connection)
    .await
}
