//! What goes into the rule and what comes out of it.

use money::Money;

use super::refunds::RefundReport;
use crate::ids::{IntentId, RefundId};
use crate::order::{CancelReason, Card, DeclineReason, Dispute, NextAction, Parcel};

/// The call whose answer the saga waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    CreateIntent,
    ConfirmIntent,
    RetrieveIntent,
    CommitStock,
    CaptureIntent,
    CancelIntent,
    /// One of [`super::State::open_refunds`].
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

/// Why an order stays as it is although somebody asked for a change.
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
