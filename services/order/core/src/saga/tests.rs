//! The rule by example, and by walking every state that can be reached ([`walk`]).

mod walk;

use money::Currency;
use uuid::Uuid;

use super::refunds::{RefundBy, RefundReport};
use super::*;
use crate::order::{Parcel, Tracking};
pub(super) use walk::taken;

/// What an order of these tests comes to: enough to be returned in two parts.
const TOTAL: Money = eur(2);

const fn eur(amount: i64) -> Money {
    Money::new(amount, Currency::EUR)
}

fn id(n: usize) -> RefundId {
    Uuid::from_u128(n as u128).into()
}

/// The rule, with a new id for each refund.
fn apply(state: &State, input: Input) -> Result<(State, Vec<Effect>), Refusal> {
    let fresh = id(state.refunds.len() + 1);
    state.clone().apply(input, fresh)
}

fn after(inputs: &[Input]) -> (State, Vec<Effect>) {
    let mut all = Vec::new();
    let mut state = State::placed(TOTAL);
    for input in inputs {
        let (next, effects) = apply(&state, input.clone()).unwrap();
        state = next;
        all.extend(effects);
    }
    (state, all)
}

fn action() -> NextAction {
    NextAction { redirect_url: Some("https://bank.test/3ds".to_owned()), client_secret: None }
}

fn card() -> Card {
    Card::new("visa", "4242").unwrap()
}

fn created() -> Input {
    Input::Created("pi_1".to_owned().into())
}

#[test]
fn a_paid_order_is_confirmed_once_stock_and_money_are_taken() {
    let (state, effects) = after(&[
        created(),
        Input::IntentReported(IntentStatus::Authorised),
        Input::StockCommitted,
        Input::IntentReported(IntentStatus::Captured),
    ]);
    assert_eq!((state.status, state.phase), (Status::Confirmed, Phase::Confirmed));
    assert_eq!(state.payment, PaymentStatus::Captured);
    assert_eq!(effects, [Effect::Confirm]);
}

#[test]
fn the_card_that_was_charged_is_remembered() {
    let capturing = [created(), Input::IntentReported(IntentStatus::Authorised), Input::StockCommitted];
    let (state, _) = after(&capturing);
    let (named, effects) = apply(&state, Input::CapturedFrom(card())).unwrap();
    assert_eq!(effects, [Effect::Confirm]);
    let (unnamed, _) = apply(&state, Input::IntentReported(IntentStatus::Captured)).unwrap();
    // Reported late, it changes nothing else.
    assert_eq!(apply(&unnamed, Input::CapturedFrom(card())), Ok((named.clone(), vec![])));
    assert_eq!(named, State { card: Some(card()), ..unnamed });
    // A report without it does not take it away.
    let again = Input::IntentReported(IntentStatus::Captured);
    assert_eq!(apply(&named, again), Ok((named.clone(), vec![])));
}

#[test]
fn a_declined_card_cancels_the_order() {
    let (state, effects) =
        after(&[created(), Input::IntentReported(IntentStatus::Declined(DeclineReason::ExpiredCard))]);
    assert_eq!(state.cancel_reason, Some(CancelReason::PaymentDeclined));
    assert_eq!((state.payment, state.phase), (PaymentStatus::Declined, Phase::Voiding));
    assert_eq!(state.decline, Some(DeclineReason::ExpiredCard));
    assert_eq!(effects, [Effect::Cancel(CancelReason::PaymentDeclined)]);
}

#[test]
fn no_answer_is_not_a_failure() {
    let (state, effects) = after(&[created(), Input::NoAnswer]);
    assert_eq!((state.status, state.payment), (Status::Pending, PaymentStatus::Unknown));
    assert_eq!(state.next_call(), Some(Call::RetrieveIntent));
    assert_eq!(effects, []);
}

#[test]
fn a_deadline_waits_for_the_providers_word() {
    let (state, effects) = after(&[created(), Input::NoAnswer, Input::Deadline]);
    assert_eq!((state.status, state.phase), (Status::Pending, Phase::Voiding));
    assert_eq!(effects, []);
    let (state, effects) = apply(&state, Input::IntentReported(IntentStatus::Cancelled)).unwrap();
    assert_eq!(state.cancel_reason, Some(CancelReason::PaymentTimeout));
    assert_eq!((state.payment, state.phase), (PaymentStatus::Voided, Phase::Settled));
    assert_eq!(effects, [Effect::Cancel(CancelReason::PaymentTimeout)]);
}

