//! The rule by example, and by walking every state that a crash, a lost
//! answer, a late answer or a change of mind can lead to.

use std::collections::{HashMap, VecDeque};

use super::money::RefundBy;
use super::*;

/// What an order of these tests comes to: enough to be returned in two parts.
const TOTAL: i64 = 2;

fn id(n: usize) -> Uuid {
    Uuid::from_u128(n as u128)
}

/// The rule, with ids that tell refunds apart.
fn told(state: &State, input: Input) -> Result<(State, Vec<Effect>), Refusal> {
    let fresh = id(state.refunds.len() + 1);
    state.clone().apply(input, fresh)
}

fn after(inputs: &[Input]) -> (State, Vec<Effect>) {
    let mut all = Vec::new();
    let mut state = State::placed(TOTAL);
    for input in inputs {
        let (next, effects) = told(&state, input.clone()).unwrap();
        state = next;
        all.extend(effects);
    }
    (state, all)
}

fn created() -> Input {
    Input::Created("pi_1".to_owned())
}

#[test]
fn a_paid_order_is_confirmed_once_stock_and_money_are_taken() {
    let (state, effects) = after(&[
        created(),
        Input::Intent(Intent::Authorised),
        Input::StockCommitted,
        Input::Intent(Intent::Captured),
    ]);
    assert_eq!((state.status, state.phase), (Status::Confirmed, Phase::Confirmed));
    assert_eq!(state.payment, PaymentStatus::Captured);
    assert_eq!(effects, [Effect::Confirm]);
}

#[test]
fn a_declined_card_cancels_the_order() {
    let (state, effects) = after(&[created(), Input::Intent(Intent::Declined)]);
    assert_eq!(state.cancel_reason, Some(CancelReason::PaymentDeclined));
    assert_eq!((state.payment, state.phase), (PaymentStatus::Declined, Phase::Voiding));
    assert_eq!(effects, [Effect::Cancel]);
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
    let (state, effects) = told(&state, Input::Intent(Intent::Cancelled)).unwrap();
    assert_eq!(state.cancel_reason, Some(CancelReason::PaymentTimeout));
    assert_eq!((state.payment, state.phase), (PaymentStatus::Voided, Phase::Settled));
    assert_eq!(effects, [Effect::Cancel]);
}

#[test]
fn a_cancel_during_capture_waits_for_its_answer() {
    let capturing = [created(), Input::Intent(Intent::Authorised), Input::StockCommitted];
    let (state, _) = after(&capturing);
    let (state, effects) = told(&state, Input::Cancel(CancelReason::Customer)).unwrap();
    assert_eq!((state.status, effects), (Status::Pending, vec![]));
    let (state, effects) = told(&state, Input::Intent(Intent::Captured)).unwrap();
    assert_eq!((state.status, state.phase), (Status::Cancelled, Phase::Refunding));
    assert_eq!(effects, [Effect::Confirm, Effect::Cancel]);
    assert_eq!(state.open_refunds().map(|refund| refund.amount).collect::<Vec<_>>(), [TOTAL]);
}

#[test]
fn what_is_shipped_is_not_cancelled() {
    let shipped = State { status: Status::Shipped, phase: Phase::Confirmed, ..State::placed(TOTAL) };
    assert_eq!(told(&shipped, Input::Cancel(CancelReason::Customer)), Err(Refusal::NotCancellable));
}

fn parcel(number: &str) -> Tracking {
    Tracking { carrier: "Tern".to_owned(), tracking_number: number.to_owned() }
}

#[test]
fn a_paid_order_is_shipped_once_and_delivered_once() {
    let placed = State::placed(TOTAL);
    assert_eq!(told(&placed, Input::Ship(parcel("1"))), Err(Refusal::NotShippable));
    assert_eq!(told(&placed, Input::Deliver), Err(Refusal::NotDeliverable));

    let paid = State { status: Status::Confirmed, phase: Phase::Confirmed, ..State::placed(TOTAL) };
    assert_eq!(told(&paid, Input::Deliver), Err(Refusal::NotDeliverable));
    let (shipped, effects) = told(&paid, Input::Ship(parcel("1"))).unwrap();
    assert_eq!((shipped.status, effects), (Status::Shipped, vec![Effect::Ship]));
    assert_eq!(told(&shipped, Input::Ship(parcel("1"))), Ok((shipped.clone(), vec![])));
    assert_eq!(told(&shipped, Input::Ship(parcel("2"))), Err(Refusal::NotShippable));
    let (delivered, effects) = told(&shipped, Input::Deliver).unwrap();
    assert_eq!((delivered.status, effects), (Status::Delivered, vec![Effect::Deliver]));
    assert_eq!(told(&delivered, Input::Deliver), Ok((delivered, vec![])));
}

