//! What becomes of money that is held or paid.

use super::{
    After, Command, Decision, Fault, Outcome, Then, accept, accept_intent, card_of, disputes, refuse,
    unexpected_state,
};
use crate::book::Book;
use crate::cards::Card;
use crate::currencies;
use crate::error::ApiError;
use crate::intents::{Event, Intent, Metadata, RefundStatus, Status};

pub fn capture(intent: &Intent, amount: Option<u64>) -> Result<Decision, ApiError> {
    if intent.status != Status::RequiresCapture {
        return Ok(unexpected_state(intent, "capture"));
    }
    let amount = amount.unwrap_or(intent.capturable);
    if amount > intent.capturable {
        let message =
            format!("The amount to capture ({amount}) is above the capturable one ({}).", intent.capturable);
        return Ok(refuse(intent, ApiError::param("amount_too_large", "amount_to_capture", message)));
    }
    currencies::check_step("amount_to_capture", amount, &intent.currency)?;
    let fault = match card_of(intent) {
        Some(Card::CaptureRefused) => {
            let expired = Event::Canceled { id: intent.id.clone(), reason: Some("automatic".into()) };
            let message = "This PaymentIntent can't be captured: its authorization has expired.";
            let refusal = ApiError::invalid("payment_intent_unexpected_state", message);
            return Ok(Decision { events: vec![expired], ..refuse(intent, refusal) });
        }
        Some(Card::CaptureLost) => Fault::AnswerLost,
        Some(Card::CaptureFails) => Fault::ServerError,
        _ => Fault::None,
    };
    let captured = vec![Event::Captured { id: intent.id.clone(), amount }];
    let then = disputes::follow(card_of(intent), intent);
    Ok(Decision { fault, then, ..accept_intent(&intent.id, captured) })
}

pub fn cancel(intent: &Intent, reason: Option<String>) -> Decision {
    match intent.status {
        Status::Succeeded | Status::Canceled => unexpected_state(intent, "cancel"),
        _ => {
            let late = card_of(intent) == Some(Card::LateSuccess) && intent.status == Status::Processing;
            let overtake = || Then {
                command: Command::Overtake {
                    id: intent.id.clone(),
                    charge: format!("ch_late_{}", intent.id),
                },
                after: After::AWhile,
            };
            let canceled = accept_intent(&intent.id, vec![Event::Canceled { id: intent.id.clone(), reason }]);
            Decision { then: late.then(overtake), ..canceled }
        }
    }
}

pub fn refund(
    book: &Book,
    intent: &Intent,
    id: &str,
    amount: Option<u64>,
    reason: Option<&String>,
    metadata: &Metadata,
) -> Result<Decision, ApiError> {
    if let Some(amount) = amount {
        currencies::check_step("amount", amount, &intent.currency)?;
    }
    let amount = match refundable(book, intent, amount) {
        Err(refused) => return Ok(refuse(intent, refused)),
        Ok(amount) => amount,
    };
    let first = book.refunds_of(&intent.id).is_empty();
    let (status, fault) = refunding(card_of(intent), first);
    let refunded = Event::Refunded {
        id: id.into(),
        intent: intent.id.clone(),
        amount,
        reason: reason.cloned(),
        metadata: metadata.clone(),
        status,
    };
    let then = matches!(card_of(intent), Some(Card::RefundFails | Card::RefundPending))
        .then(|| Then { command: Command::EndRefund { id: id.into() }, after: After::AWhile });
    Ok(Decision { fault, then, ..accept(Outcome::Refund(id.into()), vec![refunded]) })
}

/// What a refund begins as.
fn refunding(card: Option<Card>, first: bool) -> (RefundStatus, Fault) {
    match card {
        Some(Card::RefundPending) => (RefundStatus::Pending, Fault::None),
        Some(Card::RefundFailsOnce) if first => (RefundStatus::Failed, Fault::None),
        Some(Card::RefundLost) => (RefundStatus::Succeeded, Fault::AnswerLost),
        Some(Card::RefundErrs) => (RefundStatus::Succeeded, Fault::ServerError),
        _ => (RefundStatus::Succeeded, Fault::None),
    }
}

/// The amount to refund: never above what was captured and not yet refunded.
fn refundable(book: &Book, intent: &Intent, amount: Option<u64>) -> Result<u64, ApiError> {
    let left = intent.received - intent.refunded;
    if intent.received == 0 {
        let message = "This PaymentIntent does not have a successful charge to refund.";
        return Err(ApiError::invalid("payment_intent_unexpected_state", message));
    }
    if book.dispute_of(intent).is_some_and(|dispute| dispute.status.withholds()) {
        let message = "The charge has been charged back; cannot issue a refund.";
        return Err(ApiError::invalid("charge_disputed", message));
    }
    if left == 0 {
        return Err(ApiError::invalid("charge_already_refunded", "The charge has already been refunded."));
    }
    match amount.unwrap_or(left) {
        amount if amount > left => {
            let message = format!("The refund's amount ({amount}) is above the unrefunded one ({left}).");
            Err(ApiError::param("amount_too_large", "amount", message))
        }
        amount => Ok(amount),
    }
}

/// A refund that waits succeeds, one that had succeeded fails.
pub fn end_refund(book: &Book, id: &str) -> Result<Decision, ApiError> {
    let refund = book.refund(id).ok_or_else(|| ApiError::not_found("refund", "id", id))?;
    let status = match refund.status {
        RefundStatus::Pending => Some(RefundStatus::Succeeded),
        RefundStatus::Succeeded => Some(RefundStatus::Failed),
        RefundStatus::Failed => None,
    };
    let events = status.map(|status| Event::RefundEnded { id: id.into(), status }).into_iter().collect();
    Ok(accept(Outcome::Refund(id.into()), events))
}
