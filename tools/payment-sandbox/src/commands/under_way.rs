//! What an earlier run has begun and not ended. Confirmations that hang stay as they are.

use super::{After, Command, Then, card_of, disputes};
use crate::book::Book;
use crate::cards::Card;
use crate::intents::{Intent, RefundStatus, Status};

/// All of it. `charge` makes ids of new charges.
pub fn under_way(book: &Book, charge: impl Fn() -> String) -> Vec<Then> {
    let payments = book.intents().iter().filter_map(|intent| payment(intent, &charge));
    let refunds = book.refunds().iter().filter_map(|refund| {
        let ends = match book.intent(&refund.intent).and_then(card_of) {
            Some(Card::RefundPending) => refund.status == RefundStatus::Pending,
            Some(Card::RefundFails) => refund.status == RefundStatus::Succeeded,
            _ => false,
        };
        ends.then(|| a_while_later(Command::EndRefund { id: refund.id.clone() }))
    });
    payments.chain(refunds).collect()
}

fn payment(intent: &Intent, charge: impl Fn() -> String) -> Option<Then> {
    let id = || intent.id.clone();
    match (card_of(intent), intent.status) {
        (Some(Card::Slow), Status::Processing) => {
            Some(a_while_later(Command::Settle { id: id(), charge: charge() }))
        }
        (Some(Card::LateSuccess), Status::Canceled) => {
            Some(a_while_later(Command::Overtake { id: id(), charge: charge() }))
        }
        (_, Status::RequiresAction) => {
            let action = intent.action.as_ref()?.id.clone();
            let command = Command::Authenticate { id: id(), action, charge: charge(), proved: false };
            Some(Then { command, after: After::TimeToAct })
        }
        (card, Status::Succeeded) if intent.dispute.is_none() => disputes::follow(card, intent),
        _ => None,
    }
}

fn a_while_later(command: Command) -> Then {
    Then { command, after: After::AWhile }
}
