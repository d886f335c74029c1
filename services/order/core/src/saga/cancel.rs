//! Orders that end without being sent: cancelled, overdue, or free and out of stock.

use super::{Effect, Phase, Refusal, State};
use crate::ids::RefundId;
use crate::order::{CancelReason, PaymentStatus, Status};

impl State {
    pub(super) fn cancelled_by(
        &mut self,
        reason: CancelReason,
        fresh: RefundId,
    ) -> Result<Vec<Effect>, Refusal> {
        match self.status {
            // What has not left is refunded.
            Status::PartiallyShipped | Status::Shipped | Status::Delivered => {
                branch!();
                return Err(Refusal::NotCancellable);
            }
            Status::Cancelled => {
                branch!();
                return Ok(vec![]);
            }
            Status::Pending | Status::Confirmed => {}
        }
        Ok(match self.phase {
            // Nothing was confirmed, so nothing can be charged any more.
            Phase::Creating => {
                branch!();
                self.payment = PaymentStatus::Voided;
                self.cancel(reason, Phase::Settled)
            }
            Phase::Authorising | Phase::Committing | Phase::Voiding => {
                branch!();
                self.cancel_unpaid(reason)
            }
            // Nothing was paid.
            Phase::Confirmed if self.is_free() => {
                branch!();
                self.cancel_unpaid(reason)
            }
            Phase::Capturing => {
                branch!();
                self.pending_cancel.get_or_insert(reason);
                vec![]
            }
            // The last two are of cancelled orders only.
            Phase::Confirmed | Phase::Refunding | Phase::Settled => {
                branch!();
                let effects = self.cancel(reason, Phase::Refunding);
                self.balance(fresh);
                effects
            }
        })
    }

    pub(super) fn overdue(&mut self) -> Vec<Effect> {
        match self.phase {
            Phase::Creating => {
                branch!();
                self.payment = PaymentStatus::Voided;
                self.cancel(CancelReason::PaymentTimeout, Phase::Settled)
            }
            Phase::Committing if self.is_free() => {
                branch!();
                self.cancel_unpaid(CancelReason::PaymentTimeout)
            }
            // The order ends once the provider has acknowledged; see `intent_reported`.
            Phase::Authorising | Phase::Committing => {
                branch!();
                self.pending_cancel = Some(CancelReason::PaymentTimeout);
                self.action = None;
                self.phase = Phase::Voiding;
                vec![]
            }
            _ => {
                branch!();
                vec![]
            }
        }
    }

    /// What becomes of an order that costs nothing, now that its stock is sold or is not to be had.
    pub(super) fn free_order(&mut self, sold: bool) -> Vec<Effect> {
        match (self.phase, self.pending_cancel) {
            (Phase::Committing | Phase::Capturing, None) if sold => {
                branch!();
                self.payment = PaymentStatus::Captured;
                self.status = Status::Confirmed;
                self.phase = Phase::Confirmed;
                vec![Effect::Confirm]
            }
            (Phase::Committing | Phase::Capturing, None) => {
                branch!();
                self.cancel_unpaid(CancelReason::OutOfStock)
            }
            (Phase::Capturing | Phase::Voiding, reason) => {
                branch!();
                self.cancel_unpaid(reason.unwrap_or(CancelReason::PaymentTimeout))
            }
            _ => {
                branch!();
                vec![]
            }
        }
    }

    /// Cancels before anything was captured: held money is freed, if there can be any.
    pub(super) fn cancel_unpaid(&mut self, reason: CancelReason) -> Vec<Effect> {
        if self.is_free() {
            branch!();
            self.payment = PaymentStatus::Voided;
            self.cancel(reason, Phase::Settled)
        } else {
            branch!();
            self.cancel(reason, Phase::Voiding)
        }
    }

    /// Ends the order if it has not ended; `phase` is what is left to do.
    pub(super) fn cancel(&mut self, reason: CancelReason, phase: Phase) -> Vec<Effect> {
        self.phase = phase;
        self.pending_cancel = None;
        self.action = None;
        if self.status == Status::Cancelled {
            branch!();
            return vec![];
        }
        branch!();
        self.status = Status::Cancelled;
        self.cancel_reason = Some(reason);
        vec![Effect::Cancel(reason)]
    }
}
