//! The order's way to its end, as one pure function.
//!
//! ```text
//! creating -> authorising -> committing -> capturing -> confirmed
//!     |            |             |             |            |
//!     |            +---------> voiding <-------+        refunding
//!     |                           |                         |
//!     +----------------------> settled <--------------------+
//! ```
//!
//! The phase says which call comes next ([`State::next_call`]). What comes back is a fact ([`Input`]), and
//! [`State::apply`] is the whole rule. A fact is true whoever learned it and however late. So it is applied
//! to the state at the time when it arrives, under the row's lock. A worker that lost its lease can only
//! report the truth.
//!
//! What keeps money right:
//! - An intent is created unconfirmed and its id stored before it is confirmed,
//!   so no authorisation can exist that we don't know by id.
//! - No answer is not a failure: it makes the payment `unknown`, and the next
//!   call asks the provider what happened.
//! - The stock is sold before the money is captured: `confirmed` means both.
//! - A cancelled order keeps its saga until its money is settled.
//! - What goes back is counted before the provider is asked ([`refunds`]).

/// A branch of the rule. Tests record which branches were taken, to name those that no walk takes.
macro_rules! branch {
    () => {
        #[cfg(test)]
        $crate::saga::tests::taken(file!(), line!());
    };
}

mod cancel;
mod messages;
mod parcels;
mod payment;
pub mod refunds;

use money::Money;

pub use self::messages::{Call, Effect, Input, IntentStatus, Refusal};
use self::refunds::{Refund, RefundStatus};
use crate::ids::{IntentId, RefundId};
use crate::order::{CancelReason, Card, DeclineReason, Dispute, NextAction, PaymentStatus, Status, Tracking};
use crate::words::words;

words! {
    /// What the saga is at.
    Phase {
        /// The intent is to be created; nothing can have been charged.
        Creating = "creating",
        /// The intent's id is stored; it is to be confirmed.
        Authorising = "authorising",
        /// The money is held; the reservation is to become a sale.
        Committing = "committing",
        /// The stock is sold; the money is to be taken.
        Capturing = "capturing",
        /// Paid and sold.
        Confirmed = "confirmed",
        /// The intent is to be cancelled, which frees held money.
        Voiding = "voiding",
        /// Captured money is to be given back.
        Refunding = "refunding",
        /// Cancelled, and no money of the customer is held.
        Settled = "settled",
    }
}

/// An order as far as the saga is concerned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub status: Status,
    pub cancel_reason: Option<CancelReason>,
    pub payment: PaymentStatus,
    pub phase: Phase,
    pub intent: Option<IntentId>,
    /// A cancellation that waits: for the answer of a capture, or, after the deadline, until the provider has
    /// acknowledged that it will not charge.
    pub pending_cancel: Option<CancelReason>,
    /// Why the card was declined, when it was.
    pub decline: Option<DeclineReason>,
    /// What was charged, once the provider has said. Nothing is decided by it.
    pub card: Option<Card>,
    /// The customer has complained to their bank.
    pub dispute: Option<Dispute>,
    /// What the provider waits for the customer to do.
    pub action: Option<NextAction>,
    /// Of the parcel that left last by a carrier.
    pub tracking: Option<Tracking>,
    /// What a capture takes.
    pub total: Money,
    /// All that went back or is to, oldest first.
    pub refunds: Vec<Refund>,
}

impl State {
    pub fn placed(total: Money) -> Self {
        Self {
            status: Status::Pending,
            cancel_reason: None,
            payment: PaymentStatus::Pending,
            // An order that costs nothing needs no payment: only its stock has to be sold.
            phase: if total.is_zero() { Phase::Committing } else { Phase::Creating },
            intent: None,
            pending_cancel: None,
            decline: None,
            card: None,
            dispute: None,
            action: None,
            tracking: None,
            total,
            refunds: vec![],
        }
    }

