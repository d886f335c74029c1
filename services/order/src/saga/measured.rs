//! The metrics of orders. They are counted after the commit.

use std::sync::LazyLock;

use opentelemetry::metrics::{Counter, Histogram};
use order_core::ids::RefundId;
use service::Money;
use service::telemetry::{counter, label, seconds_histogram};

use super::refunds::RefundStatus;
use super::{Effect, State};
use crate::order::{CancelReason, PaymentStatus, Status};

/// Upper bounds in seconds. Ten are promised; the card provider may take minutes.
const DECIDED: [f64; 10] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

static COUNTED: LazyLock<Counted> = LazyLock::new(Counted::start);

/// Something that has happened to an order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Happened {
    /// Seconds since it was accepted, without those in which it waited for its customer.
    Confirmed(f64),
    /// The same.
    Cancelled(CancelReason, f64),
    /// It had been confirmed before.
    CancelledLater(CancelReason),
    Captured(Money),
    Refunded(Money),
}

struct Counted {
    accepted: Counter<u64>,
    outcomes: Counter<u64>,
    decided: Histogram<f64>,
    captured: Counter<u64>,
    refunded: Counter<u64>,
}

impl Counted {
    fn start() -> Self {
        let description = "From accepted to confirmed or cancelled, without waiting for the customer's bank.";
        let counted = Self {
            accepted: counter("orders.accepted", "{order}", "Orders placed."),
            outcomes: counter("orders.outcomes", "{order}", "What orders came to, and why."),
            decided: seconds_histogram("orders.decision.duration", description, &DECIDED),
            captured: counter("money.captured", "{minor_unit}", "Money taken from cards."),
            refunded: counter("money.refunded", "{minor_unit}", "Money given back by refunds."),
        };
        counted.accepted.add(0, &[]);
        counted.outcome("confirmed", "none", 0);
        for reason in CancelReason::ALL {
            counted.outcome("cancelled", reason.as_str(), 0);
            counted.outcome("cancelled_after_confirmed", reason.as_str(), 0);
        }
        counted
    }

    fn outcome(&self, outcome: &'static str, reason: &'static str, count: u64) {
        let labels = [label("outcome", outcome), label("reason", reason)];
        self.outcomes.add(count, &labels);
    }

    fn decided(&self, outcome: &'static str, seconds: f64) {
        self.decided.record(seconds.max(0.0), &[label("outcome", outcome)]);
    }

    fn count(&self, happened: Happened) {
        match happened {
            Happened::Confirmed(seconds) => {
                self.outcome("confirmed", "none", 1);
                self.decided("confirmed", seconds);
            }
            Happened::Cancelled(reason, seconds) => {
                self.outcome("cancelled", reason.as_str(), 1);
                self.decided("cancelled", seconds);
            }
            Happened::CancelledLater(reason) => self.outcome("cancelled_after_confirmed", reason.as_str(), 1),
            Happened::Captured(money) => add(&self.captured, money),
            Happened::Refunded(money) => add(&self.refunded, money),
        }
    }
}

fn add(counter: &Counter<u64>, money: Money) {
    let amount = u64::try_from(money.amount).unwrap_or(0);
    counter.add(amount, &[label("currency", money.currency.code())]);
}

/// Shows from the start, with 0, what has not happened yet.
pub fn start() {
    LazyLock::force(&COUNTED);
}

pub fn accepted(orders: usize) {
    COUNTED.accepted.add(orders as u64, &[]);
}

pub fn count(happened: &[Happened]) {
    happened.iter().for_each(|one| COUNTED.count(*one));
}

/// The events between `old` and `new`: from `effects`, oldest first, for an order that has been in work for
/// this many seconds.
pub fn between<'a>(
    old: &State,
    new: &State,
    effects: impl Iterator<Item = &'a Effect>,
    seconds: f64,
) -> Vec<Happened> {
    let (mut happened, mut decided) = (Vec::new(), old.status != Status::Pending);
    for effect in effects {
        match effect {
            Effect::Confirm => happened.push(Happened::Confirmed(seconds)),
            Effect::Cancel(reason) if decided => happened.push(Happened::CancelledLater(*reason)),
            Effect::Cancel(reason) => happened.push(Happened::Cancelled(*reason, seconds)),
            _ => continue,
        }
        decided = true;
    }
    let paid = |state: &State| matches!(state.payment, PaymentStatus::Captured | PaymentStatus::Refunded);
    if paid(new) && !paid(old) && !new.total.is_zero() {
        happened.push(Happened::Captured(new.total));
    }
    let succeeded = new.refunds.iter().filter(|refund| refund.status == RefundStatus::Succeeded);
    let known =
        |id: RefundId| old.refunds.iter().any(|old| old.id == id && old.status == RefundStatus::Succeeded);
    happened.extend(succeeded.filter(|new| !known(new.id)).map(|refund| Happened::Refunded(refund.amount)));
    happened
}

#[cfg(test)]
mod tests {
    use service::money::Currency;

    use super::*;

    #[test]
    fn an_order_is_decided_once_and_its_money_counted_once() {
        let total = Money::new(2500, Currency::from_code("EUR").unwrap());
        let placed = State::placed(total);
        let confirmed =
            State { status: Status::Confirmed, payment: PaymentStatus::Captured, ..placed.clone() };
        assert_eq!(
            between(&placed, &confirmed, [Effect::Confirm].iter(), 2.0),
            [Happened::Confirmed(2.0), Happened::Captured(total)]
        );
        let cancelled = State { status: Status::Cancelled, ..confirmed.clone() };
        let by_staff = Effect::Cancel(CancelReason::Staff);
        assert_eq!(
            between(&confirmed, &cancelled, [by_staff.clone()].iter(), 9.0),
            [Happened::CancelledLater(CancelReason::Staff)]
        );
        let unpaid = State { status: Status::Cancelled, ..placed.clone() };
        assert_eq!(
            between(&placed, &unpaid, [by_staff].iter(), 1.0),
            [Happened::Cancelled(CancelReason::Staff, 1.0)]
        );
        assert!(between(&confirmed, &confirmed, [].iter(), 1.0).is_empty());
    }
}
