//! From broker to effect: deliveries are applied in batches, each batch in one
//! transaction with its inbox rows, and acknowledged only after the commit.
//!
//! A database that is away pauses the consumer and rejects nothing. An event
//! that fails by itself goes to a retry queue of this consumer with growing
//! pauses, and after the last to its dead letters; the rest flows on.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Context;
use futures_util::{FutureExt, StreamExt};
use lapin::Confirmation;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, Consumer};
use service::batch::MAX_BATCH;
use service::db;
use service::failpoint::reach;
use service::telemetry;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use crate::envelope::{self, Event};
use crate::outbox::Outbox;
use crate::topology::{RETRY_AFTER_SECONDS, Topology, name};

const PREFETCH: u16 = 2 * MAX_BATCH as u16;
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// Waits for the broker, but not forever.
async fn answered<T>(answer: impl Future<Output = lapin::Result<T>>) -> anyhow::Result<T> {
    let answer = tokio::time::timeout(ANSWER_DEADLINE, answer).await;
    Ok(answer.context("the broker did not answer in time")??)
}

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

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The event can't be applied as it is.
    #[error("{0}")]
    Rejected(String),
}

impl ApplyError {
    /// Nothing is wrong with the events: the same batch is tried again. A
    /// statement that took too long may be theirs.
    fn is_transient(&self) -> bool {
        let Self::Database(error) = self else { return false };
        service::db::is_transient(error) && !service::db::timed_out(error)
    }
}

