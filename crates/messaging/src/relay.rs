//! From outbox to broker: claim, publish with confirms, mark.
//!
//! The claim is a short lease, not a transaction held open over the network. A relay that dies leaves its
//! rows to the next one, which may publish them again: at least once. The inbox makes up for that.
//!
//! Each event type has a [`Lane`]. A queue that refuses its messages, or never confirms them, narrows and
//! pauses the lanes that lead to it and no other. A batch waits for its last confirms beside the next
//! batches.

mod batch;
mod lane;

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::FuturesUnordered;
use lapin::options::BasicPublishOptions;
use service::batch::{MAX_BATCH, linger};
use service::failpoint;
use service::{Pulse, back_off, telemetry};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::batch::{Counted, Outcome, Sent};
use self::lane::{FIRST_WINDOW, Lanes};
use crate::envelope::Event;
use crate::outbox::Outbox;
use crate::topology::{Link, Topology, name};

const POLL_EVERY: Duration = Duration::from_millis(500);
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// The limit for handing a batch to the socket. A broker without memory or disk takes nothing as long as that
/// lasts.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(5);

/// How long the next batch waits for this one's confirms.
const IN_STEP: Duration = Duration::from_millis(250);

/// Published and not confirmed, of all types.
const MOST_UNCONFIRMED: usize = 1024;

/// Between two tries to declare the queues of a consumer, or to find those of a service that starts.
const FIRST_TRY_AGAIN: Duration = Duration::from_secs(1);
const LAST_TRY_AGAIN: Duration = Duration::from_secs(5);

/// Publishes until `stop`, reconnecting after every failure.
pub(crate) async fn run(
    own: &'static str,
    topology: &Topology,
    outbox: &Outbox,
    stop: &CancellationToken,
    pulse: &Pulse,
) {
    let mut relay = Relay {
        own,
        topology,
        outbox,
        link: None,
        lanes: Lanes::default(),
        late: FuturesUnordered::new(),
        undeclared: Vec::new(),
        declaring: FuturesUnordered::new(),
        last_confirm: Instant::now(),
        counted: Counted::start(),
    };
    let mut warned = false;
    while !stop.is_cancelled() {
        pulse.beat();
        let pause = match relay.pass(stop).await {
            Ok(more) => {
                warned = false;
                if more { Duration::ZERO } else { POLL_EVERY }
            }
            Err(error) => {
                // Logged once: the broker may be away for long.
                if !std::mem::replace(&mut warned, true) {
                    tracing::warn!(error = format!("{error:#}"), "relay.failed");
                }
                POLL_EVERY
            }
        };
        relay.rest(pause, stop).await;
    }
    if let Some(link) = relay.link.take() {
        let _ = link.close().await;
    }
}

/// Measures until `stop` how many events wait and for how long, in seconds.
pub(crate) async fn watch(outbox: &Outbox, stop: &CancellationToken, pulse: &Pulse) {
    let waiting = telemetry::gauge("outbox.backlog", "{event}", "Events that wait to be published.");
    let lag = telemetry::gauge("outbox.lag", "s", "How long the oldest of them has waited.");
    let description = "Those that the broker did not take when they were last tried.";
    let paused = telemetry::gauge("outbox.paused", "{event}", description);
    loop {
        pulse.beat();
        match timeout(MEASURE_EVERY, crate::backlog(outbox.pool())).await {
            Ok(Ok(backlog)) => {
                waiting.record(backlog.waiting as f64, &[]);
                lag.record(backlog.oldest_seconds, &[]);
                paused.record(backlog.paused as f64, &[]);
            }
            Ok(Err(error)) => tracing::debug!(%error, "outbox.not_measured"),
            Err(_) => tracing::debug!("outbox.not_measured_in_time"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(MEASURE_EVERY) => {}
        }
    }
}

struct Relay<'a> {
    /// The consumer of the same service.
    own: &'static str,
    topology: &'a Topology,
    outbox: &'a Outbox,
    link: Option<Link>,
    lanes: Lanes,
    /// Batches that wait for their last confirms.
    late: FuturesUnordered<BoxFuture<'a, Outcome>>,
    /// Consumers whose queues may be missing: their events wait.
    undeclared: Vec<&'static str>,
    declaring: FuturesUnordered<BoxFuture<'a, (&'static str, u32, anyhow::Result<()>)>>,
    last_confirm: Instant,
    counted: Counted,
}

