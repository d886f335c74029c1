//! Disputes, as test ones go: <https://docs.stripe.com/disputes/withdrawing>, <https://docs.stripe.com/testing#disputes>.

use super::{After, Command, Decision, Outcome, Then, accept, accept_intent, card_of, unexpected_state};
use crate::book::Book;
use crate::cards::Card;
use crate::error::ApiError;
use crate::intents::{Dispute, DisputeStatus, Event, Intent};

/// What comes a while after such a card has paid.
pub fn follow(card: Option<Card>, intent: &Intent) -> Option<Then> {
    let disputes = matches!(card, Some(Card::Disputes { .. }));
    // An intent is paid once: it has one dispute.
    let id = format!("du_{}", intent.id.trim_start_matches("pi_"));
    let command = Command::Dispute { id, intent: intent.id.clone() };
    disputes.then_some(Then { command, after: After::AWhile })
}

pub fn open(id: &str, intent: &Intent) -> Decision {
    let (Some(Card::Disputes { reason, inquiry }), None) = (card_of(intent), intent.dispute) else {
        return unexpected_state(intent, "dispute");
    };
    let status = if inquiry { DisputeStatus::WarningNeedsResponse } else { DisputeStatus::NeedsResponse };
    let disputed =
        Event::Disputed { id: id.into(), intent: intent.id.clone(), reason: reason.into(), status };
    accept_intent(&intent.id, vec![disputed])
}

/// Test evidence decides by its text; any other has to be decided by the bank.
pub fn submit(book: &Book, id: &str, text: Option<&str>) -> Result<Decision, ApiError> {
    let dispute = open_one(book, id)?;
    let inquiry = dispute.status.is_inquiry();
    let status = match text {
        Some("winning_evidence") if inquiry => DisputeStatus::WarningClosed,
        Some("winning_evidence") => DisputeStatus::Won,
        Some("losing_evidence") => DisputeStatus::Lost,
        _ if inquiry => DisputeStatus::WarningUnderReview,
        _ => DisputeStatus::UnderReview,
    };
    Ok(change(id, status))
}

pub fn close(book: &Book, id: &str) -> Result<Decision, ApiError> {
    open_one(book, id)?;
    Ok(change(id, DisputeStatus::Lost))
}

fn open_one<'a>(book: &'a Book, id: &str) -> Result<&'a Dispute, ApiError> {
    let dispute = book.dispute(id).ok_or_else(|| ApiError::not_found("dispute", "dispute", id))?;
    if dispute.status.is_over() {
        return Err(ApiError::bad("dispute", "This dispute is already closed"));
    }
    Ok(dispute)
}

fn change(id: &str, status: DisputeStatus) -> Decision {
    accept(Outcome::Dispute(id.into()), vec![Event::DisputeChanged { id: id.into(), status }])
}
