//! Facts applied to sagas: lock the rows, apply the rule, write what changed.

use std::collections::HashMap;

use order_core::ids::{IntentId, OrderId};
use service::Money;
use service::db::Connection;
use service::money::Currency;
use uuid::Uuid;

use super::measured::{self, Happened};
use super::refund_store;
use super::store::{Lease, Progress};
use super::{Effect, Input, Phase, Refusal, State};
use crate::erasure;
use crate::events::publish::{About, Announcement, Notice, Sent, announce};
use crate::order::store::{action, card, currency, tracking};
use crate::order::{CancelReason, Card, DeclineReason, Dispute, PaymentStatus, Status};
use crate::times::Times;

/// What somebody learned about an order, in the order it happened.
#[derive(Clone, Debug)]
pub struct Report {
    pub order: OrderId,
    pub facts: Vec<Input>,
    /// Set by a worker that holds the saga: writing its facts extends the lease, and gives it up where nothing is left to do.
    pub lease: Option<Lease>,
}

/// A saga after a report.
#[derive(Clone, Debug)]
pub struct Reported {
    pub state: State,
    pub progress: Progress,
}

/// An order as it was locked, and as facts change it.
struct Row {
    about: About,
    state: State,
    /// Every change that is announced has a version of its own.
    version: i64,
    /// The version that was found.
    locked: i64,
    progress: Progress,
    /// Seconds since it was accepted, without those that it waited for its customer.
    in_work: f64,
    /// The time for paying is over: a worker may have stood still since it was not, or the other way round.
    overdue: bool,
    /// How long the reporting worker is to hold it from now on.
    lease: Option<Lease>,
    /// The changes to announce, oldest first.
    steps: Vec<Step>,
}

/// A change that is announced to subscribers.
struct Step {
    order: OrderId,
    version: i64,
    effect: Effect,
    /// Of the order, once all effects of its fact are there.
    status: Status,
    payment: PaymentStatus,
    decline: Option<DeclineReason>,
    card: Option<Card>,
    dispute: Option<Dispute>,
    refunded: Money,
}

impl Step {
    /// What goes back of an order that is cancelled by this, in minor units. None: the provider has not said what it took,
    /// or the money went back before, by a refund or by the customer's bank.
    fn returns(&self, total: Money) -> Option<i64> {
        match self.payment {
            PaymentStatus::Captured | PaymentStatus::Refunded => {
                let left = total.amount - self.refunded.amount;
                (left > 0 && self.dispute != Some(Dispute::Lost)).then_some(left)
            }
            PaymentStatus::Unknown => None,
            _ => Some(0),
        }
    }
}

/// What a report came to.
pub enum Outcome {
    Applied(Box<Reported>),
    Refused(Refusal),
    UnknownOrder,
}

/// What reports came to.
pub struct Applied {
    /// For each report, in order.
    pub outcomes: Vec<Outcome>,
    /// The orders whose changes are to be made known after the commit.
    pub moved: Vec<OrderId>,
    /// To be counted after the commit.
    pub happened: Vec<Happened>,
}

