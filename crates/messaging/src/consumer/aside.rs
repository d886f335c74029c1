//! What could not be applied goes to a retry queue, and in the end to the dead letters.

use lapin::message::Delivery;
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Channel, Confirmation};
use service::{failpoint, telemetry};

use super::{ApplyError, Handler, Held, Worker};
use crate::envelope;
use crate::topology::{RETRY_AFTER_SECONDS, answered, name};

/// Tries of an event that took too long each time, most of them two minutes apart: four hours.
const SLOW_ATTEMPTS: i64 = 120;

impl<H: Handler> Worker<'_, H> {
    pub(super) async fn put_aside(
        &self,
        channel: &Channel,
        one: &Held,
        error: &ApplyError,
    ) -> anyhow::Result<()> {
        let (event, properties) = (&one.event, &one.delivery.properties);
        let attempts = envelope::attempts(properties);
        let retry = usize::try_from(attempts).ok().and_then(|index| RETRY_AFTER_SECONDS.get(index));
        // What takes too long may take less in an hour: a slow disk is no fault of the event.
        let slow = matches!(error, ApplyError::TookTooLong)
            || matches!(error, ApplyError::Database(error) if service::db::timed_out(error));
        let retry = retry.or_else(|| RETRY_AFTER_SECONDS.last().filter(|_| slow && attempts < SLOW_ATTEMPTS));
        let queue = match (error, retry) {
            (ApplyError::Database(_) | ApplyError::TookTooLong, Some(seconds)) => {
                let declared = self.topology.retry_queue(channel, self.consumer, *seconds);
                answered(declared).await?
            }
            _ => self.topology.dead_letters(self.consumer),
        };
        tracing::error!(%error, event.id = %event.id, event.action = event.kind, queue, "event.put_aside");
        let properties = envelope::failed(properties, attempts + 1, &error.to_string());
        move_to(channel, &queue, properties, &event.payload).await?;
        self.put_aside.add(1, &[telemetry::label("queue", queue)]);
        failpoint::hit("consumer.put_aside").await?;
        Ok(())
    }

    pub(super) async fn put_aside_noise(&self, channel: &Channel, delivery: &Delivery) -> anyhow::Result<()> {
        let dead = self.topology.dead_letters(self.consumer);
        let properties = envelope::failed(&delivery.properties, 0, "not an event");
        tracing::error!(routing_key = %delivery.routing_key, queue = dead, "message.put_aside");
        move_to(channel, &dead, properties, &delivery.data).await?;
        self.put_aside.add(1, &[telemetry::label("queue", dead)]);
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
