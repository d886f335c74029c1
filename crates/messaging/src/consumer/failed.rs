//! An event that could not be applied goes to a retry queue, and in the end to the dead letters.

use lapin::message::Delivery;
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Channel, Confirmation};
use service::{failpoint, telemetry};

use super::trust::Distrust;
use super::{ApplyError, Handler, Held, Worker};
use crate::envelope;
use crate::topology::{Link, RETRY_AFTER_SECONDS, answered, name};

/// Tries of an event that took too long each time, most of them two minutes apart: four hours.
const SLOW_ATTEMPTS: i64 = 120;

impl<H: Handler> Worker<'_, H> {
    pub(super) async fn retry_or_dead_letter(
        &self,
        link: &Link,
        one: &Held,
        error: &ApplyError,
    ) -> anyhow::Result<()> {
        let (event, properties) = (&one.event, &one.delivery.properties);
        let attempts = envelope::attempts(properties);
        let retry = usize::try_from(attempts).ok().and_then(|index| RETRY_AFTER_SECONDS.get(index));
        // An event that takes too long may take less in an hour: a slow disk is not the event's fault.
        let slow = matches!(error, ApplyError::TookTooLong)
            || matches!(error, ApplyError::Database(error) if service::db::timed_out(error));
        let retry = retry.or_else(|| RETRY_AFTER_SECONDS.last().filter(|_| slow && attempts < SLOW_ATTEMPTS));
        let queue = match (error, retry) {
            (ApplyError::Database(_) | ApplyError::TookTooLong, Some(seconds)) => {
                let declared = self.topology.retry_queue(&link.connection, self.consumer, *seconds);
                answered(declared).await?
            }
            _ => self.topology.dead_letters(self.consumer),
        };
        tracing::error!(%error, event.id = %event.id, event.action = event.kind, queue, "event.put_aside");
        let properties = envelope::failed(properties, attempts + 1, &error.to_string());
        self.hand_over(&link.channel, &queue, properties, &event.payload).await?;
        self.failed.add(1, &[telemetry::label("queue", queue)]);
        failpoint::hit("consumer.put_aside").await?;
        Ok(())
    }

    pub(super) async fn dead_letter_noise(&self, link: &Link, delivery: &Delivery) -> anyhow::Result<()> {
        let properties = envelope::failed(&delivery.properties, 0, "not an event");
        self.dead_letter(link, delivery, properties, "not an event").await
    }

    /// A message that is not what it claims: nothing of it is applied.
    pub(super) async fn dead_letter_untrusted(
        &self,
        link: &Link,
        delivery: &Delivery,
        why: &Distrust,
    ) -> anyhow::Result<()> {
        let properties = envelope::untrusted(&delivery.properties, &why.error);
        self.dead_letter(link, delivery, properties, &why.error).await?;
        self.untrusted.add(1, &[telemetry::label("reason", why.reason)]);
        Ok(())
    }

    async fn dead_letter(
        &self,
        link: &Link,
        delivery: &Delivery,
        properties: BasicProperties,
        error: &str,
    ) -> anyhow::Result<()> {
        let dead = self.topology.dead_letters(self.consumer);
        tracing::error!(routing_key = %delivery.routing_key, queue = dead, error, "message.put_aside");
        self.hand_over(&link.channel, &dead, properties, &delivery.data).await?;
        self.failed.add(1, &[telemetry::label("queue", dead)]);
        Ok(())
    }

    /// To a queue of this consumer, by the exchange that only its account may write to. The broker checks who
    /// sends it now; the first sender does not count any more.
    async fn hand_over(
        &self,
        channel: &Channel,
        queue: &str,
        properties: BasicProperties,
        body: &[u8],
    ) -> anyhow::Result<()> {
        let properties = envelope::sent_by(properties, self.topology.account());
        publish(channel, &self.topology.dead_letter_exchange(self.consumer), queue, properties, body).await
    }
}

/// Publishes to one queue and not to the exchange: other consumers have their copies. An error leaves open
/// whether the queue has it. Only an administrator's account may.
pub async fn move_to(
    channel: &Channel,
    queue: &str,
    properties: BasicProperties,
    body: &[u8],
) -> anyhow::Result<()> {
    publish(channel, "", queue, properties, body).await
}

async fn publish(
    channel: &Channel,
    exchange: &str,
    queue: &str,
    properties: BasicProperties,
    body: &[u8],
) -> anyhow::Result<()> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let publish =
        async { channel.basic_publish(name(exchange), name(queue), options, body, properties).await?.await };
    let outcome = answered(publish).await?;
    anyhow::ensure!(matches!(outcome, Confirmation::Ack(None)), "{queue} did not take the event");
    Ok(())
}