    /// The next call to make; `None` when the saga rests.
    pub fn next_call(&self) -> Option<Call> {
        // A cancellation that came before the capture: was the money taken yet?
        let unknown =
            self.payment == PaymentStatus::Unknown || self.pending_cancel.is_some() || self.action.is_some();
        match self.phase {
            // A release from before free orders may have worked on it: there is no intent to ask about.
            Phase::Committing | Phase::Capturing | Phase::Voiding if self.is_free() => {
                Some(Call::CommitStock)
            }
            Phase::Creating => Some(Call::CreateIntent),
            Phase::Authorising | Phase::Capturing if unknown => Some(Call::RetrieveIntent),
            Phase::Authorising => Some(Call::ConfirmIntent),
            Phase::Committing => Some(Call::CommitStock),
            Phase::Capturing => Some(Call::CaptureIntent),
            Phase::Voiding => Some(Call::CancelIntent),
            // The customer's bank has the money, so nothing can be refunded. A report says when that is
            // decided.
            Phase::Refunding | Phase::Confirmed | Phase::Settled if self.dispute == Some(Dispute::Open) => {
                None
            }
            Phase::Refunding | Phase::Confirmed | Phase::Settled => {
                self.open_refunds().next().map(|_| Call::Refund)
            }
        }
    }

    /// Whether the payment deadline still matters.
    pub fn has_deadline(&self) -> bool {
        matches!(self.phase, Phase::Creating | Phase::Authorising | Phase::Committing)
    }

    /// Whether the provider will be asked about the intent anyway, without any report: the order is not
    /// settled, nor about to be.
    pub fn asks_again(&self) -> bool {
        matches!(self.phase, Phase::Authorising | Phase::Committing | Phase::Capturing)
    }

    /// Refunds that the provider has not answered for good.
    pub fn open_refunds(&self) -> impl Iterator<Item = &Refund> {
        self.refunds.iter().filter(|refund| refund.status == RefundStatus::Pending)
    }

    /// The state after `input`, and what is to be written with it. An input
    /// that says nothing new leaves the state as it is. `fresh` is the id of a
    /// refund that the rule itself may open.
    pub fn apply(mut self, input: Input, fresh: RefundId) -> Result<(Self, Vec<Effect>), Refusal> {
        let effects = match input {
            Input::Cancel(reason) => self.cancelled_by(reason, fresh)?,
            Input::Deadline => self.overdue(),
            Input::Ship { parcel, last } => self.ship(parcel, last)?,
            Input::Correct { parcel, newest } => self.correct(parcel, newest)?,
            Input::Deliver { more } => self.delivered(more)?,
            Input::Created(id) => self.created(id),
            Input::Refused(reason) if self.phase == Phase::Creating => {
                branch!();
                self.decline = Some(reason);
                self.payment = PaymentStatus::Declined;
                self.cancel(CancelReason::PaymentDeclined, Phase::Settled)
            }
            Input::NoAnswer => {
                if matches!(self.phase, Phase::Authorising | Phase::Capturing) && self.action.is_none() {
                    branch!();
                    self.payment = PaymentStatus::Unknown;
                }
                vec![]
            }
            Input::StockCommitted if self.is_free() => self.free_order(true),
            Input::StockGone if self.is_free() => self.free_order(false),
            Input::StockCommitted if self.phase == Phase::Committing => {
                branch!();
                self.phase = Phase::Capturing;
                vec![]
            }
            Input::StockGone if self.phase == Phase::Committing => {
                branch!();
                self.cancel_unpaid(CancelReason::OutOfStock)
            }
            Input::IntentReported(status) => self.intent_reported(status, fresh),
            Input::CapturedFrom(card) => {
                branch!();
                self.card = Some(card);
                self.intent_reported(IntentStatus::Captured, fresh)
            }
            Input::ActionRequired(action) => self.action_required(action),
            Input::Disputed(dispute) => self.disputed(dispute, fresh),
            Input::Refund(id, amount) => self.refund(id, amount)?,
            Input::RefundReported(report) => self.refund_reported(report, fresh),
            Input::Refused(_) | Input::StockCommitted | Input::StockGone => {
                branch!();
                vec![]
            }
        };
        Ok((self, effects))
    }

    /// Whether there is nothing to pay.
    pub fn is_free(&self) -> bool {
        self.total.is_zero()
    }
}

#[cfg(test)]
mod tests;
