//! One order's worker: makes one call after the other and applies the answers, until the saga rests.

use std::time::{Duration, Instant, SystemTime};

use order_core::ids::OrderId;
use service::{failpoint, telemetry};
use time::OffsetDateTime;
use tracing::Instrument;
use uuid::Uuid;

use super::applier::NotApplied;
use super::calls;
use super::facts::{Report, Reported};
use super::refund_turns;
use super::runner::Sagas;
use super::store::{self, Job, Lease};
use super::webhooks::{Subscription, is_known};
use super::{Call, Input, IntentStatus, Phase, State};

const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Between two checks whether a customer has proved who they are.
const ACTION_PAUSE: Duration = Duration::from_secs(15);

/// An order that can't be paid because of a mistake of ours is kept for this long after it was placed: it may
/// prove not to be ours.
const LONGEST_KEPT: Duration = Duration::from_secs(3600);

/// How long a worker leaves a saga alone, and whether that is because its call failed.
struct Rest {
    pause: Duration,
    in_vain: bool,
}

impl Rest {
    const DONE: Self = Self { pause: Duration::ZERO, in_vain: false };
}

/// What a worker does after a step.
enum Next {
    /// The next call.
    Call,
    /// Reads the saga again first.
    Load,
    /// Releases it.
    Rest(Rest),
    /// Nothing: it is released, or another worker has it.
    Done,
}

/// An order that is worked on here.
struct Work {
    lease: Lease,
    /// The last known state; nothing when it has to be read.
    job: Option<Job>,
    /// How many reports there were at the last step.
    seen: i64,
    subscription: Option<Subscription>,
}

impl Sagas {
    /// Makes one call after the other until the saga rests. `job` is what is known of it already.
    pub(super) async fn work(&self, lease: Lease, job: Option<Job>) {
        let mut work = Work { lease, job, seen: i64::MAX, subscription: None };
        let worked = self.steps(&mut work).await;
        self.settle(work.subscription.take(), work.job.as_ref().map(|job| &job.state)).await;
        let rest = match worked {
            Ok(None) => return,
            Ok(Some(rest)) => rest,
            Err(error) => {
                tracing::warn!(%error, "saga.step_failed");
                // If that fails too, the lease runs out and somebody takes over.
                Rest { pause: LONGEST_PAUSE / 10, in_vain: true }
            }
        };
        let age = work.job.as_ref().map(|job| OffsetDateTime::now_utc() - job.placed_at);
        let is_young = age.is_none_or(|age| age < LONGEST_KEPT);
        if let Err(error) = self.release(lease, rest, work.seen, is_young).await {
            tracing::warn!(%error, "saga.not_released");
        }
    }

    /// How long to leave the saga alone, or nothing when it was released.
    async fn steps(&self, work: &mut Work) -> Result<Option<Rest>, NotApplied> {
        failpoint::hit("order.saga.leased").await?;
        while !self.stop.is_cancelled() {
            let mut job = match work.job.take() {
                Some(job) => job,
                None => {
                    let mut connection = self.pool.acquire().await?;
                    match store::load(&mut connection, work.lease, self.times.saga_lease).await? {
                        Some(job) => job,
                        None => return Ok(None), // somebody else's now
                    }
                }
            };
            work.seen = job.progress.reports;
            match &job.state.intent {
                Some(intent) if job.state.asks_again() => {
                    work.subscription.get_or_insert_with(|| self.reports.subscribe(intent));
                }
                // Somebody else has changed its state.
                _ => self.settle(work.subscription.take(), Some(&job.state)).await,
            }
            let next = self.step(work, &mut job).await;
            work.job = Some(job);
            match next? {
                Next::Call => {}
                Next::Load => work.job = None,
                Next::Rest(rest) => return Ok(Some(rest)),
                Next::Done => return Ok(None),
            }
        }
        Ok(Some(Rest::DONE))
    }

