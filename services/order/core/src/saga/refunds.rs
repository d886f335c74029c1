//! What was taken and what goes back: the part of the rule that counts money.
//!
//! A refund counts from the moment it is written, before the provider is asked,
//! until it has failed: so no two can spend the same money. The provider knows
//! it by our id; one that it knows and we don't was made there by hand.

use uuid::Uuid;

use super::{Effect, Phase, Refusal, State};
use crate::order::{PaymentStatus, Status};
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
    pub id: Uuid,
    /// Minor units.
    pub amount: i64,
    pub status: RefundStatus,
    pub by: RefundBy,
    /// Its id at the provider, once that has one.
    pub provider_id: Option<String>,
}

/// What the provider says of a refund.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RefundReport {
    /// The id that we made it under.
    pub ours: Option<Uuid>,
    /// None: the provider refused to make it.
    pub provider_id: Option<String>,
    pub amount: i64,
    pub status: RefundStatus,
    /// Its id here, if it was made at the provider.
    pub fresh: Uuid,
}

impl State {
    pub(super) fn captured(&self) -> i64 {
        match self.payment {
            PaymentStatus::Captured | PaymentStatus::Refunded => self.total,
            _ => 0,
        }
    }

    /// What has gone back, in minor units.
    pub fn returned(&self) -> i64 {
        self.sum(|status| status == RefundStatus::Succeeded).min(self.total)
    }

    /// What was captured and is neither returned nor about to be.
    fn left(&self) -> i64 {
        (self.captured() - self.sum(|status| status != RefundStatus::Failed)).max(0)
    }

    fn sum(&self, counts: impl Fn(RefundStatus) -> bool) -> i64 {
        self.refunds.iter().filter(|refund| counts(refund.status)).map(|refund| refund.amount).sum()
    }

    /// A repeated request finds its refund.
    pub(super) fn refund(&mut self, id: Uuid, amount: Option<i64>) -> Result<Vec<Effect>, Refusal> {
        if self.refunds.iter().any(|refund| refund.id == id) {
            branch!();
            return Ok(vec![]);
        }
        let left = self.left();
        let amount = amount.unwrap_or(left);
        if amount < 1 || amount > left {
            branch!();
            return Err(Refusal::RefundExceedsCaptured);
        }
        branch!();
        let (status, by) = (RefundStatus::Pending, RefundBy::Staff);
        self.refunds.push(Refund { id, amount, status, by, provider_id: None });
        Ok(vec![])
    }

    pub(super) fn refund_reported(&mut self, report: RefundReport, fresh: Uuid) -> Vec<Effect> {
        let ours = |refund: &Refund| Some(refund.id) == report.ours;
        let theirs =
            |refund: &Refund| refund.provider_id.is_some() && refund.provider_id == report.provider_id;
        let known = self.refunds.iter().position(ours).or_else(|| self.refunds.iter().position(theirs));
        let index = match known {
            Some(index) => index,
            None if self.captured() == 0 || report.provider_id.is_none() => {
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
        // A late refusal is of an attempt, and says nothing of what another one made.
        let stale = made && (before == RefundStatus::Failed || report.provider_id.is_none());
        refund.provider_id = refund.provider_id.take().or(report.provider_id);
        refund.status = match (before, report.status) {
            _ if stale => {
                branch!();
                before
            }
            // A report that was overtaken.
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

    /// Brings payment and phase in line with what was returned; what is left of
    /// a cancelled order goes back, under the id `fresh`.
    pub(super) fn balance(&mut self, fresh: Uuid) {
        debug_assert!(self.captured() > 0, "there are refunds only of what was captured");
        let all = self.returned() == self.total;
        self.payment = if all { PaymentStatus::Refunded } else { PaymentStatus::Captured };
        if self.status != Status::Cancelled {
            branch!();
            return;
        }
        self.phase = if all { Phase::Settled } else { Phase::Refunding };
        let left = self.left();
        if left > 0 {
            branch!();
            let (status, by) = (RefundStatus::Pending, RefundBy::Cancel);
            self.refunds.push(Refund { id: fresh, amount: left, status, by, provider_id: None });
        }
    }
}
