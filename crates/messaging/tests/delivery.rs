//! From outbox to effect over a real broker: once in effect, whatever happens
//! on the way.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use messaging::Topology;
use proto::events::{PRODUCT_UPDATED, SUBSCRIPTIONS, USER_REGISTERED};
use testing::eventually;
use testing::proxy::Proxy;

use crate::common::{BAD, Rig, behind};

#[tokio::test]
async fn an_event_delivered_again_is_applied_once() {
    let rig = Rig::start().await;
    rig.write(PRODUCT_UPDATED, 1..=300).await;
    rig.applied(300).await;
    rig.published().await;
    for _ in 0..3 {
        sqlx::query("UPDATE outbox SET published_at = NULL, claimed_until = '-infinity'")
            .execute(&rig.pool)
            .await
            .unwrap();
        rig.published().await;
    }
    // One more event after the copies: when it is applied, they have been through.
    rig.write(PRODUCT_UPDATED, 1..=1).await;
    rig.applied(301).await;
    assert_eq!(rig.count("SELECT count(*) FROM inbox WHERE consumer = 'order'").await, 301);
    assert!(rig.lifecycle.shutdown(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn an_event_nobody_subscribed_to_is_published_all_the_same() {
    let rig = Rig::start().await;
    rig.write(USER_REGISTERED, 1..=1).await;
    rig.published().await;
    assert_eq!(rig.count("SELECT count(*) FROM effects").await, 0);
}

#[tokio::test]
async fn an_event_that_reaches_no_queue_stays_in_the_outbox() {
    let rig = Rig::start().await;
    rig.write(PRODUCT_UPDATED, 1..=1).await;
    rig.applied(1).await;
    let (_connection, channel) = rig.broker().await;
    let (queue, exchange) = (rig.topology.queue("order"), rig.topology.exchange());
    let kind = PRODUCT_UPDATED;
    channel
        .queue_unbind(queue.as_str().into(), exchange.as_str().into(), kind.into(), FieldTable::default())
        .await
        .unwrap();
    rig.write(PRODUCT_UPDATED, 2..=2).await;
    // The relay keeps trying; each new connection of its declares the binding again.
    rig.applied(2).await;
    rig.published().await;
    let options = QueueBindOptions::default();
    channel
        .queue_bind(
            queue.as_str().into(),
            exchange.as_str().into(),
            kind.into(),
            options,
            FieldTable::default(),
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn a_bad_event_becomes_a_dead_letter_and_the_rest_flows() {
    let rig = Rig::start().await;
    rig.applied.refuse.store(true, Ordering::Relaxed);
    rig.write(PRODUCT_UPDATED, 1..=100).await;
    rig.applied(99).await;
    let (_connection, channel) = rig.broker().await;
    let dead = rig.topology.dead_letters("order");
    let dead =
        || async { channel.basic_get(dead.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap() };
    let dead = eventually("a dead letter", dead).await;
    let headers = dead.properties.headers().clone().unwrap();
    let reason = format!("{:?}", headers.inner()["dockside-error"]);
    assert!(reason.contains("unlucky") || reason.contains("117, 110, 108"), "{reason}");
    // An error that is not the event's own fault is tried again, later.
    rig.applied.refuse.store(false, Ordering::Relaxed);
    rig.applied.fail.store(true, Ordering::Relaxed);
    rig.write(PRODUCT_UPDATED, BAD..=BAD).await;
    rig.write(PRODUCT_UPDATED, 1..=1).await;
    rig.applied(100).await;
    rig.applied.fail.store(false, Ordering::Relaxed);
    rig.applied(101).await;
}

#[tokio::test]
async fn a_queue_of_an_earlier_release_is_taken_as_it_is() {
    let (url, namespace) = (testing::amqp_url(), testing::namespace());
    let topology = Topology::new(&url, &namespace, SUBSCRIPTIONS);
    let (_connection, channel) = topology.open().await.unwrap();
    let (queue, dead) = (topology.queue("order"), topology.dead_letters("order"));
    let quorum = || FieldTable::from(BTreeMap::from([("x-queue-type".into(), text("quorum"))]));
    let mut handing_on = quorum();
    for (name, value) in [
        ("x-dead-letter-exchange", ""),
        ("x-dead-letter-routing-key", &dead),
        ("x-dead-letter-strategy", "at-least-once"),
        ("x-overflow", "reject-publish"),
    ] {
        handing_on.insert(name.into(), text(value));
    }
    for (queue, arguments) in [(&dead, quorum()), (&queue, handing_on)] {
        let options = QueueDeclareOptions::durable();
        channel.queue_declare(queue.as_str().into(), options, arguments).await.unwrap();
    }
    let rig = Rig::start_as("order", &url, &url, &namespace).await;
    rig.applied.refuse.store(true, Ordering::Relaxed);
    rig.write(PRODUCT_UPDATED, BAD..=BAD).await;
    rig.write(PRODUCT_UPDATED, 1..=1).await;
    rig.applied(1).await;
    let dead =
        || async { channel.basic_get(dead.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap() };
    eventually("a dead letter", dead).await;
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

#[tokio::test]
async fn what_is_no_event_becomes_a_dead_letter() {
    let rig = Rig::start().await;
    let (_connection, channel) = rig.broker().await;
    let (exchange, options) = (rig.topology.exchange(), BasicPublishOptions::default());
    channel
        .basic_publish(
            exchange.as_str().into(),
            PRODUCT_UPDATED.into(),
            options,
            b"noise",
            BasicProperties::default(),
        )
        .await
        .unwrap()
        .await
        .unwrap();
    let dead = rig.topology.dead_letters("order");
    let dead =
        || async { channel.basic_get(dead.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap() };
    assert_eq!(eventually("a dead letter", dead).await.data, b"noise");
}

#[tokio::test]
async fn a_cut_connection_loses_and_doubles_nothing() {
    let proxy = Proxy::to(common::broker_host()).await;
    let rig = Rig::start_through(&behind(&proxy)).await;
    for _ in 0..10 {
        rig.write(PRODUCT_UPDATED, 1..=100).await;
        proxy.cut();
    }
    rig.applied(1000).await;
    rig.published().await;
    assert_eq!(rig.count("SELECT count(DISTINCT event_id) FROM effects").await, 1000);
}
