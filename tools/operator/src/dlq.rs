//! The dead letters of each consuming service: listing, replaying and deleting them.
//!
//! A dead letter is always in at least one place. To replay it, it is published to the service's own queue,
//! and taken out of the dead letters only after the broker has confirmed that. If the program is killed in
//! between, it is in both, which the inbox makes harmless.

pub mod dead_letter;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection};
use messaging::envelope;
use messaging::topology::Topology;

pub use dead_letter::DeadLetter;

/// Each reading of a message counts as a delivery that came back, and brokers from RabbitMQ 4.0 on drop a
/// message at the 21st. Long before, it is renewed.
/// <https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>
const RENEW_AT: i64 = 10;

const DEADLINE: Duration = Duration::from_secs(10);

/// Which dead letters are meant.
#[derive(Clone, Debug)]
pub enum Which {
    /// All with this id: an event's, or [`DeadLetter::id`] for a message that is not an event.
    Id(String),
    All,
}

impl Which {
    fn means(&self, dead_letter: &DeadLetter) -> bool {
        match self {
            Self::Id(id) => dead_letter.id.eq_ignore_ascii_case(id),
            Self::All => true,
        }
    }
}

/// The result of a listing.
#[derive(Debug, Default)]
pub struct Found {
    pub dead_letters: Vec<DeadLetter>,
    /// How many there were in all.
    pub total: usize,
}

/// What was done with the dead letters that were meant.
#[derive(Debug, Default)]
pub struct Moved {
    pub done: Vec<DeadLetter>,
    /// Left where they are: no events, which would come straight back.
    pub refused: Vec<DeadLetter>,
    /// Left where they are: older than what an inbox remembers, so that they could be applied twice.
    pub too_old: Vec<DeadLetter>,
    /// Left where they are: their sender may not publish such events, so they may be forged.
    pub untrusted: Vec<DeadLetter>,
}