fn paid() -> State {
    after(&[
        created(),
        Input::Intent(Intent::Authorised),
        Input::StockCommitted,
        Input::Intent(Intent::Captured),
    ])
    .0
}

fn heard(ours: usize, amount: i64, status: RefundStatus) -> Input {
    let provider_id = Some(format!("re_{ours}"));
    Input::Heard(Heard { ours: Some(id(ours)), provider_id, amount, status, fresh: id(900) })
}

#[test]
fn refunds_never_come_to_more_than_was_captured() {
    let unpaid = State::placed(TOTAL);
    assert_eq!(told(&unpaid, Input::Refund(id(10), None)), Err(Refusal::RefundExceedsCaptured));
    assert_eq!(told(&paid(), Input::Refund(id(10), Some(TOTAL + 1))), Err(Refusal::RefundExceedsCaptured));
    let (part, _) = told(&paid(), Input::Refund(id(10), Some(1))).unwrap();
    assert_eq!(told(&part, Input::Refund(id(11), Some(2))), Err(Refusal::RefundExceedsCaptured));
    assert_eq!(told(&part, Input::Refund(id(10), Some(1))), Ok((part.clone(), vec![])), "a repetition");
    let (all, _) = told(&part, Input::Refund(id(11), None)).unwrap();
    assert_eq!(told(&all, Input::Refund(id(12), None)), Err(Refusal::RefundExceedsCaptured));
}

#[test]
fn a_refund_that_failed_frees_its_amount_for_good() {
    let (open, _) = told(&paid(), Input::Refund(id(10), None)).unwrap();
    let (failed, effects) = told(&open, heard(10, TOTAL, RefundStatus::Failed)).unwrap();
    assert_eq!((failed.returned(), effects), (0, vec![]));
    let (late, _) = told(&failed, heard(10, TOTAL, RefundStatus::Succeeded)).unwrap();
    assert_eq!(late, failed, "an answer that was overtaken");
    let (again, _) = told(&failed, Input::Refund(id(11), None)).unwrap();
    let (done, effects) = told(&again, heard(11, TOTAL, RefundStatus::Succeeded)).unwrap();
    assert_eq!((done.returned(), done.payment), (TOTAL, PaymentStatus::Refunded));
    assert_eq!(effects, [Effect::Refunded(id(11))]);
    assert_eq!(told(&done, Input::Ship(parcel("1"))), Err(Refusal::NotShippable));
}

#[test]
fn a_refund_first_heard_of_when_it_had_failed_is_not_revived_by_an_older_answer() {
    let theirs = |status| {
        let provider_id = Some("re_by_hand".to_owned());
        Input::Heard(Heard { ours: None, provider_id, amount: 1, status, fresh: id(900) })
    };
    let (failed, _) = told(&paid(), theirs(RefundStatus::Failed)).unwrap();
    let (late, effects) = told(&failed, theirs(RefundStatus::Succeeded)).unwrap();
    assert_eq!((late.returned(), late.payment, effects), (0, PaymentStatus::Captured, vec![]));
}

#[test]
fn a_cancellation_gives_back_the_rest() {
    let (part, _) = told(&paid(), Input::Refund(id(10), Some(1))).unwrap();
    let (part, _) = told(&part, heard(10, 1, RefundStatus::Succeeded)).unwrap();
    let (cancelled, effects) = told(&part, Input::Cancel(CancelReason::Staff)).unwrap();
    assert_eq!((cancelled.phase, effects), (Phase::Refunding, vec![Effect::Cancel]));
    let open: Vec<_> = cancelled.open_refunds().map(|refund| (refund.amount, refund.by)).collect();
    assert_eq!(open, [(1, RefundBy::Cancel)]);
}

