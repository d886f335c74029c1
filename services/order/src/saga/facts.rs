//! Facts applied to sagas: lock the rows, apply the rule, write what changed.

use std::collections::HashMap;

use order_core::ids::OrderId;
use service::db::Connection;

use super::measured::{self, Happened};
use super::row::{Row, history_and_notices};
use super::store::{Lease, Progress};
use super::{Effect, Input, Refusal, State, fact_store, refund_store};
use crate::erasure;
use crate::events::publish::announce;
use crate::times::Times;

/// What was learned about an order, in the order in which it happened.
#[derive(Clone, Debug)]
pub struct Report {
    pub order: OrderId,
    pub facts: Vec<Input>,
    /// Set by a worker that holds the saga: writing its facts extends the lease, and releases it where
    /// nothing is left to do.
    pub lease: Option<Lease>,
}

/// A saga after a report.
#[derive(Clone, Debug)]
pub struct Reported {
    pub state: State,
    pub progress: Progress,
}

/// The outcome of a report.
pub enum Outcome {
    Applied(Box<Reported>),
    Refused(Refusal),
    UnknownOrder,
}

/// The outcome of a batch of reports.
pub struct Applied {
    /// For each report, in order.
    pub outcomes: Vec<Outcome>,
    /// The orders whose changes are to be made known after the commit.
    pub moved: Vec<OrderId>,
    /// To be counted after the commit.
    pub happened: Vec<Happened>,
}

/// Applies reports, one after the other, in the caller's transaction. `times` says how long an extended lease
/// lasts. A report with a refused fact changes nothing.
pub async fn apply(connection: &mut Connection, reports: &[Report], times: &Times) -> sqlx::Result<Applied> {
    let mut ids: Vec<OrderId> = reports.iter().map(|report| report.order).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut rows = fact_store::lock(connection, &ids).await?;
    let before: HashMap<OrderId, (State, i64)> =
        rows.iter().map(|(id, row)| (*id, (row.state.clone(), row.version))).collect();
    let untouched: HashMap<OrderId, Progress> =
        rows.iter().map(|(id, row)| (*id, row.progress.clone())).collect();
    let mut answers = Vec::with_capacity(reports.len());
    for report in reports {
        let answer = rows.get_mut(&report.order).map(|row| row.learn(report));
        answers.push(answer);
    }
    let mut changed: Vec<(OrderId, Row)> = rows
        .into_iter()
        .filter(|(id, row)| {
            before.get(id).is_none_or(|(state, _)| *state != row.state) || !row.steps.is_empty()
        })
        .map(|(id, mut row)| {
            // The card of an erased customer is not stored.
            let kept = row.about.recipient.is_some();
            let seen = |state: &State| {
                let (action, card) = (state.action.clone(), state.card.clone().filter(|_| kept));
                (state.status, state.payment, action, card, state.dispute, state.returned())
            };
            if before
                .get(&id)
                .is_some_and(|(old, version)| *version == row.version && seen(old) != seen(&row.state))
            {
                row.version += 1;
            }
            (id, row)
        })
        .collect();
    changed.sort_unstable_by_key(|(id, _)| *id);
    let steps = || changed.iter().flat_map(|(_, row)| &row.steps);
    let (history, notices) = history_and_notices(&changed);
    let written = fact_store::write(connection, &changed, &history, times).await?;
    let known = |id: &OrderId| before.get(id).map_or(&[][..], |(state, _)| state.refunds.as_slice());
    let refunds = changed.iter().flat_map(|(order, row)| {
        let old = known(order);
        row.state
            .refunds
            .iter()
            .filter(move |refund| !old.contains(refund))
            .map(move |refund| (*order, refund))
    });
    refund_store::write(connection, &refunds.collect::<Vec<_>>()).await?;
    // A refund may be of all that is left.
    let ends = |effect: &Effect| matches!(effect, Effect::Cancel(_) | Effect::Deliver | Effect::Refunded(_));
    let ended = steps().filter(|step| ends(&step.effect)).map(|step| step.order);
    erasure::store::forget_ended(connection, &ended.collect::<Vec<_>>()).await?;
    let succeeded = steps().filter_map(|step| match step.effect {
        Effect::Refunded(id) => Some((id, step.refunded.currency)),
        _ => None,
    });
    let succeeded = refund_store::mark_announced(connection, &succeeded.collect::<Vec<_>>()).await?;
    announce(connection, &notices, &succeeded).await?;
    let mut moved: Vec<OrderId> = steps().map(|step| step.order).collect();
    moved.dedup();
    let happened = changed.iter().filter_map(|(id, row)| {
        let (old, _) = before.get(id)?;
        let effects = row.steps.iter().map(|step| &step.effect);
        Some(measured::between(old, &row.state, effects, row.in_work))
    });
    let happened = happened.flatten().collect();
    let after = |(report, answer): (&Report, Option<Result<State, Refusal>>)| {
        let progress = written.get(&report.order).or(untouched.get(&report.order)).cloned();
        match (answer, progress) {
            (Some(Ok(state)), Some(progress)) => Outcome::Applied(Box::new(Reported { state, progress })),
            (Some(Err(refusal)), _) => Outcome::Refused(refusal),
            _ => Outcome::UnknownOrder,
        }
    };
    let outcomes = reports.iter().zip(answers).map(after).collect();
    Ok(Applied { outcomes, moved, happened })
}
