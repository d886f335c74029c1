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
//! The phase says which call comes next ([`State::next_call`]); what comes back
//! is a fact ([`Input`]), and [`State::apply`] is the whole rule. A fact holds
//! whoever learned it and however late, so it is applied to the state as it is
//! when it arrives, under the row's lock; a worker that lost its lease can only
//! ever report the truth.
//!
//! What keeps money right:
//! - An intent is created unconfirmed and its id stored before it is confirmed,
//!   so no authorisation can exist that we don't know by id.
//! - No answer is not a failure: it makes the payment `unknown`, and the next
//!   call asks the provider what happened.
//! - The stock is sold before the money is captured: `confirmed` means both.
//! - A cancelled order keeps its saga until its money is settled.
//! - What goes back is counted before the provider is asked ([`refunds`]).

/// A branch of the rule. Tests note that it was taken, to name those that no walk takes.
macro_rules! branch {
    () => {
        #[cfg(test)]
        $crate::saga::tests::taken(file!(), line!());
    };
}

pub mod refunds;

use money::Money;

use self::refunds::{Refund, RefundReport, RefundStatus};
use crate::ids::{IntentId, RefundId};
use crate::order::{
    CancelReason, Card, DeclineReason, Dispute, NextAction, Parcel, PaymentStatus, Status, Tracking,
};
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
    /// A cancellation that waits: for the answer of a capture, or, after the
    /// deadline, for the provider to acknowledge that it won't charge.
    pub pending_cancel: Option<CancelReason>,
    /// Why the card was declined, when it was.
    pub decline: Option<DeclineReason>,
    /// What was charged, once the provider has told. Nothing is decided by it.
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

/// The call whose answer the saga waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    CreateIntent,
    ConfirmIntent,
    RetrieveIntent,
    CommitStock,
    CaptureIntent,
    CancelIntent,
    /// One of [`State::open_refunds`].
    Refund,
}

/// What the provider says about an intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntentStatus {
    Unconfirmed,
    Processing,
    Declined(DeclineReason),
    Authorised,
    Captured,
    Cancelled,
}

/// A fact.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The intent exists, unconfirmed, under this id.
    Created(IntentId),
    /// The provider refuses to create the intent.
    Refused(DeclineReason),
    /// What the provider says of the intent.
    IntentReported(IntentStatus),
    /// The money was taken, from this card. Where the provider names no card it says that the intent is captured.
    CapturedFrom(Card),
    /// The provider waits for the customer.
    ActionRequired(NextAction),
    /// A call was made and its outcome is not known.
    NoAnswer,
    StockCommitted,
    /// The reservation ended before it became a sale.
    StockGone,
    /// Staff want so much given back under this id; without an amount all that is left.
    Refund(RefundId, Option<Money>),
    /// What the provider says of a refund.
    RefundReported(RefundReport),
    /// Customer or staff want the order cancelled.
    Cancel(CancelReason),
    /// The time for paying is over.
    Deadline,
    /// What the provider says of a dispute about the payment.
    Disputed(Dispute),
    /// Staff handed a parcel to a carrier, or its goods to the customer. With `last` nothing is left to be sent.
    Ship {
        parcel: Parcel,
        last: bool,
    },
    /// A parcel that is on its way has another number. `newest`: no other left after it.
    Correct {
        parcel: Parcel,
        newest: bool,
    },
    /// What left has arrived, and whether more of the order is to leave.
    Deliver {
        more: bool,
    },
}

/// What has to be written together with the new state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// History: whoever follows the order learns what the customer has to do.
    AskCustomer,
    /// History and `order.confirmed`.
    Confirm,
    /// History and `order.cancelled`, which gives the stock back.
    Cancel(CancelReason),
    /// History and `order.shipped`.
    Ship(Parcel),
    /// History, and `order.shipped` once more: the parcel has another number.
    Correct(Parcel),
    /// History and `order.delivered`.
    Deliver,
    /// `order.refunded`: this refund has succeeded.
    Refunded(RefundId),
}

/// Why an order stays as it is although somebody asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Shipped or delivered: too late.
    #[error("the order can't be cancelled any more")]
    NotCancellable,
    /// Not paid, ended, given back, or on its way.
    #[error("the order can't be shipped")]
    NotShippable,
    /// Not on its way.
    #[error("the order is not on its way")]
    NotDeliverable,
    /// The customer's bank has the money, or may take it.
    #[error("the payment is disputed")]
    Disputed,
    /// More than was captured and is not yet on its way back.
    #[error("it is more than is left of what was captured")]
    RefundExceedsCaptured,
}