/// The order, and the world around it: what provider and stock really hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    order: State,
    provider: Provider,
    stock: Stock,
    /// The refunds that the provider has made or tried.
    refunds: Vec<Made>,
    /// The provider changed something by itself, and its message is not followed up.
    news: bool,
    /// What is left of things that may happen once.
    left: Left,
    /// An answer that was read but not yet written: a slow worker's.
    late: Option<Input>,
    confirmed: u8,
    cancelled: u8,
    refunded: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Made {
    ours: Option<Uuid>,
    amount: i64,
    status: RefundStatus,
}

/// What may happen once in a life, and how much of it; without bounds there would be
/// states without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Left {
    more: u8,
    staff_refund: bool,
    provider_refund: bool,
    failed_refund: bool,
    late_capture: bool,
    late_answer: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Provider {
    None,
    Unconfirmed,
    Declined,
    Authorised,
    Captured,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stock {
    Reserved,
    Sold,
    Ended,
}

impl World {
    fn start() -> Self {
        Self {
            order: State::placed(TOTAL),
            provider: Provider::None,
            stock: Stock::Reserved,
            refunds: vec![],
            news: false,
            left: Left {
                more: 5,
                staff_refund: true,
                provider_refund: true,
                failed_refund: true,
                late_capture: true,
                late_answer: true,
            },
            late: None,
            confirmed: 0,
            cancelled: 0,
            refunded: 0,
        }
    }

    fn tell(&self, input: Input) -> Option<Self> {
        let (order, effects) = told(&self.order, input).ok()?;
        let mut world = Self { order, ..self.clone() };
        for effect in effects {
            match effect {
                Effect::Confirm => world.confirmed += 1,
                // `order.cancelled` releases or restocks, whichever it finds.
                Effect::Cancel => (world.cancelled, world.stock) = (world.cancelled + 1, Stock::Ended),
                Effect::Refunded(_) => world.refunded += 1,
                Effect::Ship | Effect::Deliver => {
                    assert_eq!(self.provider, Provider::Captured, "sent unpaid: {self:?}");
                    assert_eq!(self.stock, Stock::Sold, "sent without stock: {self:?}");
                }
            }
        }
        Some(world)
    }

    fn intent(&self) -> Input {
        Input::Intent(match self.provider {
            Provider::None | Provider::Unconfirmed => Intent::Unconfirmed,
            Provider::Declined => Intent::Declined,
            Provider::Authorised => Intent::Authorised,
            Provider::Captured => Intent::Captured,
            Provider::Cancelled => Intent::Cancelled,
        })
    }

    /// The worlds that the call may lead to with its effect done, and the answer.
    fn outcomes(&self, call: Call) -> Vec<(Self, Input)> {
        let with = |provider: Provider| {
            let world = Self { provider, ..self.clone() };
            let intent = world.intent();
            (world, intent)
        };
        match (call, self.provider) {
            (Call::CreateIntent, Provider::None) => {
                vec![(with(Provider::Unconfirmed).0, created()), (self.clone(), Input::Refused)]
            }
            (Call::CreateIntent, _) => vec![(self.clone(), created())],
            (Call::ConfirmIntent, Provider::Unconfirmed) => {
                vec![with(Provider::Authorised), with(Provider::Declined)]
            }
            (Call::CaptureIntent, Provider::Authorised) => {
                // Or the authorisation had run out.
                vec![with(Provider::Captured), with(Provider::Cancelled)]
            }
            (Call::CancelIntent, Provider::Unconfirmed | Provider::Declined | Provider::Authorised) => {
                vec![with(Provider::Cancelled)]
            }
            (Call::Refund, _) => {
                // A look at what there is comes first; see the runner.
                let Some(listed) = self.hear_refunds() else { return vec![] };
                let open: Vec<_> = self.order.open_refunds().cloned().collect();
                open.iter().flat_map(|refund| listed.refund(refund)).collect()
            }
            (Call::CommitStock, _) => match self.stock {
                Stock::Reserved => vec![(Self { stock: Stock::Sold, ..self.clone() }, Input::StockCommitted)],
                Stock::Sold => vec![(self.clone(), Input::StockCommitted)],
                Stock::Ended => vec![(self.clone(), Input::StockGone)],
            },
            (Call::ConfirmIntent | Call::RetrieveIntent | Call::CaptureIntent | Call::CancelIntent, _) => {
                vec![(self.clone(), self.intent())]
            }
        }
    }

    fn held(&self) -> i64 {
        let captured = if self.provider == Provider::Captured { TOTAL } else { 0 };
        let gone = self.refunds.iter().filter(|made| made.status != RefundStatus::Failed);
        captured - gone.map(|made| made.amount).sum::<i64>()
    }

    fn heard(&self, index: usize) -> Input {
        let Made { ours, amount, status } = self.refunds[index].clone();
        let provider_id = Some(format!("re_{index}"));
        Input::Heard(Heard { ours, provider_id, amount, status, fresh: id(200 + index) })
    }

    /// What may come of asking for a refund, under its id as the key.
    fn refund(&self, refund: &Refund) -> Vec<(Self, Input)> {
        if let Some(index) = self.refunds.iter().position(|made| made.ours == Some(refund.id)) {
            return vec![(self.clone(), self.heard(index))];
        }
        if refund.by == RefundBy::Provider {
            return vec![];
        }
        let (ours, amount) = (Some(refund.id), refund.amount);
        if amount > self.held() {
            let status = RefundStatus::Failed;
            let refused = Heard { ours, provider_id: None, amount, status, fresh: refund.id };
            return vec![(self.clone(), Input::Heard(refused))];
        }
        let mut outcomes = vec![RefundStatus::Succeeded, RefundStatus::Pending];
        if self.left.failed_refund && self.left.more > 0 {
            outcomes.push(RefundStatus::Failed);
        }
        let outcome = |status| {
            let mut world = self.clone();
            world.refunds.push(Made { ours, amount, status });
            if status == RefundStatus::Failed {
                world.left = Left { more: world.left.more - 1, failed_refund: false, ..world.left };
            }
            let heard = world.heard(world.refunds.len() - 1);
            (world, heard)
        };
        outcomes.into_iter().map(outcome).collect()
    }

    /// What the provider does by itself; a webhook tells of it.
    fn surprises(&self) -> Vec<Self> {
        let mut next = Vec::new();
        let mut surprise = |change: &dyn Fn(&mut Self)| {
            let mut world = Self { news: true, ..self.clone() };
            change(&mut world);
            next.push(world);
        };
        let more = self.left.more;
        if self.provider == Provider::Cancelled && self.left.late_capture && more > 0 {
            surprise(&|world| {
                world.provider = Provider::Captured;
                world.left = Left { more: more - 1, late_capture: false, ..world.left };
            });
        }
        if self.held() > 0 && self.left.provider_refund && more > 0 {
            surprise(&|world| {
                world.refunds.push(Made { ours: None, amount: 1, status: RefundStatus::Succeeded });
                world.left = Left { more: more - 1, provider_refund: false, ..world.left };
            });
        }
        for (index, made) in self.refunds.iter().enumerate() {
            if made.status == RefundStatus::Pending {
                surprise(&|world| world.refunds[index].status = RefundStatus::Succeeded);
            }
            if made.status != RefundStatus::Failed && self.left.failed_refund && more > 0 {
                surprise(&|world| {
                    world.refunds[index].status = RefundStatus::Failed;
                    world.left = Left { more: more - 1, failed_refund: false, ..world.left };
                });
            }
        }
        next
    }

    /// The look that follows a webhook.
    fn look(&self) -> Option<Self> {
        let world = self.tell(self.intent())?;
        Some(Self { news: false, ..world.hear_refunds()? })
    }

    fn hear_refunds(&self) -> Option<Self> {
        (0..self.refunds.len()).try_fold(self.clone(), |world, index| world.tell(self.heard(index)))
    }

    /// Everything that can happen next.
    fn successors(&self) -> Vec<Self> {
        let mut next = Vec::new();
        if let Some(call) = self.order.next_call() {
            for (world, answer) in self.outcomes(call) {
                next.extend(world.tell(answer.clone())); // the answer arrives
                next.extend(world.tell(Input::NoAnswer)); // done, but nobody knows
                next.push(world.clone()); // done, and the worker died
                if world.left.late_answer && world.left.more > 0 {
                    // The worker is slow, another takes over.
                    let left = Left { more: world.left.more - 1, late_answer: false, ..world.left };
                    next.push(Self { late: Some(answer), left, ..world });
                }
            }
            next.extend(self.tell(Input::NoAnswer)); // not even done
        }
        if let Some(late) = &self.late {
            next.extend(Self { late: None, ..self.clone() }.tell(late.clone()));
        }
        next.extend(self.tell(Input::Cancel(CancelReason::Customer)));
        next.extend(self.tell(Input::Ship(parcel("1"))));
        next.extend(self.tell(Input::Deliver));
        if self.order.has_deadline() {
            next.extend(self.tell(Input::Deadline));
        }
        if self.left.staff_refund && self.left.more > 0 {
            let left = Left { more: self.left.more - 1, staff_refund: false, ..self.left };
            next.extend(Self { left, ..self.clone() }.tell(Input::Refund(id(100), Some(1))));
        }
        next.extend(self.surprises());
        if self.news && matches!(self.order.next_call(), None | Some(Call::Refund)) {
            next.extend(self.look());
        }
        if self.stock == Stock::Reserved {
            next.push(Self { stock: Stock::Ended, ..self.clone() }); // the reservation ran out
        }
        next
    }

    fn rests(&self) -> bool {
        self.order.next_call().is_none() && self.late.is_none() && !self.news
    }

    fn check(&self) {
        assert!(self.confirmed <= 1 && self.cancelled <= 1, "announced twice: {self:?}");
        assert!(self.refunded <= 2, "refunds announced twice: {self:?}");
        assert!(self.held() >= 0, "more went back than was taken: {self:?}");
        if !self.rests() {
            return;
        }
        let back = self.refunds.iter().filter(|made| made.status == RefundStatus::Succeeded);
        let back: i64 = back.map(|made| made.amount).sum();
        assert_eq!(self.order.returned(), back, "not what the provider says: {self:?}");
        match self.order.status {
            Status::Confirmed | Status::Shipped | Status::Delivered => {
                assert_eq!(self.provider, Provider::Captured, "confirmed unpaid: {self:?}");
                assert_eq!(self.stock, Stock::Sold, "confirmed without stock: {self:?}");
                let refunded = self.order.payment == PaymentStatus::Refunded;
                assert_eq!(refunded, back == TOTAL, "{self:?}");
            }
            Status::Cancelled => {
                let held = self.provider == Provider::Authorised || self.held() > 0;
                assert!(!held, "cancelled but money is held: {self:?}");
                assert_ne!(self.stock, Stock::Sold, "cancelled but stock is gone: {self:?}");
                assert!(self.order.cancel_reason.is_some(), "{self:?}");
            }
            Status::Pending => panic!("rests as pending: {self:?}"),
        }
    }
}

#[test]
fn no_reachable_state_breaks_a_promise_and_none_is_stuck() {
    let mut number = HashMap::from([(World::start(), 0)]);
    let mut worlds = vec![World::start()];
    let mut earlier: Vec<Vec<usize>> = vec![vec![]];
    let mut at = 0;
    while at < worlds.len() {
        worlds[at].check();
        for next in worlds[at].successors() {
            let to = *number.entry(next).or_insert_with_key(|next| {
                worlds.push(next.clone());
                earlier.push(vec![]);
                worlds.len() - 1
            });
            earlier[to].push(at);
        }
        at += 1;
    }
    assert!(worlds.len() > 10_000, "only {} states: the walk has gone lame", worlds.len());

    // From every state some way leads to rest.
    let mut live: Vec<bool> = worlds.iter().map(World::rests).collect();
    let mut queue: VecDeque<usize> = (0..worlds.len()).filter(|at| live[*at]).collect();
    while let Some(at) = queue.pop_front() {
        for before in &earlier[at] {
            if !std::mem::replace(&mut live[*before], true) {
                queue.push_back(*before);
            }
        }
    }
    let stuck = live.iter().position(|live| !live).map(|at| &worlds[at]);
    assert!(stuck.is_none(), "stuck: {stuck:?}");
}