    /// One call and its facts.
    async fn step(&self, work: &mut Work, job: &mut Job) -> Result<Next, NotApplied> {
        let lease = work.lease;
        let call = job.state.next_call();
        // The next call answers most reports anyway. An inquiry follows for those that are left when the saga
        // rests.
        let unread = job.has_unread_reports() && matches!(call, None | Some(Call::Refund));
        if call.is_none() && !unread {
            return Ok(Next::Rest(Rest::DONE));
        }
        if call == Some(Call::Refund)
            && !unread
            && let Err(pause) = refund_turns::due(&job.state, SystemTime::now())
        {
            return Ok(Next::Rest(Rest { pause, in_vain: true }));
        }
        let facts = match call.filter(|_| !unread) {
            _ if job.is_overdue() && !unread => vec![Input::Deadline],
            call => self.ask(lease.order_id, job, call).await?,
        };
        let unanswered = facts.contains(&Input::NoAnswer);
        let before = (job.state.clone(), job.progress.clone());
        let (facts, after) = only_new(&job.state, facts);
        // From here on the saga may be settled, and no call asks about the intent by itself. So reports since
        // its last answer, or just before it, have to be written first.
        if !after.asks_again() && after.phase != Phase::Confirmed {
            self.settle(work.subscription.take(), None).await;
        }
        if !facts.is_empty() {
            // An inquiry leaves the lease to the load that follows it.
            let report = Report { order: lease.order_id, facts, lease: (!unread).then_some(lease) };
            match self.applier.apply_with_retries(report).await {
                Ok(Reported { state, progress }) => {
                    (job.state, job.progress) = (state, progress);
                    job.give_time();
                }
                Err(NotApplied::Refused(_) | NotApplied::UnknownOrder) => {
                    return Ok(Next::Rest(Rest { pause: LONGEST_PAUSE, in_vain: true }));
                }
                Err(error) => return Err(error),
            }
        }
        if job.state != before.0 {
            let (from, to) = (before.0.phase.as_str(), job.state.phase.as_str());
            tracing::info!(from, to, "saga.advanced");
        }
        if job.progress.released || job.progress.epoch != lease.epoch {
            return Ok(Next::Done);
        }
        if unread && !unanswered {
            store::mark_reports_read(&mut *self.pool.acquire().await?, lease.order_id, before.1.reports)
                .await?;
            return Ok(Next::Load);
        }
        let attempts = before.1.attempts;
        if job.state.action.is_some() && call == Some(Call::RetrieveIntent) {
            // A webhook says when the customer is back. That may take as long as they like, so it is not a
            // failed call.
            return Ok(Next::Rest(Rest { pause: ACTION_PAUSE, in_vain: false }));
        }
        if unanswered || job.state == before.0 {
            return Ok(Next::Rest(Rest { pause: pause(attempts), in_vain: true }));
        }
        Ok(Next::Call)
    }

    /// The facts of the call, or of an inquiry where there is none; and of the next call, where it is made at
    /// once.
    async fn ask(&self, order: OrderId, job: &Job, call: Option<Call>) -> sqlx::Result<Vec<Input>> {
        let began = Instant::now();
        let mut facts = self.call(order, job, call).await?;
        // Held money is not written by itself: the stock is asked for at once, and both are written together.
        // If another worker takes over in between, it gets both answers again.
        if let [Input::IntentReported(IntentStatus::Authorised)] = facts[..]
            && job.state.phase == Phase::Authorising
            && !job.is_overdue()
            && began.elapsed() < self.times.provider_call / 4
        {
            facts.extend(self.call(order, job, Some(Call::CommitStock)).await?);
        }
        Ok(facts)
    }

    async fn call(&self, order: OrderId, job: &Job, call: Option<Call>) -> sqlx::Result<Vec<Input>> {
        let span = tracing::info_span!("saga.call", otel.kind = "client", call = ?call);
        telemetry::continue_traceparent(&span, job.traceparent.as_deref());
        failpoint::hit(calls::before(call)).await?;
        let calls = async {
            match call {
                Some(call) => self.calls.make(order, job, call).await,
                None => self.calls.inquire(order, job).await,
            }
        };
        // There may be several calls; the lease is longer than one deadline.
        let answer = tokio::time::timeout(self.times.provider_call, calls.instrument(span)).await;
        failpoint::hit(calls::after(call)).await?;
        Ok(answer.unwrap_or_else(|_| vec![Input::NoAnswer]))
    }

    /// Ends a worker's subscription. Reports that it has not asked about are written to the database.
    async fn settle(&self, subscription: Option<Subscription>, state: Option<&State>) {
        let Some(subscription) = subscription else { return };
        let intent = subscription.intent().clone();
        for kind in subscription.end() {
            if state.is_some_and(|state| is_known(state.payment, &kind)) {
                continue;
            }
            for pause in [100, 500, 2000, 8000, 0] {
                match self.write_down(intent.as_str(), &kind).await {
                    Ok(()) => break,
                    Err(error) => tracing::warn!(%error, kind, "saga.report_not_written"),
                }
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    }

    async fn release(&self, lease: Lease, rest: Rest, seen: i64, is_young: bool) -> sqlx::Result<()> {
        let mut connection = self.pool.acquire().await?;
        let payments = &self.calls.payments;
        let our_fault = payments.is_key_refused() || is_young && payments.is_our_mistake(lease.order_id);
        store::release(&mut connection, lease, rest.pause, rest.in_vain, seen, our_fault).await
    }
}

/// The facts that change something, and the state after them. An inquiry brings much that is known. If a slow
/// worker wrongly takes a fact for known, the next one reports it again.
fn only_new(state: &State, facts: Vec<Input>) -> (Vec<Input>, State) {
    let mut state = state.clone();
    let mut new = Vec::with_capacity(facts.len());
    for fact in facts {
        match state.clone().apply(fact.clone(), Uuid::now_v7().into()) {
            Ok((next, _))
                if matches!(fact, Input::RefundReported(_) | Input::Disputed(_) | Input::NoAnswer)
                    && next == state =>
            {
                continue;
            }
            Ok((next, _)) => state = next,
            Err(_) => {}
        }
        new.push(fact);
    }
    (new, state)
}

/// 100 ms, doubling up to ten seconds.
fn pause(attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(0).min(10);
    (Duration::from_millis(100) * 2u32.pow(doublings)).min(LONGEST_PAUSE)
}
