//! The rule by example, and by walking every state that a crash, a lost
//! answer, a late answer or a change of mind can lead to.

use std::collections::{HashMap, HashSet, VecDeque};

use super::*;

fn after(inputs: &[Input]) -> (State, Vec<Effect>) {
    let mut all = Vec::new();
    let mut state = State::placed();
    for input in inputs {
        let (next, effects) = state.apply(input.clone()).unwrap();
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
    let (state, effects) = state.apply(Input::Intent(Intent::Cancelled)).unwrap();
    assert_eq!(state.cancel_reason, Some(CancelReason::PaymentTimeout));
    assert_eq!((state.payment, state.phase), (PaymentStatus::Voided, Phase::Settled));
    assert_eq!(effects, [Effect::Cancel]);
}

#[test]
fn a_cancel_during_capture_waits_for_its_answer() {
    let capturing = [created(), Input::Intent(Intent::Authorised), Input::StockCommitted];
    let (state, _) = after(&capturing);
    let (state, effects) = state.apply(Input::Cancel(CancelReason::Customer)).unwrap();
    assert_eq!((state.status, effects), (Status::Pending, vec![]));
    let (state, effects) = state.apply(Input::Intent(Intent::Captured)).unwrap();
    assert_eq!((state.status, state.phase), (Status::Cancelled, Phase::Refunding));
    assert_eq!(effects, [Effect::Confirm, Effect::Cancel, Effect::OpenRefund]);
}

#[test]
fn what_is_shipped_is_not_cancelled() {
    let shipped = State { status: Status::Shipped, phase: Phase::Confirmed, ..State::placed() };
    assert_eq!(shipped.apply(Input::Cancel(CancelReason::Customer)), Err(Refusal::NotCancellable));
}

fn parcel(number: &str) -> Tracking {
    Tracking { carrier: "Tern".to_owned(), tracking_number: number.to_owned() }
}

#[test]
fn a_paid_order_is_shipped_once_and_delivered_once() {
    let placed = State::placed();
    assert_eq!(placed.clone().apply(Input::Ship(parcel("1"))), Err(Refusal::NotShippable));
    assert_eq!(placed.apply(Input::Deliver), Err(Refusal::NotDeliverable));

    let paid = State { status: Status::Confirmed, phase: Phase::Confirmed, ..State::placed() };
    assert_eq!(paid.clone().apply(Input::Deliver), Err(Refusal::NotDeliverable));
    let (shipped, effects) = paid.apply(Input::Ship(parcel("1"))).unwrap();
    assert_eq!((shipped.status, effects), (Status::Shipped, vec![Effect::Ship]));
    assert_eq!(shipped.clone().apply(Input::Ship(parcel("1"))), Ok((shipped.clone(), vec![])));
    assert_eq!(shipped.clone().apply(Input::Ship(parcel("2"))), Err(Refusal::NotShippable));
    let (delivered, effects) = shipped.apply(Input::Deliver).unwrap();
    assert_eq!((delivered.status, effects), (Status::Delivered, vec![Effect::Deliver]));
    assert_eq!(delivered.clone().apply(Input::Deliver), Ok((delivered, vec![])));
}

/// The order, and the world around it: what provider and stock really hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    order: State,
    provider: Provider,
    stock: Stock,
    refund_open: bool,
    /// An answer that was read but not yet written: a slow worker's.
    late: Option<Input>,
    confirmed: u8,
    cancelled: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Provider {
    None,
    Unconfirmed,
    Declined,
    Authorised,
    Captured,
    Cancelled,
    Refunded,
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
            order: State::placed(),
            provider: Provider::None,
            stock: Stock::Reserved,
            refund_open: false,
            late: None,
            confirmed: 0,
            cancelled: 0,
        }
    }

    fn tell(&self, input: Input) -> Option<Self> {
        let (order, effects) = self.order.clone().apply(input).ok()?;
        let mut world = Self { order, ..self.clone() };
        for effect in effects {
            match effect {
                Effect::Confirm => world.confirmed += 1,
                // `order.cancelled` releases or restocks, whichever it finds.
                Effect::Cancel => (world.cancelled, world.stock) = (world.cancelled + 1, Stock::Ended),
                Effect::OpenRefund => world.refund_open = true,
                Effect::CloseRefund => world.refund_open = false,
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
            Provider::Captured | Provider::Refunded => Intent::Captured,
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
            (Call::Refund, Provider::Captured) => vec![(with(Provider::Refunded).0, Input::Refunded)],
            (Call::Refund, _) => vec![(self.clone(), Input::Refunded)],
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

    /// Everything that can happen next.
    fn successors(&self) -> Vec<Self> {
        let mut next = Vec::new();
        if let Some(call) = self.order.next_call() {
            for (world, answer) in self.outcomes(call) {
                next.extend(world.tell(answer.clone())); // the answer arrives
                next.extend(world.tell(Input::NoAnswer)); // done, but nobody knows
                next.push(world.clone()); // done, and the worker died
                if world.late.is_none() {
                    next.push(Self { late: Some(answer), ..world }); // the worker is slow, another takes over
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
        if self.stock == Stock::Reserved {
            next.push(Self { stock: Stock::Ended, ..self.clone() }); // the reservation ran out
        }
        next
    }

    fn rests(&self) -> bool {
        self.order.next_call().is_none() && self.late.is_none()
    }

    fn check(&self) {
        assert!(self.confirmed <= 1 && self.cancelled <= 1, "announced twice: {self:?}");
        if !self.rests() {
            return;
        }
        match self.order.status {
            Status::Confirmed | Status::Shipped | Status::Delivered => {
                assert_eq!(self.provider, Provider::Captured, "confirmed unpaid: {self:?}");
                assert_eq!(self.stock, Stock::Sold, "confirmed without stock: {self:?}");
                assert!(!self.refund_open);
            }
            Status::Cancelled => {
                let held = matches!(self.provider, Provider::Authorised | Provider::Captured);
                assert!(!held, "cancelled but money is held: {self:?}");
                assert_ne!(self.stock, Stock::Sold, "cancelled but stock is gone: {self:?}");
                assert!(self.order.cancel_reason.is_some() && !self.refund_open, "{self:?}");
            }
            Status::Pending => panic!("rests as pending: {self:?}"),
        }
    }
}

#[test]
fn no_reachable_state_breaks_a_promise_and_none_is_stuck() {
    let mut seen = HashSet::from([World::start()]);
    let mut queue = VecDeque::from([World::start()]);
    let mut before: HashMap<World, Vec<World>> = HashMap::new();
    while let Some(world) = queue.pop_front() {
        world.check();
        for next in world.successors() {
            before.entry(next.clone()).or_default().push(world.clone());
            if seen.insert(next.clone()) {
                queue.push_back(next);
            }
        }
    }
    assert!(seen.len() > 300, "only {} states: the walk has gone lame", seen.len());

    // From every state some way leads to rest.
    let mut live: HashSet<World> = seen.iter().filter(|world| world.rests()).cloned().collect();
    let mut queue: VecDeque<World> = live.iter().cloned().collect();
    while let Some(world) = queue.pop_front() {
        for earlier in before.get(&world).into_iter().flatten() {
            if live.insert(earlier.clone()) {
                queue.push_back(earlier.clone());
            }
        }
    }
    let stuck = seen.difference(&live).next();
    assert!(stuck.is_none(), "stuck: {stuck:?}");
}
