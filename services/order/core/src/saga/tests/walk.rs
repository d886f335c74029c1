//! Every state that a crash, a lost answer, a late answer or call, a provider's whim or a
//! change of mind can lead to.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, VecDeque};

use super::*;

thread_local! {
    static TAKEN: RefCell<BTreeSet<(&'static str, u32)>> = const { RefCell::new(BTreeSet::new()) };
}

/// What `branch!` calls.
pub fn taken(file: &'static str, line: u32) {
    TAKEN.with_borrow_mut(|taken| taken.insert((file, line)));
}

/// The branches of the rule that this thread has not taken: file, line, and the line before it.
fn not_taken() -> Vec<String> {
    let mut missing = Vec::new();
    let files =
        [("saga.rs", include_str!("../../saga.rs")), ("saga/refunds.rs", include_str!("../refunds.rs"))];
    for (file, text) in files {
        let lines: Vec<&str> = text.lines().collect();
        for (at, _) in lines.iter().enumerate().filter(|(_, line)| line.trim() == "branch!();") {
            let number = at + 1;
            let reached = |taken: &BTreeSet<(&str, u32)>| {
                taken.iter().any(|(path, line)| path.ends_with(file) && *line as usize == number)
            };
            if !TAKEN.with_borrow(reached) {
                missing.push(format!("{file}:{number}: {}", lines[at - 1].trim()));
            }
        }
    }
    missing
}

/// The order, and the world around it: what provider and stock really hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    order: State,
    provider: Provider,
    stock: Stock,
    /// The refunds that the provider has made or tried.
    refunds: Vec<Made>,
    /// The customer has complained to their bank.
    dispute: Option<Dispute>,
    /// The provider changed something by itself, and its message is not followed up.
    unread: bool,
    /// What is left of things that may happen once.
    left: Left,
    /// What a slow worker will still do, although another has taken over.
    late: Option<Late>,
    confirmed: u8,
    cancelled: u8,
    refunded: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Late {
    /// Write an answer that it has read.
    Answer(Input),
    /// Make a call that it has decided on.
    Call(Call),
    /// Ask for a refund.
    Refund(Refund),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Made {
    ours: Option<RefundId>,
    amount: Money,
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
    late_worker: bool,
    dispute: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Provider {
    None,
    Unconfirmed,
    Processing,
    /// It waits for the customer.
    Action,
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
    fn start(total: Money) -> Self {
        Self {
            order: State::placed(total),
            provider: Provider::None,
            stock: Stock::Reserved,
            refunds: vec![],
            dispute: None,
            unread: false,
            left: Left {
                more: 5,
                staff_refund: true,
                provider_refund: true,
                failed_refund: true,
                late_capture: true,
                late_worker: true,
                dispute: true,
            },
            late: None,
            confirmed: 0,
            cancelled: 0,
            refunded: 0,
        }
    }

    fn tell(&self, input: Input) -> Option<Self> {
        let (order, effects) = apply(&self.order, input).ok()?;
        let mut world = Self { order, ..self.clone() };
        for effect in effects {
            match effect {
                Effect::Confirm => world.confirmed += 1,
                Effect::AskCustomer => {
                    assert!(world.order.action.is_some(), "asked for nothing: {self:?}");
                    assert!(!self.order.is_free(), "asked about money that nobody wants: {self:?}");
                }
                // `order.cancelled` releases or restocks, whichever it finds.
                Effect::Cancel(_) => (world.cancelled, world.stock) = (world.cancelled + 1, Stock::Ended),
                Effect::Refunded(_) => world.refunded += 1,
                Effect::Ship(_) | Effect::Correct(_) | Effect::Deliver => {
                    assert!(self.paid(), "sent unpaid: {self:?}");
                    assert_eq!(self.stock, Stock::Sold, "sent without stock: {self:?}");
                }
            }
        }
        Some(world)
    }

    /// What there is to pay is.
    fn paid(&self) -> bool {
        self.order.is_free() || self.provider == Provider::Captured
    }

    fn intent(&self) -> Input {
        Input::IntentReported(match self.provider {
            Provider::Action => return Input::ActionRequired(action()),
            Provider::None | Provider::Unconfirmed => IntentStatus::Unconfirmed,
            Provider::Processing => IntentStatus::Processing,
            Provider::Declined => IntentStatus::Declined(DeclineReason::Declined),
            Provider::Authorised => IntentStatus::Authorised,
            Provider::Captured => return Input::CapturedFrom(card()),
            Provider::Cancelled => IntentStatus::Cancelled,
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
                let refused = (self.clone(), Input::Refused(DeclineReason::Declined));
                vec![(with(Provider::Unconfirmed).0, created()), refused]
            }
            (Call::CreateIntent, _) => vec![(self.clone(), created())],
            (Call::ConfirmIntent, Provider::Unconfirmed) => {
                let ends = [Provider::Authorised, Provider::Declined, Provider::Processing, Provider::Action];
                ends.map(with).to_vec()
            }
            (Call::CaptureIntent, Provider::Authorised) => {
                // Or the authorisation had run out, or the bank thinks better of it.
                vec![with(Provider::Captured), with(Provider::Cancelled), with(Provider::Declined)]
            }
            (
                Call::CancelIntent,
                Provider::Unconfirmed
                | Provider::Processing
                | Provider::Action
                | Provider::Declined
                | Provider::Authorised,
            ) => vec![with(Provider::Cancelled)],
            (Call::Refund, _) => {
                let open: Vec<_> = self.order.open_refunds().cloned().collect();
                open.iter().flat_map(|refund| self.ask_refund(refund)).collect()
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
        let captured = if self.provider == Provider::Captured { TOTAL.amount } else { 0 };
        if self.dispute == Some(Dispute::Lost) {
            return 0;
        }
        let gone = self.refunds.iter().filter(|made| made.status != RefundStatus::Failed);
        captured - gone.map(|made| made.amount.amount).sum::<i64>()
    }

    fn reported(&self, index: usize) -> Input {
        let Made { ours, amount, status } = self.refunds[index].clone();
        let provider_id = Some(format!("re_{index}").into());
        Input::RefundReported(RefundReport { ours, provider_id, amount, status, fresh: id(200 + index) })
    }

    /// Reading what there is, then the refund: as the runner does it.
    fn ask_refund(&self, refund: &Refund) -> Vec<(Self, Input)> {
        self.refunds_reported().map_or(vec![], |listed| listed.refund(refund))
    }

    /// What may come of asking for a refund, under its id as the key.
    fn refund(&self, refund: &Refund) -> Vec<(Self, Input)> {
        if let Some(index) = self.refunds.iter().position(|made| made.ours == Some(refund.id)) {
            return vec![(self.clone(), self.reported(index))];
        }
        if refund.by == RefundBy::Provider {
            return vec![];
        }
        let (ours, amount) = (Some(refund.id), refund.amount);
        if matches!(self.dispute, Some(Dispute::Open | Dispute::Lost)) {
            // Refused for now: no answer for good.
            return vec![];
        }
        if amount.amount > self.held() {
            let status = RefundStatus::Failed;
            let refused = RefundReport { ours, provider_id: None, amount, status, fresh: refund.id };
            return vec![(self.clone(), Input::RefundReported(refused))];
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
            let report = world.reported(world.refunds.len() - 1);
            (world, report)
        };
        outcomes.into_iter().map(outcome).collect()
    }

    /// What the provider does by itself; a webhook tells of it.
    fn surprises(&self) -> Vec<Self> {
        let mut next = Vec::new();
        let mut surprise = |change: &dyn Fn(&mut Self)| {
            let mut world = Self { unread: true, ..self.clone() };
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
        if self.provider == Provider::Action {
            // The customer comes back, or does not prove who they are.
            surprise(&|world| world.provider = Provider::Processing);
        }
        if matches!(self.provider, Provider::Processing | Provider::Action) {
            surprise(&|world| world.provider = Provider::Authorised);
            surprise(&|world| world.provider = Provider::Declined);
        }
        if self.held() > 0 && self.left.dispute && more > 1 {
            surprise(&|world| {
                world.dispute = Some(Dispute::Open);
                world.left = Left { more: more - 2, dispute: false, ..world.left };
            });
        }
        if self.dispute == Some(Dispute::Open) {
            surprise(&|world| world.dispute = Some(Dispute::Won));
            surprise(&|world| world.dispute = Some(Dispute::Lost));
        }
        if self.held() > 0 && self.dispute != Some(Dispute::Open) && self.left.provider_refund && more > 0 {
            surprise(&|world| {
                world.refunds.push(Made { ours: None, amount: eur(1), status: RefundStatus::Succeeded });
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

    /// The inquiry that follows a webhook.
    fn inquire(&self) -> Option<Self> {
        let world = self.tell(self.intent())?.refunds_reported()?;
        let world = match world.dispute {
            Some(dispute) => world.tell(Input::Disputed(dispute))?,
            None => world,
        };
        Some(Self { unread: false, ..world })
    }

    fn refunds_reported(&self) -> Option<Self> {
        (0..self.refunds.len()).try_fold(self.clone(), |world, index| world.tell(self.reported(index)))
    }

    /// Everything that can happen next.
    fn successors(&self) -> Vec<Self> {
        let mut next = Vec::new();
        if let Some(call) = self.order.next_call() {
            for (world, answer) in self.outcomes(call) {
                next.extend(world.tell(answer.clone())); // the answer arrives
                next.extend(world.tell(Input::NoAnswer)); // done, but nobody knows
                next.push(world.clone()); // done, and the worker died
                next.extend(world.slow(Late::Answer(answer)));
            }
            next.extend(self.tell(Input::NoAnswer)); // not even done
            if call == Call::Refund {
                next.extend(
                    self.order.open_refunds().filter_map(|open| self.slow(Late::Refund(open.clone()))),
                );
            } else {
                next.extend(self.slow(Late::Call(call)));
            }
        }
        if let Some(late) = &self.late {
            let world = Self { late: None, ..self.clone() };
            next.push(world.clone()); // it died after all
            let answered = match late {
                Late::Answer(answer) => vec![(world, answer.clone())],
                Late::Call(call) => world.outcomes(*call),
                Late::Refund(refund) => world.ask_refund(refund),
            };
            for (world, answer) in answered {
                next.extend(world.tell(answer));
                next.push(world); // it died after its call
            }
        }
        next.extend(self.tell(Input::Cancel(CancelReason::Customer)));
        next.extend(self.tell(ship("1", false)));
        next.extend(self.tell(ship("1", true)));
        for newest in [false, true] {
            next.extend(self.tell(Input::Correct { parcel: parcel("2"), newest }));
        }
        for more in [false, true] {
            next.extend(self.tell(Input::Deliver { more }));
        }
        next.extend(self.tell(Input::Deadline));
        let refund = Input::Refund(id(100), Some(eur(1)));
        if !self.left.staff_refund {
            next.extend(self.tell(refund)); // again
        } else if self.left.more > 0 {
            let left = Left { more: self.left.more - 1, staff_refund: false, ..self.left };
            next.extend(Self { left, ..self.clone() }.tell(refund));
        }
        next.extend(self.surprises());
        if self.unread && matches!(self.order.next_call(), None | Some(Call::Refund)) {
            next.extend(self.inquire());
            // What else was asked about was not answered.
            next.extend(self.dispute.and_then(|dispute| self.tell(Input::Disputed(dispute))));
            next.extend(self.slow(Late::Answer(self.intent())));
            next.extend(
                (0..self.refunds.len()).filter_map(|made| self.slow(Late::Answer(self.reported(made)))),
            );
        }
        if self.stock == Stock::Reserved {
            next.push(Self { stock: Stock::Ended, ..self.clone() }); // the reservation ran out
        }
        next
    }

    /// The worker is slow, and another takes over.
    fn slow(&self, late: Late) -> Option<Self> {
        let more = self.left.more.checked_sub(1).filter(|_| self.left.late_worker)?;
        Some(Self { late: Some(late), left: Left { more, late_worker: false, ..self.left }, ..self.clone() })
    }

    fn rests(&self) -> bool {
        self.order.next_call().is_none() && self.late.is_none() && !self.unread
    }

    fn check(&self) {
        assert!(self.confirmed <= 1 && self.cancelled <= 1, "announced twice: {self:?}");
        assert!(self.refunded <= 2, "refunds announced twice: {self:?}");
        assert!(self.held() >= 0, "more went back than was taken: {self:?}");
        if !self.rests() {
            return;
        }
        let back = self.refunds.iter().filter(|made| made.status == RefundStatus::Succeeded);
        let back: i64 = back.map(|made| made.amount.amount).sum();
        assert_eq!(self.order.returned().amount, back, "not what the provider says: {self:?}");
        match self.order.status {
            Status::Confirmed | Status::PartiallyShipped | Status::Shipped | Status::Delivered => {
                assert!(self.paid(), "confirmed unpaid: {self:?}");
                assert_eq!(self.stock, Stock::Sold, "confirmed without stock: {self:?}");
                let refunded = self.order.payment == PaymentStatus::Refunded;
                assert_eq!(refunded, !self.order.is_free() && back == TOTAL.amount, "{self:?}");
            }
            Status::Cancelled => {
                let charges = matches!(self.provider, Provider::Processing | Provider::Authorised);
                // What is disputed goes back once that is decided.
                let held = charges || self.held() > 0 && self.dispute != Some(Dispute::Open);
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
    let mut worlds = vec![World::start(TOTAL), World::start(eur(0))];
    // Free orders as a release leaves them that knows of none: it goes on to capture, or to cancel the intent.
    for (phase, pending_cancel) in [
        (Phase::Capturing, None),
        (Phase::Capturing, Some(CancelReason::Customer)),
        (Phase::Voiding, Some(CancelReason::PaymentTimeout)),
    ] {
        let mut world = World::start(eur(0));
        world.order = State { phase, pending_cancel, payment: PaymentStatus::Unknown, ..world.order };
        worlds.push(world);
    }
    let mut number: HashMap<World, usize> = worlds.iter().cloned().zip(0..).collect();
    let mut earlier: Vec<Vec<usize>> = vec![vec![]; worlds.len()];
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

    let (missing, branches) = (not_taken(), TAKEN.with_borrow(BTreeSet::len));
    println!("{} states, {branches} branches of the rule", worlds.len());
    assert!(branches > 40, "only {branches} branches are marked");
    assert!(missing.is_empty(), "branches of the rule that no path takes:\n{}", missing.join("\n"));
}
