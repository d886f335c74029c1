//! Queues and their bindings. A service declares the queues that it consumes from, and its account may
//! declare no more.

use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};

use super::{Topology, answered, name};

/// Deliveries of one message, counting those that a crash or a lost
/// connection cut short, before the broker itself makes it a dead letter:
/// above any plausible number of restarts, below forever.
const DELIVERY_LIMIT: u32 = 100;

/// RabbitMQ 3.10 loses a quorum queue with its content if it was declared less than a second before the
/// broker was killed.
const SETTLES_IN: Duration = Duration::from_millis(1500);

/// For declaring what is used: a quorum queue has to find its leader first.
const DECLARE_DEADLINE: Duration = Duration::from_secs(10);

impl Topology {
    /// Declares and names the queue that returns an event to `consumer` after `seconds`. The first time, it
    /// gets a while to settle before an event goes there.
    ///
    /// Earlier releases called theirs `retry.1s` and had it answer by the default exchange.
    pub(crate) async fn retry_queue(
        &self,
        connection: &Connection,
        consumer: &str,
        seconds: u32,
    ) -> lapin::Result<String> {
        let queue = format!("{}.{consumer}.retry.in.{seconds}s", self.namespace);
        let known = || self.retry_queues.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(&queue) {
            return Ok(queue);
        }
        let mut arguments = dead_lettering(&self.dead_letter_exchange(consumer), &self.queue(consumer));
        arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(i64::from(seconds) * 1000));
        declare_queue(connection, &queue, arguments).await?;
        let channel = connection.create_channel().await?;
        bind(&channel, &queue, &self.dead_letter_exchange(consumer), &queue).await?;
        channel.close(200, "done".into()).await?;
        tokio::time::sleep(SETTLES_IN).await;
        known().insert(queue.clone());
        Ok(queue)
    }

    /// The exchange of all events. Where services have accounts of their own, none may make it: it is there.
    pub(crate) async fn declare_exchange(&self, connection: &Connection) -> anyhow::Result<()> {
        let exchange = self.exchange();
        let declare = async {
            if !exists(connection.create_channel().await?, Named::Exchange(&exchange)).await? {
                let channel = connection.create_channel().await?;
                declare_exchange(&channel, &exchange, ExchangeKind::Topic).await?;
                channel.close(200, "done".into()).await?;
            }
            Ok(())
        };
        answered(declare).await.context("declaring the exchange failed")
    }

    /// Declares the queues of `consumer` and what they are bound to, on channels of their own: one that does not
    /// answer, as a quorum queue without a leader may not, holds nothing else up.
    pub(crate) async fn declare(&self, connection: &Connection, consumer: &str) -> anyhow::Result<()> {
        let queue = self.queue(consumer);
        let declare = async {
            let (dead, exchange) = (self.dead_letters(consumer), self.dead_letter_exchange(consumer));
            let mut arguments = dead_lettering(&exchange, &dead);
            arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(i64::from(DELIVERY_LIMIT)));
            declare_queue(connection, &queue, arguments).await?;
            let channel = connection.create_channel().await?;
            for (_, kinds) in self.subscriptions.iter().filter(|(name, _)| *name == consumer) {
                for kind in *kinds {
                    bind(&channel, &queue, &self.exchange(), kind).await?;
                }
            }
            declare_exchange(&channel, &exchange, ExchangeKind::Direct).await?;
            bind(&channel, &queue, &exchange, &queue).await?;
            // The last: publishers take it as a sign that all is bound.
            declare_queue(connection, &dead, quorum()).await?;
            bind(&channel, &dead, &exchange, &dead).await?;
            channel.close(200, "done".into()).await
        };
        let declared = tokio::time::timeout(DECLARE_DEADLINE, declare).await;
        let declared = declared.with_context(|| format!("{queue} does not answer"))?;
        declared.with_context(|| format!("declaring {queue} failed"))
    }

    /// Whether `consumer` has declared its queues. The bindings are its own affair.
    pub(crate) async fn declared(&self, connection: &Connection, consumer: &str) -> anyhow::Result<bool> {
        let queue = self.queue(consumer);
        let check = async {
            for queue in [&queue, &self.dead_letters(consumer)] {
                if !exists(connection.create_channel().await?, Named::Queue(queue)).await? {
                    return lapin::Result::Ok(false);
                }
            }
            Ok(true)
        };
        let found = tokio::time::timeout(DECLARE_DEADLINE, check).await;
        Ok(found.with_context(|| format!("{queue} does not answer"))??)
    }
}

enum Named<'a> {
    Exchange(&'a str),
    Queue(&'a str),
}

/// A passive declaration, which needs no right. The channel is used up.
async fn exists(channel: Channel, what: Named<'_>) -> lapin::Result<bool> {
    let found = match what {
        Named::Exchange(exchange) => {
            let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
            channel
                .exchange_declare(name(exchange), ExchangeKind::Topic, options, FieldTable::default())
                .await
        }
        Named::Queue(queue) => {
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(name(queue), options, FieldTable::default()).await.map(drop)
        }
    };
    match found {
        Ok(()) => channel.close(200, "done".into()).await.map(|()| true),
        // Which has closed the channel.
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_missing(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(refusal)
        if *refusal.kind() == AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND))
}

async fn declare_exchange(channel: &Channel, exchange: &str, kind: ExchangeKind) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name(exchange), kind, options, FieldTable::default()).await
}

/// Takes an existing one as it is: an earlier release may have made it with other arguments, which a queue
/// keeps.
async fn declare_queue(connection: &Connection, queue: &str, arguments: FieldTable) -> lapin::Result<()> {
    if exists(connection.create_channel().await?, Named::Queue(queue)).await? {
        return Ok(());
    }
    let channel = connection.create_channel().await?;
    channel.queue_declare(name(queue), QueueDeclareOptions::durable(), arguments).await?;
    channel.close(200, "done".into()).await
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> lapin::Result<()> {
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(name(queue), name(exchange), name(key), options, none).await
}

/// Quorum queues write to disk before they confirm; classic ones don't.
/// <https://www.rabbitmq.com/docs/quorum-queues>
fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments
}

/// A quorum queue that hands on what expires or is delivered too often, itself
/// at least once. <https://www.rabbitmq.com/docs/quorum-queues#dead-lettering>
///
/// Not by the default exchange: whoever declares it would need the right to write there, and so into every queue.
fn dead_lettering(exchange: &str, to_queue: &str) -> FieldTable {
    let mut arguments = quorum();
    let mut set = |name: &str, value: &str| {
        arguments.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    set("x-dead-letter-exchange", exchange);
    set("x-dead-letter-routing-key", to_queue);
    set("x-dead-letter-strategy", "at-least-once");
    set("x-overflow", "reject-publish");
    arguments
}
