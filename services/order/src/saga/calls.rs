//! The calls that a saga makes.

use std::time::SystemTime;

use order_core::ids::OrderId;

use super::answers;
use super::refund_turns;
use super::refunds::RefundBy;
use super::store::Job;
use super::{Call, Input};
use crate::clients::payment::{NewIntent, NoAnswer, Payment, Payments};
use crate::clients::product::Products;

#[derive(Clone)]
pub struct Calls {
    pub payments: Payments,
    pub products: Products,
}

impl Calls {
    /// Makes the next call and returns the facts that it brought.
    pub async fn make(&self, order: OrderId, job: &Job, call: Call) -> Vec<Input> {
        let intent = job.state.intent.as_ref();
        // Each attempt has a key of its own; after a crash in the middle, the same attempt uses it again.
        let attempt = format!("{}.{}", job.progress.version, job.progress.attempts);
        let total = job.state.total;
        let payment = intent.map(|intent| Payment { intent, order, total });
        vec![match (call, payment) {
            (Call::CreateIntent, _) => {
                let (placed_at, amount, method) =
                    (job.placed_at, job.state.total, job.payment_method.as_str());
                answers::creation(self.payments.create(NewIntent { order, placed_at, amount, method }).await)
            }
            (Call::ConfirmIntent, Some(payment)) => {
                answers::intent(self.payments.confirm(payment, &attempt).await)
            }
            (Call::RetrieveIntent, Some(payment)) => answers::intent(self.payments.retrieve(payment).await),
            (Call::CaptureIntent, Some(payment)) => {
                answers::intent(self.payments.capture(payment, &attempt).await)
            }
            (Call::CancelIntent, Some(payment)) => {
                answers::intent(self.payments.cancel(payment, &attempt).await)
            }
            (Call::Refund, Some(payment)) => return self.refund(payment, job).await,
            (Call::CommitStock, _) => answers::commit(self.products.commit(order).await),
            (_, None) => {
                tracing::error!(?call, "saga.intent_missing");
                Input::NoAnswer
            }
        }]
    }

    /// Asks for one open refund, after reading those that the provider has: a refund whose answer got lost is
    /// among them, however old it is.
    async fn refund(&self, payment: Payment<'_>, job: &Job) -> Vec<Input> {
        let due = refund_turns::due(&job.state, SystemTime::now()).unwrap_or_default();
        // In turns, so that one that stays open doesn't hold up the others.
        let turn = usize::try_from(job.progress.attempts).unwrap_or(0) % due.len().max(1);
        let Some(refund) = due.get(turn) else { return vec![Input::NoAnswer] };
        let Ok(made) = self.payments.refunds(payment).await else { return vec![Input::NoAnswer] };
        let known = made.iter().any(|made| made.ours == Some(refund.id));
        let mut facts = answers::refunds(made, &job.state);
        if !known && refund.by != RefundBy::Provider {
            let answer = self.payments.refund(payment, refund.id, refund.amount).await;
            facts.push(answers::refund(refund, answer));
        }
        facts
    }

    /// All facts that the provider has about the order's intent.
    pub async fn inquire(&self, order: OrderId, job: &Job) -> Vec<Input> {
        let Some(intent) = job.state.intent.as_ref() else { return vec![] };
        let payment = Payment { intent, order, total: job.state.total };
        let mut facts = vec![answers::intent(self.payments.retrieve(payment).await)];
        match self.payments.refunds(payment).await {
            Ok(made) => facts.extend(answers::refunds(made, &job.state)),
            Err(NoAnswer) => facts.push(Input::NoAnswer),
        }
        facts.extend(answers::dispute(self.payments.dispute(payment).await));
        facts
    }
}

/// The failpoint before a call, or an inquiry.
pub fn before(call: Option<Call>) -> &'static str {
    match call {
        Some(Call::CreateIntent) => "order.saga.create.before",
        Some(Call::ConfirmIntent) => "order.saga.confirm.before",
        Some(Call::RetrieveIntent) => "order.saga.retrieve.before",
        Some(Call::CommitStock) => "order.saga.commit.before",
        Some(Call::CaptureIntent) => "order.saga.capture.before",
        Some(Call::CancelIntent) => "order.saga.cancel.before",
        Some(Call::Refund) => "order.saga.refund.before",
        None => "order.saga.inquire.before",
    }
}

/// The failpoint between an answer and what it changes.
pub fn after(call: Option<Call>) -> &'static str {
    match call {
        Some(Call::CreateIntent) => "order.saga.create.after",
        Some(Call::ConfirmIntent) => "order.saga.confirm.after",
        Some(Call::RetrieveIntent) => "order.saga.retrieve.after",
        Some(Call::CommitStock) => "order.saga.commit.after",
        Some(Call::CaptureIntent) => "order.saga.capture.after",
        Some(Call::CancelIntent) => "order.saga.cancel.after",
        Some(Call::Refund) => "order.saga.refund.after",
        None => "order.saga.inquire.after",
    }
}