#[test]
fn a_cancel_during_capture_waits_for_its_answer() {
    let capturing = [created(), Input::IntentReported(IntentStatus::Authorised), Input::StockCommitted];
    let (state, _) = after(&capturing);
    let (state, effects) = apply(&state, Input::Cancel(CancelReason::Customer)).unwrap();
    assert_eq!((state.status, effects), (Status::Pending, vec![]));
    let (state, effects) = apply(&state, Input::IntentReported(IntentStatus::Captured)).unwrap();
    assert_eq!((state.status, state.phase), (Status::Cancelled, Phase::Refunding));
    assert_eq!(effects, [Effect::Confirm, Effect::Cancel(CancelReason::Customer)]);
    assert_eq!(state.open_refunds().map(|refund| refund.amount).collect::<Vec<_>>(), [TOTAL]);
}

#[test]
fn a_customer_who_proves_who_they_are_pays_and_one_who_does_not_has_not_paid() {
    let asked = [created(), Input::ActionRequired(action())];
    let (state, effects) = after(&asked);
    assert_eq!((state.payment, state.next_call()), (PaymentStatus::Pending, Some(Call::RetrieveIntent)));
    assert_eq!((&state.action, effects), (&Some(action()), vec![Effect::AskCustomer]));
    // Nothing new, and nothing to worry about.
    assert_eq!(apply(&state, Input::ActionRequired(action())), Ok((state.clone(), vec![])));
    assert_eq!(apply(&state, Input::NoAnswer), Ok((state.clone(), vec![])));
    let (paid, _) = apply(&state, Input::IntentReported(IntentStatus::Authorised)).unwrap();
    assert_eq!((paid.phase, paid.action), (Phase::Committing, None));
    let (failed, effects) =
        apply(&state, Input::IntentReported(IntentStatus::Declined(DeclineReason::ExpiredCard))).unwrap();
    assert_eq!((failed.phase, failed.action), (Phase::Voiding, None));
    assert_eq!(effects, [Effect::Cancel(CancelReason::PaymentDeclined)]);
    let (left, _) = apply(&state, Input::Deadline).unwrap();
    assert_eq!((left.phase, left.action), (Phase::Voiding, None));
}

#[test]
fn an_order_of_nothing_is_confirmed_without_a_provider() {
    let placed = State::placed(eur(0));
    assert_eq!(placed.next_call(), Some(Call::CommitStock));
    let (confirmed, effects) = apply(&placed, Input::StockCommitted).unwrap();
    assert_eq!((confirmed.status, confirmed.next_call()), (Status::Confirmed, None));
    assert_eq!(effects, [Effect::Confirm]);
    let (cancelled, effects) = apply(&confirmed, Input::Cancel(CancelReason::Customer)).unwrap();
    assert_eq!((cancelled.phase, cancelled.next_call()), (Phase::Settled, None));
    assert_eq!(effects, [Effect::Cancel(CancelReason::Customer)]);
    let (gone, effects) = apply(&placed, Input::StockGone).unwrap();
    assert_eq!((gone.phase, gone.intent), (Phase::Settled, None));
    assert_eq!(effects, [Effect::Cancel(CancelReason::OutOfStock)]);
}

#[test]
fn what_is_shipped_is_not_cancelled() {
    let shipped = State { status: Status::Shipped, phase: Phase::Confirmed, ..State::placed(TOTAL) };
    assert_eq!(apply(&shipped, Input::Cancel(CancelReason::Customer)), Err(Refusal::NotCancellable));
}

fn tracking(number: &str) -> Tracking {
    Tracking { carrier: "Tern".to_owned(), tracking_number: number.to_owned() }
}

fn parcel(number: &str) -> Parcel {
    Parcel { id: Uuid::from_u128(1).into(), tracking: Some(tracking(number)), lines: vec![] }
}

fn ship(number: &str, last: bool) -> Input {
    Input::Ship { parcel: parcel(number), last }
}

