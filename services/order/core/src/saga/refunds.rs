//! What was taken and what goes back: the part of the rule that counts money.
//!
//! A refund counts from the moment when it is written, before the provider is asked, until it has failed: so
//! no two refunds can spend the same money. The provider knows it by our id. A refund that only the provider
//! knows was made there by hand.

use money::Money;

use super::{Effect, Phase, Refusal, State};
use crate::ids::{ProviderRefundId, RefundId};
use crate::order::{Dispute, PaymentStatus, Status};
use crate::words::words;

words! {
    RefundStatus {
        /// To be asked for, or not yet answered.
        Pending = "pending",
        Succeeded = "succeeded",
        /// For good: the amount is free again.
        Failed = "failed",
    }
}

words! {
    /// Who wanted a refund.
    RefundBy {
        Staff = "staff",
        /// The saga, of what is left of a cancelled order.
        Cancel = "cancel",
        /// Somebody at the provider, or a bank.
        Provider = "provider",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refund {
    pub id: RefundId,
    pub amount: Money,
    pub status: RefundStatus,
    pub by: RefundBy,
    /// Its id at the provider, once that has one.
    pub provider_id: Option<ProviderRefundId>,
}

/// What the provider says of a refund.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RefundReport {
    /// The id that we made it under.
    pub ours: Option<RefundId>,
    /// None: the provider refused to make it.
    pub provider_id: Option<ProviderRefundId>,
    pub amount: Money,
    pub status: RefundStatus,
    /// Its id here, if it was made at the provider.
    pub fresh: RefundId,
}

impl State {
    pub(super) fn captured(&self) -> Money {
        match self.payment {
            PaymentStatus::Captured | PaymentStatus::Refunded => self.total,
            _ => Money::zero(self.total.currency),
        }
    }

    /// What has gone back.
    pub fn returned(&self) -> Money {
        let sum = self.sum(|status| status == RefundStatus::Succeeded);
        if sum < self.total { sum } else { self.total }
    }

    /// Whether the customer's bank has the money, for a time or for good.
    pub fn is_money_disputed(&self) -> bool {
        matches!(self.dispute, Some(Dispute::Open | Dispute::Lost))
    }

    /// What was captured and is neither returned nor about to be. Nothing is left of what a bank took back.
    fn left(&self) -> Money {
        if self.dispute == Some(Dispute::Lost) {
            return Money::zero(self.total.currency);
        }
        let gone = self.sum(|status| status != RefundStatus::Failed);
        let left = self.captured().amount.saturating_sub(gone.amount).max(0);
        Money::new(left, self.total.currency)
    }

    /// Whether nothing that was paid is to stay here.
    pub(super) fn goes_back_whole(&self) -> bool {
        !self.captured().is_zero() && self.left().is_zero()
    }

    /// All refunds are in the order's currency; a sum that is too large to count is more than any order has.
    fn sum(&self, counts: impl Fn(RefundStatus) -> bool) -> Money {
        let counted = self.refunds.iter().filter(|refund| counts(refund.status));
        let sum = counted.fold(0, |sum: i64, refund| sum.saturating_add(refund.amount.amount));
        Money::new(sum, self.total.currency)
    }

    /// A repeated request finds its refund.
    pub(super) fn refund(&mut self, id: RefundId, amount: Option<Money>) -> Result<Vec<Effect>, Refusal> {
        if self.refunds.iter().any(|refund| refund.id == id) {
            branch!();
            return Ok(vec![]);
        }
        if self.is_money_disputed() {
            branch!();
            return Err(Refusal::Disputed);
        }
        let left = self.left();
        let amount = amount.unwrap_or(left);
        let possible = amount.amount > 0 && amount <= left;
        if !possible {
            branch!();
            return Err(Refusal::RefundExceedsCaptured);
        }
        branch!();
        let (status, by) = (RefundStatus::Pending, RefundBy::Staff);
        self.refunds.push(Refund { id, amount, status, by, provider_id: None });
        Ok(vec![])
    }

    pub(super) fn disputed(&mut self, dispute: Dispute, fresh: RefundId) -> Vec<Effect> {
        self.dispute = Some(dispute);
        if self.captured().is_zero() {
            branch!();
            return vec![];
        }
        if dispute == Dispute::Lost {
            // The provider will never do what it has not begun.
            for refund in &mut self.refunds {
                if refund.status == RefundStatus::Pending && refund.provider_id.is_none() {
                    branch!();
                    refund.status = RefundStatus::Failed;
                }
            }
        }
        self.balance(fresh);
        vec![]
    }

    pub(super) fn refund_reported(&mut self, report: RefundReport, fresh: RefundId) -> Vec<Effect> {
        let ours = |refund: &Refund| Some(refund.id) == report.ours;
        let theirs =
            |refund: &Refund| refund.provider_id.is_some() && refund.provider_id == report.provider_id;
        let known = self.refunds.iter().position(ours).or_else(|| self.refunds.iter().position(theirs));
        let index = match known {
            Some(index) => index,
            None if self.captured().is_zero() || report.provider_id.is_none() => {
                branch!();
                return vec![];
            }
            None => {
                branch!();
                let (id, amount) = (report.fresh, report.amount);
                let (status, by) = (RefundStatus::Pending, RefundBy::Provider);
                self.refunds.push(Refund { id, amount, status, by, provider_id: None });
                self.refunds.len() - 1
            }
        };
        let refund = &mut self.refunds[index];
        let before = refund.status;
        let made = refund.provider_id.is_some();
        // A late refusal is about one attempt, and says nothing about another attempt.
        let stale = made && (before == RefundStatus::Failed || report.provider_id.is_none());
        refund.provider_id = refund.provider_id.take().or(report.provider_id);
        refund.status = match (before, report.status) {
            _ if stale => {
                branch!();
                before
            }
            // A report that arrived after a newer one.
            (RefundStatus::Succeeded, RefundStatus::Pending) => {
                branch!();
                before
            }
            (_, now) => {
                branch!();
                now
            }
        };
        let done = before != RefundStatus::Succeeded && refund.status == RefundStatus::Succeeded;
        // `order.cancelled` has announced its own already.
        let announced = done && refund.by != RefundBy::Cancel;
        let effects = if announced { vec![Effect::Refunded(refund.id)] } else { vec![] };
        self.balance(fresh);
        effects
    }

    /// Brings payment and phase in line with what was returned. What is left of a cancelled order is
    /// refunded, under the id `fresh`.
    pub(super) fn balance(&mut self, fresh: RefundId) {
        debug_assert!(self.captured().amount > 0, "there are refunds only of what was captured");
        let all = self.returned() == self.total;
        self.payment = if all { PaymentStatus::Refunded } else { PaymentStatus::Captured };
        if self.status != Status::Cancelled {
            branch!();
            return;
        }
        let lost = self.dispute == Some(Dispute::Lost);
        self.phase = if all || lost { Phase::Settled } else { Phase::Refunding };
        let left = self.left();
        if !left.is_zero() {
            branch!();
            let (status, by) = (RefundStatus::Pending, RefundBy::Cancel);
            self.refunds.push(Refund { id: fresh, amount: left, status, by, provider_id: None });
        }
    }
}
