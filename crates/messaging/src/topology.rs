//! Who subscribes to what, and the queues that carry it.
//!
//! Every process declares all of it before it publishes: `mandatory` counts a
//! message as delivered when it reached one of two intended queues, so a
//! missing binding would lose events silently.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use lapin::options::{ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};

pub const ORDER_PLACED: &str = "order.placed.v1";
pub const ORDER_CONFIRMED: &str = "order.confirmed.v1";
pub const ORDER_CANCELLED: &str = "order.cancelled.v1";
pub const ORDER_SHIPPED: &str = "order.shipped.v1";
pub const ORDER_DELIVERED: &str = "order.delivered.v1";
pub const ORDER_REFUNDED: &str = "order.refunded.v1";
pub const PRODUCT_UPDATED: &str = "product.updated.v1";
pub const USER_REGISTERED: &str = "user.registered.v1";
pub const USER_DELETED: &str = "user.deleted.v1";

/// A consuming service and the event types it gets.
pub const SUBSCRIPTIONS: [(&str, &[&str]); 3] = [
    (
        "user",
        &[ORDER_PLACED, ORDER_CONFIRMED, ORDER_CANCELLED, ORDER_SHIPPED, ORDER_DELIVERED, ORDER_REFUNDED],
    ),
    ("product", &[ORDER_CANCELLED, ORDER_REFUNDED]),
    ("order", &[PRODUCT_UPDATED, USER_DELETED]),
];

/// Seconds that a failed event waits before its next try; after the last it is
/// a dead letter. A queue each, as a quorum queue expires messages at its head
/// only, and made when it is first needed: most never are.
pub(crate) const RETRY_AFTER_SECONDS: [u32; 4] = [1, 5, 30, 120];

/// Deliveries of one message, counting those that a crash or a lost
/// connection cut short, before the broker itself makes it a dead letter:
/// above any plausible number of restarts, below forever.
const DELIVERY_LIMIT: u32 = 100;

/// Bytes of one AMQP frame.
const FRAME_MAX: u32 = 16 * 1024;

/// For opening a connection, which takes milliseconds. lapin 4.12 may never tell that one was cut in the middle of its
/// handshake (about 1 in 100 that are), so this is also how long such a connection holds up the events of whoever wanted it.
const OPEN_DEADLINE: Duration = Duration::from_secs(4);

/// Each opening that is given up leaves lapin's thread and socket behind until the broker answers or ends. A broker that says
/// nothing for long gets longer each time, up to this.
const LONGEST_OPEN_DEADLINE: Duration = Duration::from_secs(16);

/// RabbitMQ 3.10 forgets a quorum queue, with what is in it, that was declared less than a second before the broker was killed.
const SETTLES_IN: Duration = Duration::from_millis(1500);

/// For declaring what is used: a quorum queue has to find its leader first.
const DECLARE_DEADLINE: Duration = Duration::from_secs(10);

pub(crate) fn has_subscriber(kind: &str) -> bool {
    SUBSCRIPTIONS.iter().any(|(_, kinds)| kinds.contains(&kind))
}

/// The broker's address and the names on it.
#[derive(Debug)]
pub struct Topology {
    url: String,
    namespace: String,
    /// Openings given up one after the other since the last that was not.
    given_up: AtomicU32,
    /// Retry queues that were declared on the present connections, and have settled.
    retry_queues: Mutex<HashSet<String>>,
}

impl Topology {
    pub fn new(url: &str, namespace: &str) -> Self {
        // lapin keeps buffers of 32 frames each way: 8 MiB a connection at the
        // broker's 128 KiB. Longer messages go in several frames.
        let separator = if url.contains('?') { '&' } else { '?' };
        let url = if url.contains("frame_max=") {
            url.to_owned()
        } else {
            format!("{url}{separator}frame_max={FRAME_MAX}")
        };
        Self {
            url,
            namespace: namespace.to_owned(),
            given_up: AtomicU32::new(0),
            retry_queues: Mutex::default(),
        }
    }

    pub fn exchange(&self) -> String {
        format!("{}.events", self.namespace)
    }

    pub fn queue(&self, consumer: &str) -> String {
        format!("{}.{consumer}", self.namespace)
    }

    /// Where failed events of `consumer` end.
    pub fn dead_letters(&self, consumer: &str) -> String {
        format!("{}.{consumer}.dead", self.namespace)
    }

    /// A new connection and a channel with confirms on, with everything declared.
    /// The channel ends with the connection, so keep both.
    pub async fn connect(&self) -> anyhow::Result<(Connection, Channel)> {
        let (connection, channel) = self.open().await?;
        let declared = tokio::time::timeout(DECLARE_DEADLINE, self.declare(&channel)).await;
        declared.context("the broker does not answer")?.context("declaring exchange and queues failed")?;
        // What was declared before may have been forgotten since.
        self.retry_queues.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok((connection, channel))
    }

