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
    /// Oldest first. Statuses come in the order in which the order had them, also where the clocks of replicas differ.
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
    /// The type of the event that tells of it; null without one. A refund's is written when the refund has succeeded.
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

/// The request, then the statuses as they come, and each refund after the last status that is not younger. None comes before
/// the order was placed.
pub fn in_order(requested: Option<Step>, statuses: Vec<Step>, mut refunds: Vec<Step>) -> Vec<Step> {
    let mut steps = statuses;
    refunds.sort_by_key(|refund| refund.at);
    for refund in refunds {
        let after = steps.iter().rposition(|step| step.at <= refund.at).unwrap_or(0) + 1;
        steps.insert(after.min(steps.len()), refund);
    }
    requested.into_iter().chain(steps).collect()
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    #[test]
    fn statuses_keep_their_order_whatever_their_clocks_say() {
        let step = |second: i64, fact: Fact| Step {
            at: OffsetDateTime::UNIX_EPOCH + Duration::seconds(second),
            fact,
            event: None,
        };
        let status = |second, status, version| {
            step(second, Fact::Status { status, payment: PaymentStatus::Captured, version })
        };
        let refund = |second, made_by: &str| {
            let fact = Fact::Refund {
                id: RefundId::from(Uuid::now_v7()),
                amount: Money::zero("EUR".parse().unwrap()),
                status: "succeeded".to_owned(),
                made_by: made_by.to_owned(),
                actor: None,
                provider_id: None,
            };
            step(second, fact)
        };
        // The clock of who placed it was fast.
        let statuses = vec![
            status(90, Status::Pending, 1),
            status(10, Status::Confirmed, 2),
            status(20, Status::Cancelled, 3),
        ];
        let refunds = vec![refund(20, "cancel"), refund(15, "staff"), refund(5, "provider")];
        let steps = in_order(Some(step(60, Fact::Requested)), statuses, refunds);
        let named = |step: &Step| match &step.fact {
            Fact::Requested => "requested".to_owned(),
            Fact::Status { version, .. } => version.to_string(),
            Fact::Refund { made_by, .. } => made_by.clone(),
        };
        let steps: Vec<_> = steps.iter().map(named).collect();
        assert_eq!(steps, ["requested", "1", "provider", "2", "staff", "3", "cancel"]);
        assert_eq!(in_order(None, vec![], vec![refund(5, "staff")]).len(), 1);
    }
}
