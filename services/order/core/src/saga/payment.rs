//! What the provider says of the intent, and what that does to the order.

use super::{Effect, IntentStatus, Phase, State};
use crate::ids::{IntentId, RefundId};
use crate::order::{CancelReason, NextAction, PaymentStatus, Status};

impl State {
    pub(super) fn created(&mut self, id: IntentId) -> Vec<Effect> {
        match self.phase {
            Phase::Creating => {
                branch!();
                self.intent = Some(id);
                self.phase = Phase::Authorising;
            }
            // The order ended while the call was under way: tidy up at the provider.
            Phase::Settled if self.intent.is_none() => {
                branch!();
                self.intent = Some(id);
                self.phase = Phase::Voiding;
            }
            _ => {
                branch!();
            }
        }
        vec![]
    }

    pub(super) fn action_required(&mut self, action: NextAction) -> Vec<Effect> {
        match self.phase {
            Phase::Authorising => {
                self.payment = PaymentStatus::Pending;
                if self.action.as_ref() == Some(&action) {
                    branch!();
                    return vec![];
                }
                branch!();
                // Announced once: a provider that words it differently each time does not fill the order's
                // history.
                let announced = self.action.replace(action).is_some();
                if announced { vec![] } else { vec![Effect::AskCustomer] }
            }
            // It was held before.
            Phase::Capturing => {
                branch!();
                self.payment = PaymentStatus::Unknown;
                vec![]
            }
            _ => {
                branch!();
                vec![]
            }
        }
    }

    pub(super) fn intent_reported(&mut self, status: IntentStatus, fresh: RefundId) -> Vec<Effect> {
        if self.action.is_some() && status == IntentStatus::Unconfirmed {
            // From before it was confirmed.
            branch!();
            return vec![];
        }
        // It no longer waits for the customer.
        self.action = None;
        match (self.phase, status) {
            (Phase::Authorising, IntentStatus::Authorised | IntentStatus::Captured) => {
                branch!();
                self.payment = PaymentStatus::Authorized;
                self.phase = Phase::Committing;
                vec![]
            }
            (Phase::Authorising, IntentStatus::Unconfirmed) => {
                branch!();
                self.payment = PaymentStatus::Pending;
                vec![]
            }
            (Phase::Capturing, IntentStatus::Authorised) => {
                self.payment = PaymentStatus::Authorized;
                match self.pending_cancel {
                    // Not taken, and not wanted any more.
                    Some(reason) => {
                        branch!();
                        self.cancel(reason, Phase::Voiding)
                    }
                    None => {
                        branch!();
                        vec![]
                    }
                }
            }
            (Phase::Authorising | Phase::Capturing, IntentStatus::Processing)
            | (Phase::Capturing, IntentStatus::Unconfirmed) => {
                branch!();
                self.payment = PaymentStatus::Unknown;
                vec![]
            }
            (Phase::Authorising | Phase::Capturing, IntentStatus::Declined(reason)) => {
                branch!();
                self.decline = Some(reason);
                self.payment = PaymentStatus::Declined;
                let reason = self.pending_cancel.unwrap_or(CancelReason::PaymentDeclined);
                self.cancel(reason, Phase::Voiding)
            }
            (Phase::Authorising | Phase::Capturing | Phase::Committing, IntentStatus::Cancelled) => {
                branch!();
                self.payment = PaymentStatus::Voided;
                let reason = self.pending_cancel.unwrap_or(CancelReason::PaymentDeclined);
                self.cancel(reason, Phase::Settled)
            }
            (Phase::Capturing, IntentStatus::Captured) => {
                branch!();
                self.payment = PaymentStatus::Captured;
                self.status = Status::Confirmed;
                self.phase = Phase::Confirmed;
                let mut effects = vec![Effect::Confirm];
                if let Some(reason) = self.pending_cancel.take() {
                    branch!();
                    effects.extend(self.cancel(reason, Phase::Refunding));
                    self.balance(fresh);
                }
                effects
            }
            (Phase::Voiding, IntentStatus::Cancelled) => {
                branch!();
                if self.payment != PaymentStatus::Declined {
                    branch!();
                    self.payment = PaymentStatus::Voided;
                }
                let reason = self.pending_cancel.unwrap_or(CancelReason::PaymentTimeout);
                self.cancel(reason, Phase::Settled)
            }
            // Taken all the same: it goes back.
            (Phase::Voiding, IntentStatus::Captured) => {
                branch!();
                self.refund_captured(fresh)
            }
            (Phase::Settled, IntentStatus::Captured) if self.captured().is_zero() => {
                branch!();
                self.refund_captured(fresh)
            }
            (Phase::Voiding, IntentStatus::Authorised) => {
                branch!();
                self.payment = PaymentStatus::Authorized;
                vec![]
            }
            (Phase::Settled, IntentStatus::Authorised) if self.captured().is_zero() => {
                branch!();
                self.payment = PaymentStatus::Authorized;
                self.phase = Phase::Voiding;
                vec![]
            }
            _ => {
                branch!();
                vec![]
            }
        }
    }

    fn refund_captured(&mut self, fresh: RefundId) -> Vec<Effect> {
        self.payment = PaymentStatus::Captured;
        let reason = self.pending_cancel.unwrap_or(CancelReason::PaymentTimeout);
        let effects = self.cancel(reason, Phase::Refunding);
        self.balance(fresh);
        effects
    }
}
