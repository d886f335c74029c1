//! What the answers of the clients mean for the saga. Only this file turns them into its inputs.

use order_core::order::Dispute;
use uuid::Uuid;

use super::refunds::{Refund, RefundReport, RefundStatus};
use super::{Input, IntentStatus, State};
use crate::clients::payment::{Alarm, Creation, Intent, MadeRefund, NoAnswer, RefundAnswer};
use crate::clients::product::Unavailable;

pub fn creation(answer: Result<Creation, NoAnswer>) -> Input {
    match answer {
        Ok(Creation::Created(id)) => Input::Created(id),
        Ok(Creation::Refused(reason)) => Input::Refused(reason),
        Err(NoAnswer) => Input::NoAnswer,
    }
}

pub fn intent(answer: Result<Intent, NoAnswer>) -> Input {
    Input::IntentReported(match answer {
        Ok(Intent::ActionRequired(action)) => return Input::ActionRequired(action),
        Ok(Intent::Captured(Some(card))) => return Input::CapturedFrom(card),
        Err(NoAnswer) => return Input::NoAnswer,
        Ok(Intent::Unconfirmed) => IntentStatus::Unconfirmed,
        Ok(Intent::Processing) => IntentStatus::Processing,
        Ok(Intent::Declined(reason)) => IntentStatus::Declined(reason),
        Ok(Intent::Authorised) => IntentStatus::Authorised,
        Ok(Intent::Captured(None)) => IntentStatus::Captured,
        Ok(Intent::Cancelled) => IntentStatus::Cancelled,
    })
}

/// Of a refund that was asked for.
pub fn refund(asked: &Refund, answer: Result<RefundAnswer, NoAnswer>) -> Input {
    match answer {
        Ok(RefundAnswer::Made(made)) => Input::RefundReported(report(made)),
        Ok(RefundAnswer::Refused) => Input::RefundReported(RefundReport {
            ours: Some(asked.id),
            provider_id: None,
            amount: asked.amount,
            status: RefundStatus::Failed,
            fresh: asked.id,
        }),
        Err(NoAnswer) => Input::NoAnswer,
    }
}

/// The facts about all refunds of an order. A refund with another amount than ours is left out: a person has
/// to look into it.
pub fn refunds(made: Vec<MadeRefund>, state: &State) -> Vec<Input> {
    let agrees = |made: &MadeRefund| {
        let ours = state.refunds.iter().find(|refund| Some(refund.id) == made.ours);
        let agrees = ours.is_none_or(|refund| refund.amount == made.amount);
        if !agrees {
            tracing::error!(refund = ?Some(&made.id), amount = %made.amount, "payment.mismatch");
            Alarm::Mismatch.count();
        }
        agrees
    };
    made.into_iter().filter(agrees).map(|made| Input::RefundReported(report(made))).collect()
}

fn report(made: MadeRefund) -> RefundReport {
    let MadeRefund { id, ours, amount, status } = made;
    RefundReport { ours, provider_id: Some(id), amount, status, fresh: Uuid::now_v7().into() }
}

/// `None`: there is no dispute.
pub fn dispute(answer: Result<Option<Dispute>, NoAnswer>) -> Option<Input> {
    match answer {
        Ok(dispute) => dispute.map(Input::Disputed),
        Err(NoAnswer) => Some(Input::NoAnswer),
    }
}

/// Whether the reserved stock was sold.
pub fn commit(answer: Result<bool, Unavailable>) -> Input {
    match answer {
        Ok(true) => Input::StockCommitted,
        Ok(false) => Input::StockGone,
        Err(error) => {
            tracing::warn!(%error, "saga.commit_unanswered");
            Input::NoAnswer
        }
    }
}

#[cfg(test)]
mod tests {
    use order_core::ids::RefundId;
    use order_core::order::{Card, DeclineReason};
    use service::Money;
    use service::money::Currency;

    use super::super::refunds::RefundBy;
    use super::*;

    #[test]
    fn no_answer_is_never_taken_for_a_failure() {
        assert_eq!(creation(Err(NoAnswer)), Input::NoAnswer);
        assert_eq!(intent(Err(NoAnswer)), Input::NoAnswer);
        assert_eq!(dispute(Err(NoAnswer)), Some(Input::NoAnswer));
        assert_eq!(refund(&open(2), Err(NoAnswer)), Input::NoAnswer);
    }

    #[test]
    fn an_intent_is_what_the_provider_says() {
        let declined = Intent::Declined(DeclineReason::ExpiredCard);
        let expected = Input::IntentReported(IntentStatus::Declined(DeclineReason::ExpiredCard));
        assert_eq!(intent(Ok(declined)), expected);
        assert_eq!(intent(Ok(Intent::Captured(None))), Input::IntentReported(IntentStatus::Captured));
        let card = Card::new("visa", "4242").unwrap();
        assert_eq!(intent(Ok(Intent::Captured(Some(card.clone())))), Input::CapturedFrom(card));
    }

    fn open(amount: i64) -> Refund {
        let (id, amount) = (RefundId::from(Uuid::from_u128(1)), Money::new(amount, Currency::EUR));
        Refund { id, amount, status: RefundStatus::Pending, by: RefundBy::Staff, provider_id: None }
    }

    #[test]
    fn a_refund_of_another_amount_than_it_was_asked_for_is_left_to_people() {
        let state = State { refunds: vec![open(2)], ..State::placed(Money::new(2, Currency::EUR)) };
        let made = |ours: Option<RefundId>, amount: i64| MadeRefund {
            id: "re_1".to_owned().into(),
            ours,
            amount: Money::new(amount, Currency::EUR),
            status: RefundStatus::Succeeded,
        };
        let ours = Some(open(2).id);
        let counts =
            [made(ours, 1), made(ours, 2), made(None, 1)].map(|made| refunds(vec![made], &state).len());
        assert_eq!(counts, [0, 1, 1]);
    }
}