impl Relay<'_> {
    /// Claims and publishes one batch, within a bounded time whatever the broker does. Returns whether there
    /// is probably more.
    async fn pass(&mut self, stop: &CancellationToken) -> anyhow::Result<bool> {
        while self.waits() && self.next_outcome().now_or_never().is_some() {}
        if self.link.as_ref().is_some_and(|link| !link.connection.status().connected()) {
            self.link = None;
            anyhow::bail!("the connection to the broker ended");
        }
        if self.link.is_none() {
            tokio::select! {
                () = stop.cancelled() => return Ok(false),
                connected = self.connect() => connected?,
            }
        }
        if self.lanes.unconfirmed() >= MOST_UNCONFIRMED {
            return Ok(false);
        }
        let begun = Instant::now();
        let (events, more) = self.claim().await?;
        if events.is_empty() {
            return Ok(false);
        }
        failpoint::hit("relay.claimed").await?;
        let (sent, failure) = self.publish(&events).await;
        if sent.len() < events.len() {
            // What was sent has to be settled anyway.
            if let Err(error) = self.release(&events[sent.len()..]).await {
                tracing::warn!(%error, "relay.not_released"); // their lease runs out
            }
        }
        let mut batch =
            batch::settle(self.outbox.pool().clone(), sent, Instant::now(), self.counted.clone()).boxed();
        match timeout(IN_STEP, &mut batch).await {
            Ok(outcome) => self.record(outcome),
            Err(_) => self.late.push(batch),
        }
        if let Some(failure) = failure {
            self.link = None;
            return Err(failure);
        }
        if !more {
            linger(events.len() > 1, begun.elapsed()).await;
        }
        Ok(more)
    }

    async fn connect(&mut self) -> anyhow::Result<()> {
        let link = self.topology.link().await?;
        self.topology.declare_exchange(&link.connection).await?;
        tracing::info!("relay.connected");
        self.link = Some(link);
        self.last_confirm = Instant::now();
        // Those of the connection before, too.
        self.undeclared.clear();
        self.declaring.clear();
        for (consumer, _) in self.topology.subscriptions {
            self.declare(consumer, 0);
        }
        // Mostly they are all there in a moment; a queue without a leader delays its own events only.
        let until = Instant::now() + IN_STEP;
        while !self.undeclared.is_empty() && timeout_at(until, self.next_outcome()).await.is_ok() {}
        Ok(())
    }

    /// Has the queues of `consumer` declared, and holds back its events until then: `mandatory` counts a
    /// message as delivered when it reached one of two intended queues. Another service declares its own
    /// queues, unless they are missing and this account may.
    fn declare(&mut self, consumer: &'static str, failures: u32) {
        let Some(link) = &self.link else { return };
        let (own, topology, connection) = (self.own, self.topology, link.connection.clone());
        if !self.undeclared.contains(&consumer) {
            self.undeclared.push(consumer);
        }
        let declare = async move {
            if failures > 0 {
                tokio::time::sleep(back_off(FIRST_TRY_AGAIN, failures, LAST_TRY_AGAIN)).await;
            }
            let there = consumer != own && matches!(topology.declared(&connection, consumer).await, Ok(true));
            let declared = if there { Ok(()) } else { topology.declare(&connection, consumer).await };
            (consumer, failures, declared)
        };
        self.declaring.push(declare.boxed());
    }

    /// Sleeps until `pause` is over or there is something to do.
    async fn rest(&mut self, pause: Duration, stop: &CancellationToken) {
        let (outbox, until) = (self.outbox, Instant::now() + pause);
        loop {
            let (linked, waits) = (self.link.is_some(), self.waits());
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(until) => return,
                () = outbox.woken(), if linked => return,
                () = self.next_outcome(), if waits => {}
            }
        }
    }

    fn waits(&self) -> bool {
        !self.late.is_empty() || !self.declaring.is_empty()
    }

    /// Waits until one of the tasks beside the passes ends, and records its outcome.
    async fn next_outcome(&mut self) {
        tokio::select! {
            Some(outcome) = self.late.next(), if !self.late.is_empty() => self.record(outcome),
            Some((consumer, failures, declared)) = self.declaring.next(), if !self.declaring.is_empty() => {
                match declared {
                    Ok(()) => self.undeclared.retain(|name| *name != consumer),
                    Err(error) => {
                        // Logged once: the other service may be away for long.
                        if failures == 0 {
                            tracing::warn!(error = format!("{error:#}"), "relay.queue_not_declared");
                        }
                        self.declare(consumer, failures.saturating_add(1));
                    }
                }
            }
            else => {}
        }
    }

    fn record(&mut self, outcome: Outcome) {
        self.last_confirm = self.last_confirm.max(outcome.last_confirm.unwrap_or(self.last_confirm));
        for (kind, tally) in &outcome.tallies {
            self.lanes.record(kind, *tally, Instant::now());
        }
        let gone: Vec<_> = outcome.returned.iter().flat_map(|kind| self.topology.subscribers(kind)).collect();
        for consumer in gone {
            if !self.undeclared.contains(&consumer) {
                self.declare(consumer, 0);
            }
        }
        // A broker stops reading from a channel when a queue does not take its messages. A new channel gets
        // fewer of those.
        if outcome.unanswered && self.last_confirm <= outcome.published && self.link.take().is_some() {
            tracing::warn!("relay.nothing_confirmed");
        }
    }

    /// Up to [`MAX_BATCH`] events, a share of each waiting type, and whether there are probably more.
    async fn claim(&mut self) -> sqlx::Result<(Vec<Event>, bool)> {
        let held_back =
            self.topology.subscriptions.iter().filter(|(consumer, _)| self.undeclared.contains(consumer));
        let held_back: Vec<&str> = held_back.flat_map(|(_, kinds)| kinds.iter().copied()).collect();
        let credits = self.lanes.credits(Instant::now()).filter(|(kind, _)| !held_back.contains(kind));
        let credits = credits.chain(held_back.iter().map(|kind| (*kind, 0)));
        let (kinds, credits): (Vec<String>, Vec<i64>) =
            credits.map(|(kind, credit)| (kind.to_owned(), credit as i64)).unzip();
        let rows = sqlx::query!(
            r#"WITH RECURSIVE waiting AS (
                 (SELECT type FROM outbox WHERE published_at IS NULL ORDER BY type LIMIT 1)
                 UNION ALL
                 SELECT (SELECT o.type FROM outbox o WHERE o.published_at IS NULL AND o.type > waiting.type
                         ORDER BY o.type LIMIT 1)
                 FROM waiting WHERE waiting.type IS NOT NULL
             ), lanes AS MATERIALIZED (
                 SELECT waiting.type, COALESCE(known.credit, $3) AS credit
                 FROM waiting LEFT JOIN UNNEST($1::text[], $2::bigint[]) AS known (type, credit) USING (type)
                 WHERE waiting.type IS NOT NULL AND COALESCE(known.credit, $3) > 0
             ), shares AS MATERIALIZED (
                 SELECT type, LEAST(credit, GREATEST($4 / (SELECT count(*) FROM lanes), 1)) AS share FROM lanes
             )
             UPDATE outbox SET claimed_until = now() + interval '10 seconds'
             WHERE id = ANY(ARRAY(
                 SELECT picked.id FROM shares, LATERAL (
                     SELECT id FROM outbox
                     WHERE published_at IS NULL AND outbox.type = shares.type AND claimed_until < now()
                     ORDER BY id LIMIT shares.share FOR UPDATE SKIP LOCKED
                 ) picked
             ))
             RETURNING id, type, aggregate_id, aggregate_version, payload, traceparent,
                       (SELECT share FROM shares WHERE shares.type = outbox.type) AS "share!""#,
            &kinds,
            &credits,
            FIRST_WINDOW as i64,
            MAX_BATCH as i64,
        )
        .fetch_all(self.outbox.pool())
        .await?;
        let mut shares: HashMap<String, i64> = HashMap::new();
        let mut more = false;
        let events = rows.into_iter().map(|row| {
            let left = shares.entry(row.r#type.clone()).or_insert(row.share);
            *left -= 1;
            more |= *left == 0;
            Event {
                id: row.id,
                kind: row.r#type,
                aggregate_id: row.aggregate_id,
                aggregate_version: row.aggregate_version,
                payload: row.payload,
                traceparent: row.traceparent,
                forced: false,
            }
        });
        let mut events: Vec<Event> = events.collect();
        events.sort_by_key(|event| event.id);
        Ok((events, more))
    }

    /// The number of events that were handed over, the first of `events`, and the error if not all were.
    async fn publish(&mut self, events: &[Event]) -> (Vec<Sent>, Option<anyhow::Error>) {
        let mut sent = Vec::with_capacity(events.len());
        let Some(link) = &self.link else { return (sent, None) };
        let deadline = Instant::now() + PUBLISH_DEADLINE;
        for event in events {
            // Without a subscriber `mandatory` would send every event back.
            let mandatory = self.topology.subscribers(&event.kind).next().is_some();
            let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
            let (exchange, key) = (name(&self.topology.exchange()), name(&event.kind));
            let properties = event.properties(self.topology.account());
            let publish = link.channel.basic_publish(exchange, key, options, &event.payload, properties);
            let failure = match timeout_at(deadline, publish).await {
                Ok(Ok(confirm)) => {
                    self.lanes.sent(&event.kind);
                    sent.push(Sent { id: event.id, kind: event.kind.clone(), confirm });
                    continue;
                }
                Ok(Err(error)) => anyhow::Error::new(error).context("publishing failed"),
                Err(_) if link.connection.status().blocked() => {
                    anyhow::anyhow!("the broker is short of memory or disk and takes nothing")
                }
                Err(_) => anyhow::anyhow!("the broker takes nothing"),
            };
            return (sent, Some(failure));
        }
        (sent, None)
    }

    /// Releases what was claimed and not sent.
    async fn release(&mut self, unsent: &[Event]) -> sqlx::Result<()> {
        let ids: Vec<Uuid> = unsent.iter().map(|event| event.id).collect();
        sqlx::query!("UPDATE outbox SET claimed_until = '-infinity' WHERE id = ANY($1)", &ids)
            .execute(self.outbox.pool())
            .await?;
        Ok(())
    }
}