/// The oldest `limit` dead letters of each of `services`, which stay as they are, in their order.
pub async fn list(topology: &Topology, services: &[&'static str], limit: usize) -> Result<Found> {
    let (connection, confirming) = topology.open().await?;
    let mut found = Found::default();
    for service in services {
        let dead = topology.dead_letters(service);
        let mut session = Session::open(&connection, &dead).await?;
        // All, whatever the limit: if only a part of a queue is returned, that part ends up after the rest.
        let held = session.hold().await?;
        found.dead_letters.extend(held.iter().take(limit).map(|delivery| DeadLetter::of(service, delivery)));
        found.total += held.len();
        renew_if_old(topology, &confirming, &mut session, &held).await?;
        session.close(&connection).await?;
    }
    within(connection.close(200, "done".into())).await?;
    Ok(found)
}

/// Replays dead letters to their service, with all attempts ahead of them. `force`: old ones, too, which are
/// applied even though it is no longer known whether they were; and those that were not trusted, which are
/// trusted then.
pub async fn replay(
    topology: &Topology,
    services: &[&'static str],
    which: &Which,
    force: bool,
) -> Result<Moved> {
    let (connection, confirming) = topology.open().await?;
    let mut moved = Moved::default();
    for service in services {
        let (dead, queue) = (topology.dead_letters(service), topology.queue(service));
        let mut session = Session::open(&connection, &dead).await?;
        // They return to their place when the session ends.
        let mut others = Vec::new();
        for _ in 0..session.ready {
            let Some(delivery) = session.next().await? else { break };
            let dead_letter = DeadLetter::of(service, &delivery);
            if !which.means(&dead_letter) {
                others.push(delivery);
                continue;
            }
            if !dead_letter.event {
                others.push(delivery);
                moved.refused.push(dead_letter);
                continue;
            }
            if dead_letter.forgotten && !force {
                others.push(delivery);
                moved.too_old.push(dead_letter);
                continue;
            }
            if dead_letter.untrusted && !force {
                others.push(delivery);
                moved.untrusted.push(dead_letter);
                continue;
            }
            let properties = envelope::revived(&delivery.properties, force, topology.account());
            messaging::move_to(&confirming, &queue, properties, &delivery.data).await?;
            session.remove(&delivery).await?;
            moved.done.push(dead_letter);
        }
        renew_if_old(topology, &confirming, &mut session, &others).await?;
        session.close(&connection).await?;
    }
    within(connection.close(200, "done".into())).await?;
    Ok(moved)
}

/// Deletes dead letters for good, and returns them.
pub async fn drop(topology: &Topology, services: &[&'static str], which: &Which) -> Result<Moved> {
    let (connection, confirming) = topology.open().await?;
    let mut moved = Moved::default();
    for service in services {
        let mut session = Session::open(&connection, &topology.dead_letters(service)).await?;
        let mut others = Vec::new();
        for _ in 0..session.ready {
            let Some(delivery) = session.next().await? else { break };
            let dead_letter = DeadLetter::of(service, &delivery);
            if which.means(&dead_letter) {
                session.remove(&delivery).await?;
                moved.done.push(dead_letter);
            } else {
                others.push(delivery);
            }
        }
        renew_if_old(topology, &confirming, &mut session, &others).await?;
        session.close(&connection).await?;
    }
    within(connection.close(200, "done".into())).await?;
    Ok(moved)
}

/// A channel on which dead letters are held: what is not removed returns to its place when the channel ends,
/// however it ends.
struct Session {
    channel: Channel,
    queue: String,
    /// Dead letters in the queue when the session was opened: no loop takes more.
    ready: usize,
    held: usize,
}

impl Session {
    async fn open(connection: &Connection, queue: &str) -> Result<Self> {
        let channel = within(connection.create_channel()).await?;
        let ready = ready(&channel, queue).await.with_context(|| {
            format!("no queue {queue}: are AMQP_URL and AMQP_NAMESPACE those of a shop that has run?")
        })?;
        Ok(Self { channel, queue: queue.to_owned(), ready, held: 0 })
    }

    async fn next(&mut self) -> Result<Option<Delivery>> {
        let options = BasicGetOptions { no_ack: false };
        let got = within(self.channel.basic_get(self.queue.as_str().into(), options)).await?;
        self.held += usize::from(got.is_some());
        Ok(got.map(|got| got.delivery))
    }

    async fn hold(&mut self) -> Result<Vec<Delivery>> {
        let mut held = Vec::new();
        while held.len() < self.ready
            && let Some(delivery) = self.next().await?
        {
            held.push(delivery);
        }
        Ok(held)
    }

    async fn remove(&mut self, delivery: &Delivery) -> Result<()> {
        within(self.channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default())).await?;
        self.held -= 1;
        Ok(())
    }

    /// Releases what is held, and waits a moment until it is back in the queue, so that the next reader sees
    /// it.
    async fn close(self, connection: &Connection) -> Result<()> {
        // Answered after all that was removed: an ack itself has no answer.
        let whole = ready(&self.channel, &self.queue).await? + self.held;
        within(self.channel.close(200, "done".into())).await?;
        let channel = within(connection.create_channel()).await?;
        for _ in 0..40 {
            // Not for long: somebody else may be taking them out at the same time.
            if ready(&channel, &self.queue).await? >= whole {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        within(channel.close(200, "done".into())).await
    }
}

/// Puts copies of all held dead letters after them, in their order, and removes the originals, when one has
/// been held often. If the program is killed in between, a dead letter is there twice.
async fn renew_if_old(
    topology: &Topology,
    confirming: &Channel,
    session: &mut Session,
    held: &[Delivery],
) -> Result<()> {
    if held.iter().all(|delivery| envelope::delivery_count(&delivery.properties) < RENEW_AT) {
        return Ok(());
    }
    for delivery in held {
        let properties = envelope::sent_by(as_new(&delivery.properties), topology.account());
        messaging::move_to(confirming, &session.queue, properties, &delivery.data).await?;
        session.remove(delivery).await?;
    }
    Ok(())
}

/// Without the broker's own count, which it keeps anew.
fn as_new(properties: &BasicProperties) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in properties.headers().clone().unwrap_or_default().inner() {
        if !["x-delivery-count", "x-acquired-count"].contains(&name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    properties.clone().with_headers(headers)
}

/// Messages that wait in the queue, of which there has to be one.
async fn ready(channel: &Channel, queue: &str) -> Result<usize> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let queue = within(channel.queue_declare(queue.into(), options, FieldTable::default())).await?;
    Ok(usize::try_from(queue.message_count()).unwrap_or(usize::MAX))
}

/// Waits for the broker, but not forever.
async fn within<T>(answer: impl Future<Output = lapin::Result<T>>) -> Result<T> {
    let answer = tokio::time::timeout(DEADLINE, answer).await;
    Ok(answer.context("the broker did not answer in time")??)
}

/// `all`, or the one that was named.
pub fn services(name: Option<&str>) -> Result<Vec<&'static str>> {
    let all: Vec<&str> = proto::events::SUBSCRIPTIONS.iter().map(|(service, _)| *service).collect();
    let chosen: Vec<_> = all.into_iter().filter(|service| name.is_none_or(|name| name == *service)).collect();
    ensure!(!chosen.is_empty(), "no service {}", name.unwrap_or_default());
    Ok(chosen)
}