/// Applies reports, one after the other, in the caller's transaction. A lease that is extended lasts as `times` says.
/// A report with a fact that is refused changes nothing.
pub async fn apply(connection: &mut Connection, reports: &[Report], times: &Times) -> sqlx::Result<Applied> {
    let mut ids: Vec<OrderId> = reports.iter().map(|report| report.order).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut rows = lock(connection, &ids).await?;
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
            // Of a forgotten customer no card is stored.
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
    let written = write(connection, &changed, &history, times).await?;
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
    erasure::forget_ended(connection, &ended.collect::<Vec<_>>()).await?;
    let succeeded = steps().filter_map(|step| match step.effect {
        Effect::Refunded(id) => Some(id),
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

impl Row {
    /// The state after a report.
    fn learn(&mut self, report: &Report) -> Result<State, Refusal> {
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

/// The state of each order, its saga's row locked in the order of ids.
async fn lock(connection: &mut Connection, ids: &[OrderId]) -> sqlx::Result<HashMap<OrderId, Row>> {
    let rows = sqlx::query!(
        r#"SELECT s.order_id, s.phase, s.intent_id, s.pending_cancel, s.epoch, s.version AS saga_version, s.attempts,
                s.news, s.news_read, s.traceparent, s.deadline_at <= now() AS "overdue!",
                EXTRACT(epoch FROM COALESCE(s.waiting_since, now()) - s.waited - o.placed_at)::float8 AS "in_work!",
                o.user_id, o.currency, o.status, o.cancel_reason,
                o.payment_status, o.payment_action, o.decline_reason, o.card_brand, o.card_last4, o.dispute, o.tracking, o.total, o.version,
                o.shipping_address ->> 'name' AS recipient,
                COALESCE(o.shipping_address ->> 'city', o.shipping_address ->> 'region') AS town
         FROM orders.sagas s JOIN orders.orders o ON o.id = s.order_id
         WHERE s.order_id = ANY($1) ORDER BY s.order_id FOR UPDATE"#,
        ids as &[OrderId]
    )
    .fetch_all(&mut *connection)
    .await?;
    // Read after the lock, as a statement that waits sees other tables as they were before;
    // and only where there can be any.
    let paid = [PaymentStatus::Captured.as_str(), PaymentStatus::Refunded.as_str()];
    let paid = rows.iter().filter(|row| paid.contains(&row.payment_status.as_str()));
    let paid = paid.map(|row| Ok((row.order_id.into(), currency(&row.currency)?)));
    let paid: HashMap<OrderId, Currency> = paid.collect::<sqlx::Result<_>>()?;
    let mut refunds = refund_store::read(connection, &paid).await?;
    rows.into_iter()
        .map(|row| {
            let id = OrderId::from(row.order_id);
            let total = Money::new(row.total, currency(&row.currency)?);
            let state = State {
                status: Status::try_from(row.status)?,
                cancel_reason: row.cancel_reason.map(CancelReason::try_from).transpose()?,
                payment: PaymentStatus::try_from(row.payment_status)?,
                phase: Phase::try_from(row.phase)?,
                intent: row.intent_id.map(IntentId::from),
                pending_cancel: row.pending_cancel.map(CancelReason::try_from).transpose()?,
                dispute: row.dispute.map(Dispute::try_from).transpose()?,
                decline: row.decline_reason.map(DeclineReason::try_from).transpose()?,
                card: card(row.card_brand, row.card_last4),
                action: row.payment_action.map(action).transpose()?,
                tracking: row.tracking.map(tracking).transpose()?,
                total,
                refunds: refunds.remove(&id).unwrap_or_default(),
            };
            let progress = Progress {
                epoch: row.epoch,
                version: row.saga_version,
                attempts: row.attempts,
                reports: row.news,
                reports_read: row.news_read,
                given_up: false,
            };
            let about = About {
                user: row.user_id.into(),
                total,
                recipient: row.recipient,
                town: row.town,
                traceparent: row.traceparent,
            };
            let (version, lease, steps) = (row.version, None, Vec::new());
            let (overdue, in_work) = (row.overdue, row.in_work);
            let locked = version;
            Ok((id, Row { about, state, version, locked, progress, in_work, overdue, lease, steps }))
        })
        .collect()
}

/// Writes what changed, and returns how far each saga is now. One statement: it costs little more than each of its parts.
async fn write(
    connection: &mut Connection,
    changed: &[(OrderId, Row)],
    history: &[(&Step, Status)],
    times: &Times,
) -> sqlx::Result<HashMap<OrderId, Progress>> {
    if changed.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<OrderId> = changed.iter().map(|(id, _)| *id).collect();
    let column = |value: fn(&State) -> &'static str| -> Vec<String> {
        changed.iter().map(|(_, row)| value(&row.state).to_owned()).collect()
    };
    let optional = |value: fn(&State) -> Option<CancelReason>| -> Vec<Option<String>> {
        changed.iter().map(|(_, row)| value(&row.state).map(|reason| reason.as_str().to_owned())).collect()
    };
    let intents: Vec<Option<&IntentId>> = changed.iter().map(|(_, row)| row.state.intent.as_ref()).collect();
    let held: Vec<bool> = changed.iter().map(|(_, row)| row.lease.is_some()).collect();
    let busy: Vec<bool> = changed.iter().map(|(_, row)| row.state.next_call().is_some()).collect();
    let parcels =
        changed.iter().map(|(_, row)| row.state.tracking.as_ref().map(serde_json::to_value).transpose());
    let parcels: Vec<Option<serde_json::Value>> =
        parcels.collect::<Result<_, _>>().map_err(|error| sqlx::Error::Encode(error.into()))?;
    let actions =
        changed.iter().map(|(_, row)| row.state.action.as_ref().map(serde_json::to_value).transpose());
    let actions: Vec<Option<serde_json::Value>> =
        actions.collect::<Result<_, _>>().map_err(|error| sqlx::Error::Encode(error.into()))?;
    let declines = changed.iter().map(|(_, row)| row.state.decline.map(|reason| reason.as_str().to_owned()));
    let declines: Vec<Option<String>> = declines.collect();
    let disputes =
        changed.iter().map(|(_, row)| row.state.dispute.map(|dispute| dispute.as_str().to_owned()));
    let disputes: Vec<Option<String>> = disputes.collect();
    let card = |value: fn(&Card) -> &String| -> Vec<Option<String>> {
        changed.iter().map(|(_, row)| row.state.card.as_ref().map(|card| value(card).clone())).collect()
    };
    // Of an order that looks to its customer as before only the saga is written.
    let seen: Vec<Option<i64>> =
        changed.iter().map(|(_, row)| (row.version > row.locked).then_some(row.version)).collect();
    let noted: Vec<OrderId> = history.iter().map(|(step, _)| step.order).collect();
    let versions: Vec<i64> = history.iter().map(|(step, _)| step.version).collect();
    let statuses: Vec<String> = history.iter().map(|(_, status)| status.as_str().to_owned()).collect();
    let payments: Vec<String> = history.iter().map(|(step, _)| step.payment.as_str().to_owned()).collect();
    let refunded: Vec<i64> = history.iter().map(|(step, _)| step.refunded.amount).collect();
    // `next_at` is in an index, so it stays as it is where a worker goes on.
    let rows = sqlx::query!(
        r#"WITH ordered AS (
             UPDATE orders.orders o
             SET status = c.status, cancel_reason = c.reason, payment_status = c.payment, tracking = c.tracking,
                 payment_action = c.action, decline_reason = c.decline, dispute = c.dispute, refunded = c.refunded, version = c.version, updated_at = now(),
                 -- One that has forgotten its customer learns it no more.
                 card_brand = CASE WHEN o.shipping_address IS NOT NULL THEN c.card_brand END,
                 card_last4 = CASE WHEN o.shipping_address IS NOT NULL THEN c.card_last4 END
             FROM UNNEST($1::uuid[], $9::text[], $10::text[], $6::text[], $11::jsonb[], $12::bigint[], $13::bigint[],
                         $19::jsonb[], $20::text[], $21::text[], $22::text[], $23::text[])
                  AS c (id, status, reason, payment, tracking, version, refunded, action, decline, dispute,
                        card_brand, card_last4)
             WHERE o.id = c.id AND c.version IS NOT NULL
         ), noted AS (
             INSERT INTO orders.order_history (order_id, version, status, payment_status, refunded)
             SELECT * FROM UNNEST($14::uuid[], $15::bigint[], $16::text[], $17::text[], $18::bigint[])
         )
         UPDATE orders.sagas s
         SET phase = c.phase, intent_id = c.intent, pending_cancel = c.pending, busy = c.busy,
             version = s.version + 1, attempts = CASE WHEN s.phase = c.phase THEN s.attempts ELSE 0 END,
             next_at = CASE WHEN c.held THEN s.next_at ELSE now() END,
             deadline_at = CASE
                 WHEN c.action IS NULL THEN s.deadline_at
                 ELSE GREATEST(s.deadline_at, s.action_deadline_at) END,
             waited = s.waited
                 + CASE WHEN c.action IS NULL THEN COALESCE(now() - s.waiting_since, '0') ELSE '0' END,
             waiting_since = CASE WHEN c.action IS NOT NULL THEN COALESCE(s.waiting_since, now()) END,
             lease_until = CASE
                 WHEN NOT c.held THEN s.lease_until
                 WHEN c.busy OR s.news > s.news_read AND NOT orders.is_known(c.payment, s.news_of)
                     THEN now() + make_interval(secs => $8)
                 ELSE '-infinity' END,
             news_read = CASE WHEN orders.is_known(c.payment, s.news_of) THEN s.news ELSE s.news_read END,
             news_of = CASE WHEN orders.is_known(c.payment, s.news_of) THEN '{}' ELSE s.news_of END
         FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bool[], $6::text[], $7::bool[],
                     $19::jsonb[])
              AS c (id, phase, intent, pending, busy, payment, held, action)
         WHERE s.order_id = c.id
         RETURNING s.order_id, s.epoch, s.version, s.attempts, s.news, s.news_read,
                   c.held AND s.lease_until = '-infinity' AS "given_up!""#,
        &ids as &[OrderId],
        &column(|state| state.phase.as_str()),
        &intents as &[Option<&IntentId>],
        &optional(|state| state.pending_cancel) as &[Option<String>],
        &busy,
        &column(|state| state.payment.as_str()),
        &held,
        times.saga_lease.as_secs_f64(),
        &column(|state| state.status.as_str()),
        &optional(|state| state.cancel_reason) as &[Option<String>],
        &parcels as &[Option<serde_json::Value>],
        &seen as &[Option<i64>],
        &changed.iter().map(|(_, row)| row.state.returned().amount).collect::<Vec<i64>>(),
        &noted as &[OrderId],
        &versions,
        &statuses,
        &payments,
        &refunded,
        &actions as &[Option<serde_json::Value>],
        &declines as &[Option<String>],
        &disputes as &[Option<String>],
        &card(|card| &card.brand) as &[Option<String>],
        &card(|card| &card.last4) as &[Option<String>],
    )
    .fetch_all(&mut *connection)
    .await?;
    let progress = rows.into_iter().map(|row| {
        let progress = Progress {
            epoch: row.epoch,
            version: row.version,
            attempts: row.attempts,
            reports: row.news,
            reports_read: row.news_read,
            given_up: row.given_up,
        };
        (row.order_id.into(), progress)
    });
    Ok(progress.collect())
}

type History<'a> = Vec<(&'a Step, Status)>;

/// The history of all steps, and what is announced to subscribers.
fn history_and_notices(changed: &[(OrderId, Row)]) -> (History<'_>, Vec<Announcement<'_>>) {
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
