//! From outbox to broker: claim, publish with confirms, mark.
//!
//! The claim is a short lease, not a transaction held open over the network;
//! a relay that dies leaves its rows to the next one, which may publish them
//! again. That is the "at least once" that the inbox makes up for.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use lapin::Confirmation;
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Connection};
use service::batch::MAX_BATCH;
use service::failpoint::reach;
use service::telemetry;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::envelope::Event;
use crate::outbox::Outbox;
use crate::topology::{Topology, has_subscriber, name};

const POLL_EVERY: Duration = Duration::from_millis(500);
const MEASURE_EVERY: Duration = Duration::from_secs(5);
const CONFIRM_DEADLINE: Duration = Duration::from_secs(5);

/// Publishes until `stop`, reconnecting after every failure.
pub(crate) async fn run(topology: &Topology, outbox: &Outbox, stop: &CancellationToken) {
    let published = telemetry::counter("events.published");
    let mut link: Option<(Connection, Channel)> = None;
    let mut warned = false;
    loop {
        let step = async {
            if link.is_none() {
                link = tokio::select! {
                    () = stop.cancelled() => return Ok(0),
                    connected = topology.connect() => Some(connected?),
                };
                tracing::info!("relay.connected");
            }
            let (_, channel) = link.as_ref().context("not connected")?;
            publish_batch(channel, topology, outbox).await
        };
        let pause = match step.await {
            Ok(count) => {
                published.add(count as u64, &[]);
                warned = false;
                // A full batch: there is probably more.
                if count == MAX_BATCH { Duration::ZERO } else { POLL_EVERY }
            }
            Err(error) => {
                // Said once: the broker may be away for long.
                if !std::mem::replace(&mut warned, true) {
                    tracing::warn!(error = format!("{error:#}"), "relay.failed");
                }
                link = None;
                POLL_EVERY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = outbox.woken(), if link.is_some() => {}
        }
    }
}

/// Measures until `stop` how many events wait and for how long, in seconds.
pub(crate) async fn watch(outbox: &Outbox, stop: &CancellationToken) {
    let (backlog, lag) = (telemetry::gauge("outbox.backlog"), telemetry::gauge("outbox.lag"));
    loop {
        match crate::backlog(outbox.pool()).await {
            Ok((waiting, age)) => {
                backlog.record(waiting as f64, &[]);
                lag.record(age, &[]);
            }
            Err(error) => tracing::debug!(%error, "outbox.not_measured"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(MEASURE_EVERY) => {}
        }
    }
}

/// Publishes up to [`MAX_BATCH`] events and returns how many were confirmed.
async fn publish_batch(channel: &Channel, topology: &Topology, outbox: &Outbox) -> anyhow::Result<usize> {
    let events = claim(outbox).await?;
    if events.is_empty() {
        return Ok(0);
    }
    reach("relay.claimed").await?;
    let (confirmed, failure) =
        match tokio::time::timeout(CONFIRM_DEADLINE, publish(channel, topology, &events)).await {
            Ok(outcome) => outcome,
            Err(_) => (Vec::new(), Some(anyhow::anyhow!("the broker did not confirm in time"))),
        };
    let failed: Vec<Uuid> =
        events.iter().map(|event| event.id).filter(|id| !confirmed.contains(id)).collect();
    reach("relay.published").await?;
    sqlx::query!("UPDATE outbox SET published_at = now() WHERE id = ANY($1)", &confirmed)
        .execute(outbox.pool())
        .await?;
    reach("relay.marked").await?;
    if !failed.is_empty() {
        sqlx::query!("UPDATE outbox SET claimed_until = '-infinity' WHERE id = ANY($1)", &failed)
            .execute(outbox.pool())
            .await?;
    }
    failure.map_or(Ok(confirmed.len()), Err)
}

async fn claim(outbox: &Outbox) -> sqlx::Result<Vec<Event>> {
    let rows = sqlx::query!(
        "WITH due AS MATERIALIZED (
             SELECT id FROM outbox
             WHERE published_at IS NULL AND claimed_until < now()
             ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
         )
         UPDATE outbox SET claimed_until = now() + interval '10 seconds'
         FROM due WHERE outbox.id = due.id
         RETURNING outbox.id, type, aggregate_id, aggregate_version, payload, traceparent",
        MAX_BATCH as i64,
    )
    .fetch_all(outbox.pool())
    .await?;
    let events = rows.into_iter().map(|row| Event {
        id: row.id,
        kind: row.r#type,
        aggregate_id: row.aggregate_id,
        aggregate_version: row.aggregate_version,
        payload: row.payload,
        traceparent: row.traceparent,
    });
    let mut events: Vec<Event> = events.collect();
    events.sort_by_key(|event| event.id);
    Ok(events)
}

/// The ids that the broker confirmed, and the first failure if there was one.
async fn publish(
    channel: &Channel,
    topology: &Topology,
    events: &[Event],
) -> (Vec<Uuid>, Option<anyhow::Error>) {
    let mut failure = None;
    let mut pending = HashMap::with_capacity(events.len());
    for event in events {
        // Without a subscriber `mandatory` would send every event back.
        let mandatory = has_subscriber(&event.kind);
        let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
        let sent = channel
            .basic_publish(
                name(&topology.exchange()),
                name(&event.kind),
                options,
                &event.payload,
                event.properties(),
            )
            .await;
        match sent {
            Ok(confirm) => {
                pending.insert(event.id, confirm);
            }
            Err(error) => {
                failure = Some(anyhow::Error::new(error).context("publishing failed"));
                break;
            }
        }
    }
    let mut confirmed = Vec::with_capacity(pending.len());
    for (id, confirm) in pending {
        match confirm.await {
            // A message that was returned as unroutable is acked too, with the message inside.
            Ok(Confirmation::Ack(None)) => confirmed.push(id),
            Ok(other) => {
                let what = match other {
                    Confirmation::Ack(Some(_)) => "came back unroutable",
                    Confirmation::Nack(_) => "was refused by the broker",
                    _ => "was not confirmed",
                };
                failure = Some(anyhow::anyhow!("event {id} {what}"));
            }
            Err(error) => failure = Some(anyhow::Error::new(error).context("no confirmation")),
        }
    }
    (confirmed, failure)
}