    /// As [`Topology::connect`], but takes everything as it is.
    pub async fn open(&self) -> anyhow::Result<(Connection, Channel)> {
        let open = async {
            let connection = Connection::connect(&self.url, ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok((connection, channel))
        };
        let before = self.given_up.load(Ordering::Relaxed);
        match tokio::time::timeout(self.open_deadline(), open).await {
            Ok(opened) => {
                self.given_up.store(0, Ordering::Relaxed);
                opened
            }
            Err(_) => {
                // Two that were given up at the same time are one silence.
                let more = before.saturating_add(1);
                let _ = self.given_up.compare_exchange(before, more, Ordering::Relaxed, Ordering::Relaxed);
                anyhow::bail!("the broker does not answer")
            }
        }
    }

    fn open_deadline(&self) -> Duration {
        let doublings = self.given_up.load(Ordering::Relaxed).min(8);
        (OPEN_DEADLINE * 2_u32.pow(doublings)).min(LONGEST_OPEN_DEADLINE)
    }

    /// Declares and names the queue that hands an event back to `consumer` after `seconds`. The first time, it
    /// gets a while to settle before anything is entrusted to it.
    pub(crate) async fn retry_queue(
        &self,
        channel: &Channel,
        consumer: &str,
        seconds: u32,
    ) -> lapin::Result<String> {
        let queue = format!("{}.{consumer}.retry.{seconds}s", self.namespace);
        let mut arguments = dead_lettering(&self.queue(consumer));
        arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(i64::from(seconds) * 1000));
        declare_queue(channel, &queue, arguments).await?;
        let known = || self.retry_queues.lock().unwrap_or_else(PoisonError::into_inner);
        if !known().contains(&queue) {
            tokio::time::sleep(SETTLES_IN).await;
            known().insert(queue.clone());
        }
        Ok(queue)
    }

    async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        let exchange = name(&self.exchange());
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        channel
            .exchange_declare(exchange.clone(), ExchangeKind::Topic, durable, FieldTable::default())
            .await?;
        for (consumer, kinds) in SUBSCRIPTIONS {
            let queue = name(&self.queue(consumer));
            let dead = self.dead_letters(consumer);
            declare_queue(channel, &dead, quorum()).await?;
            let mut arguments = dead_lettering(&dead);
            arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(i64::from(DELIVERY_LIMIT)));
            declare_queue(channel, queue.as_str(), arguments).await?;
            for kind in kinds {
                let options = QueueBindOptions::default();
                channel
                    .queue_bind(queue.clone(), exchange.clone(), name(kind), options, FieldTable::default())
                    .await?;
            }
        }
        Ok(())
    }
}

async fn declare_queue(channel: &Channel, queue: &str, arguments: FieldTable) -> lapin::Result<()> {
    channel.queue_declare(name(queue), QueueDeclareOptions::durable(), arguments).await?;
    Ok(())
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
fn dead_lettering(to_queue: &str) -> FieldTable {
    let mut arguments = quorum();
    let mut set = |name: &str, value: &str| {
        arguments.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    set("x-dead-letter-exchange", "");
    set("x-dead-letter-routing-key", to_queue);
    set("x-dead-letter-strategy", "at-least-once");
    set("x-overflow", "reject-publish");
    arguments
}

/// Our names are far below AMQP's 255 bytes; a namespace that breaks this
/// fails at the first declaration.
pub(crate) fn name(text: &str) -> ShortString {
    ShortString::try_new(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_nobody_subscribed_to_is_known_as_such() {
        assert!(has_subscriber(ORDER_CANCELLED));
        assert!(!has_subscriber(USER_REGISTERED));
    }

    #[tokio::test]
    async fn a_broker_that_says_nothing_is_given_up_and_gets_longer_each_time() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let topology = Topology::new(&format!("amqp://{}/%2f", silent.local_addr().unwrap()), "silent");
        let asked = std::time::Instant::now();
        let given_up = topology.open().await.unwrap_err();
        assert!(given_up.to_string().contains("does not answer"), "{given_up:#}");
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        assert_eq!(topology.open_deadline(), Duration::from_secs(8));
        topology.given_up.fetch_add(30, Ordering::Relaxed);
        assert_eq!(topology.open_deadline(), LONGEST_OPEN_DEADLINE);
        // One that refuses says something.
        drop(silent);
        assert!(topology.open().await.is_err());
        assert_eq!(topology.open_deadline(), OPEN_DEADLINE);
    }
}
