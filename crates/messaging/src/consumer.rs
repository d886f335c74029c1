//! From broker to effect: deliveries are applied in batches, each batch in one
//! transaction with its inbox rows, and acknowledged only after the commit.
//!
//! A fault of the database is not the event's: such events are held and tried again. An event that fails by
//! itself goes to a retry queue of this consumer, with growing pauses, and after the last one to its dead
//! letters. The other events are not delayed.

mod failed;
mod fault;
mod inbox;
mod trust;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use opentelemetry::metrics::Counter;
use service::batch::{MAX_BATCH, linger};
use service::db;
use service::failpoint;
use service::{Pulse, back_off, telemetry};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::failed::move_to;
pub use self::fault::ApplyError;
use self::fault::Fault;
use crate::envelope::Event;
use crate::outbox::Outbox;
use crate::topology::{Link, Topology, answered, name};

const PREFETCH: u16 = 2 * MAX_BATCH as u16;

/// For one transaction: more than PostgreSQL gives to any of its statements.
const APPLY_DEADLINE: Duration = Duration::from_secs(20);

/// A pass begins nothing new after this.
const PASS_DEADLINE: Duration = Duration::from_secs(30);

/// An idle consumer makes a pass this often.
const COME_ROUND: Duration = Duration::from_secs(5);

/// After this many events in a row took too long, and none succeeded, the others are not even tried.
const ENOUGH_SLOW: usize = 3;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long events are held for a database that is away. Then they go back to the queue, which counts as a delivery, until
/// it answers. RabbitMQ takes them back after half an hour.
const HOLD_FOR: Duration = Duration::from_secs(600);

/// Applies events in the transaction it is given.
pub trait Handler: Send + Sync + 'static {
    /// `events` are new to this consumer, in no promised order. A handler
    /// leaves event types alone that it doesn't know.
    fn apply(
        &self,
        connection: &mut db::Connection,
        events: &[Event],
    ) -> impl Future<Output = Result<(), ApplyError>> + Send;
}

pub(crate) async fn run(
    consumer: &'static str,
    topology: &Topology,
    outbox: &Outbox,
    handler: &impl Handler,
    caught_up: &AtomicBool,
    stop: &CancellationToken,
    pulse: &Pulse,
) {
    let applied =
        telemetry::counter("events.applied", "{event}", "Events applied, or known to be applied before.");
    let description = "Events that could not be applied, by the queue that they are in now.";
    let failed = telemetry::counter("events.put_aside", "{event}", description);
    failed.add(0, &[telemetry::label("queue", topology.dead_letters(consumer))]);
    let description = "Events that were not believed, and became dead letters.";
    let untrusted = telemetry::counter("events.untrusted", "{event}", description);
    trust::REASONS.iter().for_each(|reason| untrusted.add(0, &[telemetry::label("reason", *reason)]));
    let worker =
        Worker { consumer, topology, outbox, handler, caught_up, stop, pulse, applied, failed, untrusted };
    let mut warned = false;
    while !stop.is_cancelled() {
        pulse.beat();
        let work = async {
            // The broker counts an event that is taken from the queue and not applied as a failed delivery.
            worker.probe().await.context("the database does not take writes")?;
            worker.consume(&mut warned).await
        };
        if let Err(error) = work.await {
            // Logged once: the broker may be away for long.
            if !std::mem::replace(&mut warned, true) {
                tracing::warn!(error = format!("{error:#}"), "consumer.failed");
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
        }
    }
}

struct Worker<'a, H> {
    consumer: &'static str,
    topology: &'a Topology,
    outbox: &'a Outbox,
    handler: &'a H,
    /// Set when there is nothing left in the queue.
    caught_up: &'a AtomicBool,
    stop: &'a CancellationToken,
    pulse: &'a Pulse,
    applied: Counter<u64>,
    failed: Counter<u64>,
    untrusted: Counter<u64>,
}

/// A delivered event that is not acknowledged yet.
struct Held {
    event: Event,
    delivery: Delivery,
    /// How often it was tried by itself. Then it is no longer tried with others.
    tries: u32,
    again_at: Instant,
    /// When it last failed for a reason that may be the database's.
    doubted_at: Option<Instant>,
}

/// The result of a pass.
#[derive(Default)]
struct Pass {
    acknowledged: Vec<u64>,
    /// Whether any event went through.
    proved: bool,
    /// Whether an event that could go through did not.
    stuck: bool,
    /// Those that took too long, or failed for a reason that may be theirs or not; true when it is theirs: others went
    /// through since the time before.
    doubtful: Vec<(Held, ApplyError, bool)>,
}

