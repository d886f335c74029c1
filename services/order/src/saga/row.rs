//! An order as it was locked, the facts that change it, and the changes to announce.

use order_core::ids::OrderId;
use service::Money;
use uuid::Uuid;

use super::facts::Report;
use super::store::{Lease, Progress};
use super::{Effect, Input, Refusal, State};
use crate::events::publish::{About, Announcement, Notice, Sent};
use crate::order::{Card, DeclineReason, Dispute, PaymentStatus, Status};

/// An order as it was locked, and as facts change it.
pub struct Row {
    pub about: About,
    pub state: State,
    /// Every change that is announced has a version of its own.
    pub version: i64,
    /// The version that was found.
    pub locked: i64,
    pub progress: Progress,
    /// Seconds since it was accepted, without those that it waited for its customer.
    pub in_work: f64,
    /// The time for paying is over, by the database's clock. A worker's own time may be stale.
    pub overdue: bool,
    /// How long the reporting worker holds the lease from now on.
    pub lease: Option<Lease>,
    /// The changes to announce, oldest first.
    pub steps: Vec<Step>,
}

/// A change that is announced to subscribers.
pub struct Step {
    pub order: OrderId,
    pub version: i64,
    pub effect: Effect,
    /// Of the order, once all effects of its fact are applied.
    pub status: Status,
    pub payment: PaymentStatus,
    pub decline: Option<DeclineReason>,
    pub card: Option<Card>,
    pub dispute: Option<Dispute>,
    pub refunded: Money,
}

impl Step {
    /// What a cancellation refunds. None: the provider has not said what it took, or the money went back
    /// earlier, by a refund or by the customer's bank.
    fn returns(&self, total: Money) -> Option<Money> {
        match self.payment {
            PaymentStatus::Captured | PaymentStatus::Refunded => {
                let left = Money::new(total.amount - self.refunded.amount, total.currency);
                (left.amount > 0 && self.dispute != Some(Dispute::Lost)).then_some(left)
            }
            PaymentStatus::Unknown => None,
            _ => Some(Money::zero(total.currency)),
        }
    }
}

impl Row {
    /// The state after a report.
    pub fn learn(&mut self, report: &Report) -> Result<State, Refusal> {
        let (mut state, mut version, mut caused) = (self.state.clone(), self.version, Vec::new());
        let holds = |fact: &&Input| self.overdue || **fact != Input::Deadline;
        for fact in report.facts.iter().filter(holds) {
            let (next, effects) = state.apply(fact.clone(), Uuid::now_v7().into())?;
            state = next;
            for effect in effects {
                version += 1;
                let (status, payment, refunded) = (state.status, state.payment, state.returned());
                let (decline, card, dispute) = (state.decline, state.card.clone(), state.dispute);
                caused.push(Step {
                    order: report.order,
                    version,
                    effect,
                    status,
                    payment,
                    decline,
                    card,
                    dispute,
                    refunded,
                });
            }
        }
        self.steps.extend(caused);
        (self.state, self.version) = (state.clone(), version);
        // Of several workers that report at once only one can hold it.
        if let Some(lease) = report.lease.filter(|lease| lease.epoch == self.progress.epoch) {
            self.lease = Some(lease);
        }
        Ok(state)
    }
}

pub type History<'a> = Vec<(&'a Step, Status)>;

/// The history of all steps, and what is announced to subscribers.
pub fn history_and_notices(changed: &[(OrderId, Row)]) -> (History<'_>, Vec<Announcement<'_>>) {
    let (mut history, mut notices) = (Vec::new(), Vec::new());
    for (row, step) in changed.iter().flat_map(|(_, row)| row.steps.iter().map(move |step| (row, step))) {
        let (status, notice) = match &step.effect {
            Effect::AskCustomer => (Some(Status::Pending), None),
            Effect::Confirm => (Some(Status::Confirmed), Some(Notice::Confirmed)),
            Effect::Cancel(reason) => {
                let returns = step.returns(row.about.total);
                (Some(Status::Cancelled), Some(Notice::Cancelled(*reason, step.decline, returns)))
            }
            Effect::Ship(parcel) => {
                (Some(step.status), Some(Notice::Shipped(Sent::new(parcel, step.status))))
            }
            Effect::Correct(parcel) => {
                let sent = Sent { corrected: true, ..Sent::new(parcel, step.status) };
                (Some(step.status), Some(Notice::Shipped(sent)))
            }
            Effect::Deliver => (Some(Status::Delivered), Some(Notice::Delivered)),
            Effect::Refunded(refund) => (None, Some(Notice::Refunded(*refund))),
        };
        history.extend(status.map(|status| (step, status)));
        let announcement = |notice| Announcement {
            order: step.order,
            about: &row.about,
            version: step.version,
            card: step.card.as_ref().filter(|_| row.about.recipient.is_some()),
            notice,
        };
        notices.extend(notice.map(announcement));
    }
    (history, notices)
}