impl State {
    pub fn placed(total: Money) -> Self {
        Self {
            status: Status::Pending,
            cancel_reason: None,
            payment: PaymentStatus::Pending,
            // Nothing is to be paid of what costs nothing: only the stock is to be sold.
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
            // A release that knows of no free orders may have taken it on: there is no intent to ask about.
            Phase::Committing | Phase::Capturing | Phase::Voiding if self.is_free() => {
                Some(Call::CommitStock)
            }
            Phase::Creating => Some(Call::CreateIntent),
            Phase::Authorising | Phase::Capturing if unknown => Some(Call::RetrieveIntent),
            Phase::Authorising => Some(Call::ConfirmIntent),
            Phase::Committing => Some(Call::CommitStock),
            Phase::Capturing => Some(Call::CaptureIntent),
            Phase::Voiding => Some(Call::CancelIntent),
            // Nothing can go back that the customer's bank has: a report tells when that is decided.
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

    /// Whether the provider will yet be asked how the intent is, without any report: the order is not settled, nor on its way
    /// there.
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

    /// What becomes of an order that costs nothing, now that its stock is sold or is not to be had.
    fn free_order(&mut self, sold: bool) -> Vec<Effect> {
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
    fn cancel_unpaid(&mut self, reason: CancelReason) -> Vec<Effect> {
        if self.is_free() {
            branch!();
            self.payment = PaymentStatus::Voided;
            self.cancel(reason, Phase::Settled)
        } else {
            branch!();
            self.cancel(reason, Phase::Voiding)
        }
    }

    fn action_required(&mut self, action: NextAction) -> Vec<Effect> {
        match self.phase {
            Phase::Authorising => {
                self.payment = PaymentStatus::Pending;
                if self.action.as_ref() == Some(&action) {
                    branch!();
                    return vec![];
                }
                branch!();
                // Told once: a provider that words it anew each time does not fill the order's history.
                let told = self.action.replace(action).is_some();
                if told { vec![] } else { vec![Effect::AskCustomer] }
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

    fn created(&mut self, id: IntentId) -> Vec<Effect> {
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

    fn cancelled_by(&mut self, reason: CancelReason, fresh: RefundId) -> Result<Vec<Effect>, Refusal> {
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

    /// Whoever calls it knows that the parcel is a new one.
    fn ship(&mut self, parcel: Parcel, last: bool) -> Result<Vec<Effect>, Refusal> {
        match self.status {
            Status::Confirmed | Status::PartiallyShipped if self.is_money_disputed() => {
                branch!();
                Err(Refusal::Disputed)
            }
            // What goes back whole is not sent.
            Status::Confirmed | Status::PartiallyShipped if !self.goes_back_whole() => {
                branch!();
                self.status = if last { Status::Shipped } else { Status::PartiallyShipped };
                self.tracking = parcel.tracking.clone().or(self.tracking.take());
                Ok(vec![Effect::Ship(parcel)])
            }
            _ => {
                branch!();
                Err(Refusal::NotShippable)
            }
        }
    }

    fn correct(&mut self, parcel: Parcel, newest: bool) -> Result<Vec<Effect>, Refusal> {
        match self.status {
            Status::PartiallyShipped | Status::Shipped => {
                branch!();
                if newest {
                    branch!();
                    self.tracking = parcel.tracking.clone();
                }
                Ok(vec![Effect::Correct(parcel)])
            }
            _ => {
                branch!();
                Err(Refusal::NotShippable)
            }
        }
    }

    fn delivered(&mut self, more: bool) -> Result<Vec<Effect>, Refusal> {
        match self.status {
            Status::Shipped => {
                branch!();
                self.status = Status::Delivered;
                Ok(vec![Effect::Deliver])
            }
            // The rest is in stock again, or nobody has paid for it any more.
            Status::PartiallyShipped
                if !more || self.goes_back_whole() || self.dispute == Some(Dispute::Lost) =>
            {
                branch!();
                self.status = Status::Delivered;
                Ok(vec![Effect::Deliver])
            }
            Status::Delivered => {
                branch!();
                Ok(vec![])
            }
            _ => {
                branch!();
                Err(Refusal::NotDeliverable)
            }
        }
    }

    fn overdue(&mut self) -> Vec<Effect> {
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

    fn intent_reported(&mut self, status: IntentStatus, fresh: RefundId) -> Vec<Effect> {
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

    /// Ends the order if it has not ended; `phase` is what is left to do.
    fn cancel(&mut self, reason: CancelReason, phase: Phase) -> Vec<Effect> {
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

#[cfg(test)]
mod tests;
