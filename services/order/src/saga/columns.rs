//! The one mapping of a saga's columns to its state.

use order_core::ids::IntentId;
use service::Money;

use super::refunds::Refund;
use super::{Phase, State};
use crate::order::store::{action, card, currency, tracking};
use crate::order::{CancelReason, DeclineReason, Dispute, PaymentStatus, Status};

/// Of the tables `sagas` and `orders`.
pub struct Columns {
    pub status: String,
    pub cancel_reason: Option<String>,
    pub payment_status: String,
    pub payment_action: Option<serde_json::Value>,
    pub decline_reason: Option<String>,
    pub card_brand: Option<String>,
    pub card_last4: Option<String>,
    pub dispute: Option<String>,
    pub tracking: Option<serde_json::Value>,
    pub total: i64,
    pub currency: String,
    pub phase: String,
    pub intent_id: Option<String>,
    pub pending_cancel: Option<String>,
}

/// The columns of a row that has more.
macro_rules! columns {
    ($row:ident) => {
        $crate::saga::columns::Columns {
            status: $row.status,
            cancel_reason: $row.cancel_reason,
            payment_status: $row.payment_status,
            payment_action: $row.payment_action,
            decline_reason: $row.decline_reason,
            card_brand: $row.card_brand,
            card_last4: $row.card_last4,
            dispute: $row.dispute,
            tracking: $row.tracking,
            total: $row.total,
            currency: $row.currency,
            phase: $row.phase,
            intent_id: $row.intent_id,
            pending_cancel: $row.pending_cancel,
        }
    };
}
pub(super) use columns;

/// Whether there can be refunds of a payment with this status.
pub fn is_refundable(payment_status: &str) -> bool {
    [PaymentStatus::Captured.as_str(), PaymentStatus::Refunded.as_str()].contains(&payment_status)
}

impl Columns {
    pub fn state(self, refunds: Vec<Refund>) -> sqlx::Result<State> {
        Ok(State {
            status: Status::try_from(self.status)?,
            cancel_reason: self.cancel_reason.map(CancelReason::try_from).transpose()?,
            payment: PaymentStatus::try_from(self.payment_status)?,
            phase: Phase::try_from(self.phase)?,
            intent: self.intent_id.map(IntentId::from),
            pending_cancel: self.pending_cancel.map(CancelReason::try_from).transpose()?,
            decline: self.decline_reason.map(DeclineReason::try_from).transpose()?,
            card: card(self.card_brand, self.card_last4),
            dispute: self.dispute.map(Dispute::try_from).transpose()?,
            action: self.payment_action.map(action).transpose()?,
            tracking: self.tracking.map(tracking).transpose()?,
            total: Money::new(self.total, currency(&self.currency)?),
            refunds,
        })
    }
}