pub(crate) async fn run(
    consumer: &'static str,
    topology: &Topology,
    outbox: &Outbox,
    handler: &impl Handler,
    stop: &CancellationToken,
) {
    let worker = Worker { consumer, topology, outbox, handler, stop };
    let mut warned = false;
    while !stop.is_cancelled() {
        if let Err(error) = worker.consume(&mut warned).await {
            // Said once: the broker may be away for long.
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
    stop: &'a CancellationToken,
}

impl<H: Handler> Worker<'_, H> {
    /// One connection's life. What was not acknowledged is delivered again.
    async fn consume(&self, warned: &mut bool) -> anyhow::Result<()> {
        let subscribed = tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            subscribed = self.subscribe() => subscribed?,
        };
        let (connection, channel, mut deliveries) = subscribed;
        *warned = false;
        tracing::info!("consumer.connected");
        let applied = telemetry::counter("events.applied");
        loop {
            let first = tokio::select! {
                () = self.stop.cancelled() => break,
                delivery = deliveries.next() => delivery.context("the broker cancelled the consumer")??,
            };
            let mut batch = vec![first];
            while batch.len() < MAX_BATCH
                && let Some(Some(delivery)) = deliveries.next().now_or_never()
            {
                batch.push(delivery?);
            }
            reach("consumer.received").await?;
            let last = batch[batch.len() - 1].delivery_tag;
            if !self.settle(&channel, &batch).await? {
                break;
            }
            // Every delivery up to the last is applied or confirmed elsewhere.
            let acknowledged = channel.basic_ack(last, BasicAckOptions { multiple: true });
            answered(acknowledged).await?;
            applied.add(batch.len() as u64, &[]);
        }
        answered(connection.close(200, "stopping".into())).await
    }

    /// A connection, its channel and the queue's deliveries.
    async fn subscribe(&self) -> anyhow::Result<(Connection, Channel, Consumer)> {
        let (connection, channel) = self.topology.connect().await?;
        answered(channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
        let queue = self.topology.queue(self.consumer);
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        // A quorum queue without a leader does not answer until it has one.
        let consume = channel.basic_consume(name(&queue), name(""), options, arguments);
        let deliveries = answered(consume).await.with_context(|| format!("cannot consume from {queue}"))?;
        Ok((connection, channel, deliveries))
    }

    /// Brings every delivery of the batch to an end; false when stopped before.
    async fn settle(&self, channel: &Channel, batch: &[Delivery]) -> anyhow::Result<bool> {
        let mut good: Vec<(Event, &BasicProperties)> = Vec::with_capacity(batch.len());
        for delivery in batch {
            match Event::from_delivery(delivery) {
                Some(event) => good.push((event, &delivery.properties)),
                None => {
                    let dead = self.topology.dead_letters(self.consumer);
                    let properties = envelope::failed(&delivery.properties, 0, "not an event");
                    tracing::error!(routing_key = %delivery.routing_key, queue = dead, "message.put_aside");
                    move_to(channel, &dead, properties, &delivery.data).await?;
                    count_put_aside(dead);
                }
            }
        }
        let events: Vec<Event> = good.iter().map(|(event, _)| event.clone()).collect();
        let Some(outcome) = self.apply_patiently(&events).await else {
            return Ok(false);
        };
        if outcome.is_ok() {
            return Ok(true);
        }
        // One of them is bad: each in a transaction of its own finds out which.
        for (event, properties) in good {
            let Some(outcome) = self.apply_patiently(std::slice::from_ref(&event)).await else {
                return Ok(false);
            };
            if let Err(error) = outcome {
                self.put_aside(channel, &event, properties, &error).await?;
            }
        }
        Ok(true)
    }

    /// Applies, again and again while the database is away. `None` when stopped.
    async fn apply_patiently(&self, events: &[Event]) -> Option<Result<(), ApplyError>> {
        let mut pause = Duration::from_millis(100);
        loop {
            match self.apply(events).await {
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, events = events.len(), "consumer.paused");
                    tokio::select! {
                        () = self.stop.cancelled() => return None,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                outcome => return Some(outcome),
            }
        }
    }

    /// Inbox rows, effects and new events in one transaction. An error at the
    /// commit leaves open whether it happened; the inbox makes it safe to repeat.
    async fn apply(&self, events: &[Event]) -> Result<(), ApplyError> {
        if events.is_empty() {
            return Ok(());
        }
        let mut transaction = service::db::begin(self.outbox.pool()).await?;
        let fresh = self.fresh(&mut transaction, events).await?;
        if !fresh.is_empty() {
            let span = tracing::info_span!("events.apply", otel.kind = "consumer", events = fresh.len());
            // A batch has many parents and a span has one: the first event's.
            telemetry::continue_traceparent(&span, fresh[0].traceparent.as_deref());
            self.handler.apply(&mut transaction, &fresh).instrument(span).await?;
        }
        reach("consumer.applied").await?;
        transaction.commit().await?;
        reach("consumer.committed").await?;
        self.outbox.wake();
        Ok(())
    }

    /// The events that this consumer has not applied before, each once.
    async fn fresh(&self, connection: &mut db::Connection, events: &[Event]) -> sqlx::Result<Vec<Event>> {
        let mut ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
        ids.sort_unstable(); // or two replicas with overlapping batches deadlock
        ids.dedup();
        let new = sqlx::query_scalar!(
            "INSERT INTO inbox (consumer, event_id) SELECT $1, id FROM UNNEST($2::uuid[]) AS id
             ON CONFLICT DO NOTHING RETURNING event_id",
            self.consumer,
            &ids,
        )
        .fetch_all(connection)
        .await?;
        let mut new: HashSet<Uuid> = new.into_iter().collect();
        Ok(events.iter().filter(|event| new.remove(&event.id)).cloned().collect())
    }

    async fn put_aside(
        &self,
        channel: &Channel,
        event: &Event,
        properties: &BasicProperties,
        error: &ApplyError,
    ) -> anyhow::Result<()> {
        let attempts = envelope::attempts(properties);
        let retry = usize::try_from(attempts).ok().and_then(|index| RETRY_AFTER_SECONDS.get(index));
        let queue = match (error, retry) {
            (ApplyError::Database(_), Some(seconds)) => {
                answered(self.topology.retry_queue(channel, self.consumer, *seconds)).await?
            }
            _ => self.topology.dead_letters(self.consumer),
        };
        tracing::error!(%error, event.id = %event.id, event.kind = event.kind, queue, "event.put_aside");
        let properties = envelope::failed(properties, attempts + 1, &error.to_string());
        move_to(channel, &queue, properties, &event.payload).await?;
        count_put_aside(queue);
        reach("consumer.put_aside").await?;
        Ok(())
    }
}

/// Publishes to one queue, never the exchange: other consumers had theirs. An
/// error leaves open whether the queue has it.
pub async fn move_to(
    channel: &Channel,
    queue: &str,
    properties: BasicProperties,
    body: &[u8],
) -> anyhow::Result<()> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let publish =
        async { channel.basic_publish(name(""), name(queue), options, body, properties).await?.await };
    let outcome = answered(publish).await?;
    anyhow::ensure!(matches!(outcome, Confirmation::Ack(None)), "{queue} did not take the event");
    Ok(())
}

fn count_put_aside(queue: String) {
    telemetry::counter("events.put_aside").add(1, &[telemetry::label("queue", queue)]);
}