#[test]
fn a_paid_order_is_shipped_once_and_delivered_once() {
    let placed = State::placed(TOTAL);
    assert_eq!(apply(&placed, ship("1", true)), Err(Refusal::NotShippable));
    assert_eq!(apply(&placed, Input::Deliver { more: true }), Err(Refusal::NotDeliverable));

    let paid = State { status: Status::Confirmed, phase: Phase::Confirmed, ..State::placed(TOTAL) };
    assert_eq!(apply(&paid, Input::Deliver { more: true }), Err(Refusal::NotDeliverable));
    let (shipped, effects) = apply(&paid, ship("1", true)).unwrap();
    assert_eq!((shipped.status, effects), (Status::Shipped, vec![Effect::Ship(parcel("1"))]));
    assert_eq!(apply(&shipped, ship("2", true)), Err(Refusal::NotShippable));
    let (delivered, effects) = apply(&shipped, Input::Deliver { more: true }).unwrap();
    assert_eq!((delivered.status, effects), (Status::Delivered, vec![Effect::Deliver]));
    assert_eq!(apply(&delivered, Input::Deliver { more: true }), Ok((delivered.clone(), vec![])));
    let late = Input::Correct { parcel: parcel("2"), newest: true };
    assert_eq!(apply(&delivered, late), Err(Refusal::NotShippable));
}

#[test]
fn an_order_leaves_in_parts_until_the_last_has_left_or_none_is_to_follow() {
    let (part, _) = apply(&paid(), ship("1", false)).unwrap();
    assert_eq!((part.status, &part.tracking), (Status::PartiallyShipped, &Some(tracking("1"))));
    assert_eq!(apply(&part, Input::Deliver { more: true }), Err(Refusal::NotDeliverable));
    assert_eq!(apply(&part, Input::Cancel(CancelReason::Customer)), Err(Refusal::NotCancellable));
    let fetched = Parcel { tracking: None, ..parcel("") };
    let (all, effects) = apply(&part, Input::Ship { parcel: fetched.clone(), last: true }).unwrap();
    assert_eq!((all.status, &all.tracking), (Status::Shipped, &Some(tracking("1"))));
    assert_eq!(effects, [Effect::Ship(fetched)]);
    let (corrected, effects) = apply(&all, Input::Correct { parcel: parcel("7"), newest: true }).unwrap();
    assert_eq!((corrected.status, corrected.tracking), (Status::Shipped, Some(tracking("7"))));
    assert_eq!(effects, [Effect::Correct(parcel("7"))]);
    let (arrived, effects) = apply(&part, Input::Deliver { more: false }).unwrap();
    assert_eq!((arrived.status, effects), (Status::Delivered, vec![Effect::Deliver]));
    // What is about to go back whole stays here.
    let (back, _) = apply(&part, Input::Refund(id(10), None)).unwrap();
    assert_eq!(apply(&back, ship("2", true)), Err(Refusal::NotShippable));
    assert_eq!(apply(&back, Input::Deliver { more: true }).unwrap().0.status, Status::Delivered);
    let (lost, _) = apply(&part, Input::Disputed(Dispute::Lost)).unwrap();
    assert_eq!(apply(&lost, ship("2", true)), Err(Refusal::Disputed));
    assert_eq!(apply(&lost, Input::Deliver { more: true }).unwrap().0.status, Status::Delivered);
}

fn paid() -> State {
    after(&[
        created(),
        Input::IntentReported(IntentStatus::Authorised),
        Input::StockCommitted,
        Input::IntentReported(IntentStatus::Captured),
    ])
    .0
}

fn reported(ours: usize, amount: Money, status: RefundStatus) -> Input {
    let provider_id = Some(format!("re_{ours}").into());
    Input::RefundReported(RefundReport { ours: Some(id(ours)), provider_id, amount, status, fresh: id(900) })
}