impl<H: Handler> Worker<'_, H> {
    /// One connection's life. What was not acknowledged is delivered again.
    async fn consume(&self, warned: &mut bool) -> anyhow::Result<()> {
        let subscribed = tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            subscribed = self.subscribe() => subscribed?,
        };
        let (link, mut deliveries) = subscribed;
        *warned = false;
        tracing::info!("consumer.connected");
        let mut held: Vec<Held> = Vec::new();
        let (mut pause, mut stuck_since, mut proved_at) = (Duration::ZERO, None, None);
        while !self.stop.is_cancelled() {
            self.pulse.beat();
            let new = self.receive(&mut deliveries, &held, pause).await?;
            if new.is_empty() && held.is_empty() {
                continue;
            }
            let begun = Instant::now();
            failpoint::hit("consumer.received").await?;
            let pass = self.pass(&link, new, &mut held, &mut proved_at).await?;
            acknowledge(&link.channel, &pass.acknowledged, held.is_empty()).await?;
            if pass.proved || !pass.stuck {
                (pause, stuck_since) = (Duration::ZERO, None);
                linger(pass.acknowledged.len() > 1, begun.elapsed()).await;
                continue;
            }
            let since = *stuck_since.get_or_insert_with(Instant::now);
            anyhow::ensure!(since.elapsed() < HOLD_FOR, "the database is away for long: the events go back");
            pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        }
        link.close().await
    }

    /// A connection and the queue's deliveries.
    async fn subscribe(&self) -> anyhow::Result<(Link, Consumer)> {
        let link = self.topology.link().await?;
        self.topology.declare_exchange(&link.connection).await?;
        let queue = self.topology.queue(self.consumer);
        let cannot = || format!("cannot consume from {queue}");
        self.topology.declare(&link.connection, self.consumer).await.with_context(cannot)?;
        answered(link.channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        // A quorum queue without a leader does not answer until it has one.
        let consume = link.channel.basic_consume(name(&queue), name(""), options, arguments);
        let deliveries = answered(consume).await.with_context(cannot)?;
        Ok((link, deliveries))
    }

    /// The delivered events, as many as fit into a batch. Waits for work, but not for long; for all of
    /// `pause` when the held events made no progress.
    async fn receive(
        &self,
        deliveries: &mut Consumer,
        held: &[Held],
        pause: Duration,
    ) -> anyhow::Result<Vec<Delivery>> {
        let mut new = Vec::new();
        let free = MAX_BATCH.saturating_sub(held.iter().filter(|one| one.tries == 0).count());
        let drain = |deliveries: &mut Consumer, new: &mut Vec<Delivery>| {
            while new.len() < free
                && let Some(next) = deliveries.next().now_or_never()
            {
                new.push(next.context("the broker cancelled the consumer")??);
            }
            anyhow::Ok(())
        };
        if !pause.is_zero() {
            tokio::select! {
                () = self.stop.cancelled() => return Ok(new),
                () = tokio::time::sleep(pause) => {}
            }
        }
        drain(deliveries, &mut new)?;
        if !new.is_empty() || held.iter().any(|one| one.tries == 0) {
            return Ok(new);
        }
        let until = Instant::now() + COME_ROUND;
        let until = held.iter().map(|one| one.again_at).fold(until, Instant::min);
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep_until(until) => {
                // Nothing came for a while; what was delivered before and not acknowledged would have.
                if held.is_empty() {
                    self.caught_up.store(true, Ordering::Relaxed);
                }
            }
            next = deliveries.next(), if free > 0 => {
                new.push(next.context("the broker cancelled the consumer")??);
                drain(deliveries, &mut new)?;
            }
        }
        Ok(new)
    }

    /// Tries all that is due once, within [`PASS_DEADLINE`] and one more transaction. `held` has what is not
    /// finished.
    async fn pass(
        &self,
        link: &Link,
        new: Vec<Delivery>,
        held: &mut Vec<Held>,
        proved_at: &mut Option<Instant>,
    ) -> anyhow::Result<Pass> {
        let (until, mut pass) = (Instant::now() + PASS_DEADLINE, Pass::default());
        let (mut batch, tried): (Vec<_>, Vec<_>) =
            std::mem::take(held).into_iter().partition(|one| one.tries == 0);
        for delivery in new {
            let event = Event::from_delivery(&delivery);
            let distrust = event.as_ref().and_then(|event| self.topology.distrust(&delivery, &event.kind));
            if let (Some(event), None) = (event, &distrust) {
                batch.push(Held { event, delivery, tries: 0, again_at: Instant::now(), doubted_at: None });
                continue;
            }
            anyhow::ensure!(Instant::now() < until, "the broker is slow to take what is no event");
            match &distrust {
                Some(why) => self.dead_letter_untrusted(link, &delivery, why).await?,
                None => self.dead_letter_noise(link, &delivery).await?,
            }
            pass.acknowledged.push(delivery.delivery_tag);
        }
        let events: Vec<Event> = batch.iter().map(|one| one.event.clone()).collect();
        match self.apply(&events).await {
            Ok(()) => {
                pass.proved = !batch.is_empty();
                *proved_at = pass.proved.then(Instant::now).or(*proved_at);
                batch.iter().for_each(|one| self.count_applied(&one.event));
                pass.acknowledged.extend(batch.drain(..).map(|one| one.delivery.delivery_tag));
            }
            Err(error) if error.fault() == Fault::Store => {
                tracing::warn!(%error, events = events.len(), "consumer.paused");
                pass.stuck = true;
            }
            // One of them is bad. Each in a transaction of its own shows which.
            Err(_) => {}
        }
        let now = Instant::now();
        let (due, later): (Vec<_>, Vec<_>) = tried.into_iter().partition(|one| one.again_at <= now);
        held.extend(later);
        for one in batch.into_iter().chain(due) {
            let slow = !pass.proved && pass.doubtful.len() >= ENOUGH_SLOW;
            if slow || pass.stuck && !pass.proved || Instant::now() > until || self.stop.is_cancelled() {
                held.push(one);
                continue;
            }
            self.try_alone(link, one, held, &mut pass, proved_at).await?;
        }
        for (one, error, its_own) in std::mem::take(&mut pass.doubtful) {
            if !its_own {
                // No other event shows that it could be applied: it may be the database.
                tracing::warn!(%error, event.id = %one.event.id, event.action = one.event.kind, "consumer.paused");
                pass.stuck |= !pass.proved;
                held.push(one.later());
            } else if Instant::now() > until {
                held.push(one.later());
            } else {
                self.retry_or_dead_letter(link, &one, &error).await?;
                pass.acknowledged.push(one.delivery.delivery_tag);
            }
        }
        Ok(pass)
    }

    async fn try_alone(
        &self,
        link: &Link,
        mut one: Held,
        held: &mut Vec<Held>,
        pass: &mut Pass,
        proved_at: &mut Option<Instant>,
    ) -> anyhow::Result<()> {
        let Err(error) = self.apply(std::slice::from_ref(&one.event)).await else {
            pass.proved = true;
            *proved_at = Some(Instant::now());
            self.count_applied(&one.event);
            pass.acknowledged.push(one.delivery.delivery_tag);
            return Ok(());
        };
        match error.fault() {
            Fault::Event => {
                self.retry_or_dead_letter(link, &one, &error).await?;
                pass.acknowledged.push(one.delivery.delivery_tag);
            }
            Fault::Doubtful => {
                let before = one.doubted_at.replace(Instant::now());
                let its_own = before.zip(*proved_at).is_some_and(|(failed, proved)| proved > failed);
                pass.doubtful.push((one, error, its_own));
            }
            // Another transaction has the row: the others go on.
            Fault::Busy => held.push(one.later()),
            Fault::Store => {
                tracing::warn!(%error, events = 1, "consumer.paused");
                pass.stuck = true;
                held.push(one);
            }
        }
        Ok(())
    }

    /// The type, if this consumer gets it: anybody may have sent the message.
    fn count_applied(&self, event: &Event) {
        let kinds = self.topology.subscriptions.iter().filter(|(consumer, _)| *consumer == self.consumer);
        let kind = kinds.flat_map(|(_, kinds)| kinds.iter()).find(|kind| **kind == event.kind);
        self.applied.add(1, &[telemetry::label("event.type", kind.copied().unwrap_or("other"))]);
    }
}

impl Held {
    /// Tried alone from now on, at growing intervals.
    fn later(self) -> Self {
        let tries = self.tries + 1;
        let pause = back_off(FIRST_PAUSE, tries, LONGEST_PAUSE);
        Self { tries, again_at: Instant::now() + pause, ..self }
    }
}

/// `all`: nothing else is left of the delivered events.
async fn acknowledge(channel: &Channel, tags: &[u64], all: bool) -> anyhow::Result<()> {
    let last = tags.iter().max().copied().filter(|_| all);
    let (tags, multiple) = match &last {
        Some(last) => (std::slice::from_ref(last), true),
        None => (tags, false),
    };
    for tag in tags {
        answered(channel.basic_ack(*tag, BasicAckOptions { multiple })).await?;
    }
    Ok(())
}
