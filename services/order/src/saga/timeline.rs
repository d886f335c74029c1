//! How an order's saga went, and where it is: for staff.

use order_core::ids::{OrderId, RefundId, UserId};
use serde::Serialize;
use service::Money;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Phase;
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