#[test]
fn refunds_never_come_to_more_than_was_captured() {
    let unpaid = State::placed(TOTAL);
    assert_eq!(apply(&unpaid, Input::Refund(id(10), None)), Err(Refusal::RefundExceedsCaptured));
    assert_eq!(apply(&paid(), Input::Refund(id(10), Some(eur(3)))), Err(Refusal::RefundExceedsCaptured));
    let (part, _) = apply(&paid(), Input::Refund(id(10), Some(eur(1)))).unwrap();
    assert_eq!(apply(&part, Input::Refund(id(11), Some(eur(2)))), Err(Refusal::RefundExceedsCaptured));
    assert_eq!(apply(&part, Input::Refund(id(10), Some(eur(1)))), Ok((part.clone(), vec![])), "a repetition");
    let (all, _) = apply(&part, Input::Refund(id(11), None)).unwrap();
    assert_eq!(apply(&all, Input::Refund(id(12), None)), Err(Refusal::RefundExceedsCaptured));
}

#[test]
fn a_refund_that_failed_frees_its_amount_for_good() {
    let (open, _) = apply(&paid(), Input::Refund(id(10), None)).unwrap();
    let (failed, effects) = apply(&open, reported(10, TOTAL, RefundStatus::Failed)).unwrap();
    assert_eq!((failed.returned(), effects), (eur(0), vec![]));
    let (late, _) = apply(&failed, reported(10, TOTAL, RefundStatus::Succeeded)).unwrap();
    assert_eq!(late, failed, "an answer that was overtaken");
    let (again, _) = apply(&failed, Input::Refund(id(11), None)).unwrap();
    let (done, effects) = apply(&again, reported(11, TOTAL, RefundStatus::Succeeded)).unwrap();
    assert_eq!((done.returned(), done.payment), (TOTAL, PaymentStatus::Refunded));
    assert_eq!(effects, [Effect::Refunded(id(11))]);
    assert_eq!(apply(&done, ship("1", true)), Err(Refusal::NotShippable));
}

#[test]
fn a_refund_first_reported_as_failed_is_not_revived_by_an_older_answer() {
    let theirs = |status| {
        let provider_id = Some("re_by_hand".to_owned().into());
        Input::RefundReported(RefundReport {
            ours: None,
            provider_id,
            amount: eur(1),
            status,
            fresh: id(900),
        })
    };
    let (failed, _) = apply(&paid(), theirs(RefundStatus::Failed)).unwrap();
    let (late, effects) = apply(&failed, theirs(RefundStatus::Succeeded)).unwrap();
    assert_eq!((late.returned(), late.payment, effects), (eur(0), PaymentStatus::Captured, vec![]));
}

#[test]
fn a_disputed_order_is_neither_sent_nor_refunded() {
    let (open, _) = apply(&paid(), Input::Disputed(Dispute::Open)).unwrap();
    assert_eq!(apply(&open, ship("1", true)), Err(Refusal::Disputed));
    assert_eq!(apply(&open, Input::Refund(id(10), None)), Err(Refusal::Disputed));
    // A cancellation waits for the bank.
    let (cancelled, _) = apply(&open, Input::Cancel(CancelReason::Staff)).unwrap();
    assert_eq!((cancelled.phase, cancelled.next_call()), (Phase::Refunding, None));
    let (won, _) = apply(&cancelled, Input::Disputed(Dispute::Won)).unwrap();
    assert_eq!(won.next_call(), Some(Call::Refund));
    let (lost, effects) = apply(&cancelled, Input::Disputed(Dispute::Lost)).unwrap();
    assert_eq!(
        (lost.phase, lost.next_call(), lost.returned(), effects),
        (Phase::Settled, None, eur(0), vec![])
    );
    let (won, _) = apply(&open, Input::Disputed(Dispute::Won)).unwrap();
    assert!(apply(&won, ship("1", true)).is_ok());
}

#[test]
fn a_cancellation_refunds_the_rest() {
    let (part, _) = apply(&paid(), Input::Refund(id(10), Some(eur(1)))).unwrap();
    let (part, _) = apply(&part, reported(10, eur(1), RefundStatus::Succeeded)).unwrap();
    let (cancelled, effects) = apply(&part, Input::Cancel(CancelReason::Staff)).unwrap();
    assert_eq!((cancelled.phase, effects), (Phase::Refunding, vec![Effect::Cancel(CancelReason::Staff)]));
    let open: Vec<_> = cancelled.open_refunds().map(|refund| (refund.amount, refund.by)).collect();
    assert_eq!(open, [(eur(1), RefundBy::Cancel)]);
}
