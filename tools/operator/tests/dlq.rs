//! Dead letters on a real broker: listed, replayed, deleted; and what a kill in the middle leaves.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection};
use messaging::envelope;
use messaging::topology::Topology;
use operator::dlq::{self, Which};
use prost::Message;
use proto::events::ORDER_CANCELLED;
use proto::order::v1::{Order, OrderCancelled};
use testing::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::{NoContext, Timestamp, Uuid};

const USER: &[&str] = &["user"];

struct Broker {
    topology: Topology,
    namespace: String,
    channel: Channel,
    _connection: Connection,
}

impl Broker {
    /// The user service's queues, in a namespace of its own; the dead letters'
    /// with the limit that brokers from RabbitMQ 4.0 on give to any.
    async fn open() -> Self {
        let namespace = testing::namespace();
        let topology = Topology::new(&testing::amqp_url(), &namespace, proto::events::SUBSCRIPTIONS);
        let (_connection, channel) = topology.open().await.unwrap();
        let broker = Self { topology, namespace, channel, _connection };
        for (service, _) in proto::events::SUBSCRIPTIONS {
            broker.declare(&broker.topology.queue(service), None).await;
            broker.declare(&broker.topology.dead_letters(service), Some(20)).await;
        }
        broker
    }

    async fn declare(&self, queue: &str, limit: Option<i64>) {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        if let Some(limit) = limit {
            arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(limit));
        }
        let options = QueueDeclareOptions::durable();
        self.channel.queue_declare(queue.into(), options, arguments).await.unwrap();
    }

    /// An event as a consumer dead-letters it, with attempts and error.
    async fn dead_letter(&self) -> Uuid {
        self.dead_letter_as(Uuid::now_v7()).await
    }

    async fn dead_letter_as(&self, id: Uuid) -> Uuid {
        self.dead_letter_with(id, &[]).await
    }

    async fn dead_letter_with(&self, id: Uuid, more: &[(&str, AMQPValue)]) -> Uuid {
        let order = Uuid::now_v7();
        let body = OrderCancelled {
            order: Some(Order { id: order.to_string(), ..Order::default() }),
            reason: "customer".to_owned(),
            ..OrderCancelled::default()
        };
        let mut headers = FieldTable::default();
        for (name, value) in [("aggregate_id", order.to_string()), ("dockside-error", "no luck".to_owned())] {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        for (name, value) in [("aggregate_version", 3), ("dockside-attempts", 5)] {
            headers.insert(name.into(), AMQPValue::LongLongInt(value));
        }
        for (name, value) in more {
            headers.insert((*name).into(), value.clone());
        }
        let properties = BasicProperties::default()
            .with_message_id(id.to_string().into())
            .with_type(ORDER_CANCELLED.into())
            .with_headers(headers);
        let dead = self.topology.dead_letters("user");
        messaging::move_to(&self.channel, &dead, properties, &body.encode_to_vec()).await.unwrap();
        id
    }

    async fn dead_letter_noise(&self) {
        let dead = self.topology.dead_letters("user");
        messaging::move_to(&self.channel, &dead, BasicProperties::default(), b"noise").await.unwrap();
    }

    async fn dead(&self) -> Vec<String> {
        let found = dlq::list(&self.topology, USER, 1000).await.unwrap();
        assert_eq!(found.total, found.dead_letters.len());
        found.dead_letters.into_iter().map(|dead| dead.id).collect()
    }

    /// Takes the next message out of the service's own queue.
    async fn delivered(&self) -> Option<(String, BasicProperties)> {
        let queue = self.topology.queue("user");
        let got = self.channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true });
        let delivery = got.await.unwrap()?.delivery;
        Some((delivery.properties.message_id().clone().unwrap().to_string(), delivery.properties))
    }
}

#[tokio::test]
async fn listing_often_loses_and_reorders_nothing() {
    let broker = Broker::open().await;
    let mut expected = Vec::new();
    for _ in 0..5 {
        expected.push(broker.dead_letter().await.to_string());
    }
    // Beyond the limit at which the broker would drop what comes back once more.
    for time in 0..45 {
        assert_eq!(broker.dead().await, expected, "time {time}");
    }
    let found = dlq::list(&broker.topology, USER, 2).await.unwrap();
    assert_eq!((found.dead_letters.len(), found.total), (2, 5));
    let dead = &found.dead_letters[0];
    assert_eq!((dead.attempts, dead.error.as_str(), dead.event), (5, "no luck", true));
    assert!(dead.body.as_deref().unwrap().contains("customer"), "{:?}", dead.body);
    assert_eq!(broker.dead().await, expected);
}

#[tokio::test]
async fn those_that_are_not_meant_do_not_come_near_the_brokers_limit() {
    let broker = Broker::open().await;
    broker.dead_letter().await;
    let nobody = Which::Id(Uuid::now_v7().to_string());
    for _ in 0..15 {
        assert!(dlq::replay(&broker.topology, USER, &nobody, false).await.unwrap().done.is_empty());
        assert!(dlq::drop(&broker.topology, USER, &nobody).await.unwrap().done.is_empty());
    }
    let (_connection, channel) = broker.topology.open().await.unwrap();
    let queue = broker.topology.dead_letters("user");
    let held = channel.basic_get(queue.as_str().into(), BasicGetOptions::default()).await.unwrap().unwrap();
    assert!(envelope::delivery_count(&held.properties) < 20, "the broker drops the 21st");
}

#[tokio::test]
async fn a_replayed_dead_letter_is_as_new_and_the_others_stay() {
    let broker = Broker::open().await;
    let (first, second, third) =
        (broker.dead_letter().await, broker.dead_letter().await, broker.dead_letter().await);
    let moved = dlq::replay(&broker.topology, USER, &Which::Id(second.to_string().to_uppercase()), false)
        .await
        .unwrap();
    assert_eq!(moved.done.len(), 1);
    let (id, properties) = eventually("the event in its queue", || broker.delivered()).await;
    assert_eq!(id, second.to_string());
    let failure = envelope::Failure::of(&properties);
    assert_eq!((failure.attempts, failure.reason.as_str()), (0, "unknown"));
    let headers = properties.headers().clone().unwrap();
    let names = headers.inner().keys().map(|name| name.as_str());
    // The last is the queue's own, which counts anew.
    assert_eq!(names.collect::<Vec<_>>(), ["aggregate_id", "aggregate_version", "x-delivery-count"]);
    assert_eq!(envelope::delivery_count(&properties), 0);
    assert_eq!(broker.dead().await, [first.to_string(), third.to_string()]);
    assert!(broker.delivered().await.is_none());
}

#[tokio::test]
async fn a_dead_letter_older_than_the_inbox_is_replayed_by_force_only() {
    let broker = Broker::open().await;
    let then = SystemTime::now() - messaging::INBOX_REMEMBERS;
    let then = then.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let old = broker.dead_letter_as(Uuid::new_v7(Timestamp::from_unix(NoContext, then, 0))).await.to_string();
    let moved = dlq::replay(&broker.topology, USER, &Which::All, false).await.unwrap();
    assert_eq!((moved.done.len(), moved.too_old.len()), (0, 1));
    let (code, text, _) = operator(&broker, &["dlq", "replay", &old]);
    assert_eq!(code, Some(1));
    assert!(text.contains(&old) && text.contains("--force"), "{text}");
    assert_eq!(broker.dead().await, std::slice::from_ref(&old));
    assert!(broker.delivered().await.is_none());
    let (code, text, _) = operator(&broker, &["dlq", "replay", &old, "--force"]);
    assert_eq!(code, Some(0), "{text}");
    let (id, properties) = eventually("the event in its queue", || broker.delivered()).await;
    assert_eq!(id, old);
    // Its consumer gets a mark; see crates/messaging.
    assert!(properties.headers().clone().unwrap().inner().contains_key("dockside-forced"));
}

#[tokio::test]
async fn an_untrusted_dead_letter_is_replayed_by_force_only() {
    let broker = Broker::open().await;
    let good = broker.dead_letter().await;
    let forged = Uuid::now_v7();
    broker.dead_letter_with(forged, &[("dockside-untrusted", AMQPValue::Boolean(true))]).await;
    let moved = dlq::replay(&broker.topology, USER, &Which::All, false).await.unwrap();
    assert_eq!(
        (moved.done[0].id.clone(), moved.untrusted[0].id.clone()),
        (good.to_string(), forged.to_string())
    );
    assert_eq!(broker.dead().await, [forged.to_string()]);
    let (id, properties) = eventually("the good one in its queue", || broker.delivered()).await;
    // The broker has checked who replays it.
    let account = properties.user_id().clone().map(|account| account.to_string());
    assert_eq!((id, account.as_deref()), (good.to_string(), Some(broker.topology.account())));
    let (code, text, _) = operator(&broker, &["dlq", "replay", &forged.to_string()]);
    assert_eq!(code, Some(1));
    assert!(text.contains("forged") && text.contains("--force"), "{text}");
    let (code, text, _) = operator(&broker, &["dlq", "replay", &forged.to_string(), "--force"]);
    assert_eq!(code, Some(0), "{text}");
    let (id, properties) = eventually("the other in its queue", || broker.delivered()).await;
    assert_eq!(id, forged.to_string());
    assert!(!properties.headers().clone().unwrap().inner().contains_key("dockside-untrusted"));
}

#[tokio::test]
async fn a_message_that_is_no_event_is_not_replayed_but_can_be_dropped() {
    let broker = Broker::open().await;
    broker.dead_letter_noise().await;
    let event = broker.dead_letter().await.to_string();
    let moved = dlq::replay(&broker.topology, USER, &Which::All, false).await.unwrap();
    assert_eq!((moved.done.len(), moved.refused.len()), (1, 1));
    assert_eq!(moved.done[0].id, event);
    let noise = broker.dead().await;
    assert_eq!(noise.len(), 1);
    assert!(noise[0].starts_with("body-"), "{noise:?}");
    let dropped = dlq::drop(&broker.topology, USER, &Which::Id("another".to_owned())).await.unwrap();
    assert!(dropped.done.is_empty());
    let dropped = dlq::drop(&broker.topology, USER, &Which::Id(noise[0].clone())).await.unwrap();
    assert_eq!(dropped.done[0].body_hex, hex::encode("noise"));
    assert!(broker.dead().await.is_empty());
}

/// A broker address that cuts its connections for good once the bytes `mark`
/// come by, which it does not pass on: from the client, or from the broker.
async fn cutting_at(mark: &'static [u8], from_client: bool) -> (String, Arc<AtomicBool>) {
    let target = testing::amqp_url();
    let host = target.split(['@', '/']).nth(3).unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = target.replace(&host, &listener.local_addr().unwrap().to_string());
    let cut = Arc::new(AtomicBool::new(false));
    let done = cut.clone();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let broker = TcpStream::connect(host).await.unwrap();
        let ((mut client_in, mut client_out), (mut broker_in, mut broker_out)) =
            (client.into_split(), broker.into_split());
        let (watched, other) = if from_client {
            ((&mut client_in, &mut broker_out), (&mut broker_in, &mut client_out))
        } else {
            ((&mut broker_in, &mut client_out), (&mut client_in, &mut broker_out))
        };
        let watch = async {
            let mut bytes = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = watched.0.read(&mut bytes).await {
                if bytes[..count].windows(mark.len()).any(|window| window == mark) {
                    done.store(true, Ordering::SeqCst);
                    return;
                }
                watched.1.write_all(&bytes[..count]).await.unwrap();
            }
        };
        tokio::select! {
            () = watch => {}
            _ = tokio::io::copy(other.0, other.1) => {}
        }
    });
    (url, cut)
}

/// Class and method of AMQP 0-9-1's basic.publish and basic.ack.
const PUBLISH: &[u8] = &[0, 60, 0, 40];
const ACK: &[u8] = &[0, 60, 0, 80];

#[tokio::test]
async fn a_replay_cut_before_it_publishes_leaves_it_dead() {
    let broker = Broker::open().await;
    let id = broker.dead_letter().await.to_string();
    let (url, cut) = cutting_at(PUBLISH, true).await;
    let through = Topology::new(&url, &broker.namespace, proto::events::SUBSCRIPTIONS);
    dlq::replay(&through, USER, &Which::All, false).await.unwrap_err();
    assert!(cut.load(Ordering::SeqCst));
    eventually("the dead letter to be back", || async {
        (broker.dead().await == [id.clone()]).then_some(())
    })
    .await;
    assert!(broker.delivered().await.is_none());
}

#[tokio::test]
async fn a_replay_cut_between_the_publish_and_its_confirm_leaves_it_in_both_places() {
    let broker = Broker::open().await;
    let id = broker.dead_letter().await.to_string();
    let (url, cut) = cutting_at(ACK, false).await;
    let through = Topology::new(&url, &broker.namespace, proto::events::SUBSCRIPTIONS);
    dlq::replay(&through, USER, &Which::All, false).await.unwrap_err();
    assert!(cut.load(Ordering::SeqCst));
    eventually("the dead letter to be back", || async {
        (broker.dead().await == [id.clone()]).then_some(())
    })
    .await;
    assert_eq!(broker.delivered().await.unwrap().0, id);
}

#[tokio::test]
async fn a_replay_cut_between_the_confirm_and_the_removal_leaves_it_in_both_places() {
    let broker = Broker::open().await;
    let id = broker.dead_letter().await.to_string();
    let (url, cut) = cutting_at(ACK, true).await;
    let through = Topology::new(&url, &broker.namespace, proto::events::SUBSCRIPTIONS);
    dlq::replay(&through, USER, &Which::All, false).await.unwrap_err();
    assert!(cut.load(Ordering::SeqCst));
    eventually("the dead letter to be back", || async {
        (broker.dead().await == [id.clone()]).then_some(())
    })
    .await;
    assert_eq!(broker.delivered().await.unwrap().0, id);
}

#[tokio::test]
async fn replays_at_the_same_time_as_a_consumer_and_more_deaths_lose_nothing() {
    let broker = Broker::open().await;
    let mut expected = HashSet::new();
    for _ in 0..60 {
        expected.insert(broker.dead_letter().await.to_string());
    }
    let replay = || dlq::replay(&broker.topology, USER, &Which::All, false);
    let die = async {
        let mut more = Vec::new();
        for _ in 0..20 {
            more.push(broker.dead_letter().await.to_string());
        }
        more
    };
    let replays = async {
        let (one, two, more) = tokio::join!(replay(), replay(), die);
        one.unwrap();
        two.unwrap();
        replay().await.unwrap();
        more
    };
    let consume = async {
        let mut delivered = HashSet::new();
        while delivered.len() < 80 {
            delivered.insert(eventually("all events in their queue", || broker.delivered()).await.0);
        }
        delivered
    };
    let (more, delivered) = tokio::join!(replays, consume);
    expected.extend(more);
    assert_eq!(delivered, expected);
    assert!(broker.dead().await.is_empty());
}

fn operator(broker: &Broker, words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_operator"))
        .args(words)
        .env("ALLOW_PLAINTEXT", "true")
        .env("AMQP_URL", testing::amqp_url())
        .env("AMQP_NAMESPACE", &broker.namespace)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn the_command_says_what_it_did_in_words_json_and_exit_codes() {
    let broker = Broker::open().await;
    let id = broker.dead_letter().await.to_string();
    let (code, text, _) = operator(&broker, &["dlq", "list"]);
    assert_eq!(code, Some(0));
    assert!(text.contains(&id) && text.contains("order.cancelled.v1") && text.contains("no luck"), "{text}");
    let (code, json, _) = operator(&broker, &["dlq", "show", &id, "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &listed[0]["attempts"]), (Some(0), &serde_json::json!(5)));
    assert_eq!(operator(&broker, &["dlq", "show", "another"]).0, Some(1));
    let (code, _, error) = operator(&broker, &["dlq", "drop", "--all"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("--yes"), "{error}");
    assert_eq!(broker.dead().await, std::slice::from_ref(&id));
    let (code, text, _) = operator(&broker, &["dlq", "drop", "--all", "--yes", "--service", "user"]);
    assert_eq!(code, Some(0));
    // What is deleted is shown whole, to be kept if it has to be.
    assert!(text.contains(&id) && text.contains("customer"), "{text}");
    let (code, _, error) = operator(&broker, &["dlq", "list", "--amqp-namespace", "nobodys"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("nobodys.user.dead") && error.contains("AMQP_NAMESPACE"), "{error}");
    let (code, _, error) = operator(&broker, &["outbox", "status"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("DATABASE_URL"), "{error}");
}

#[test]
fn what_is_spoken_to_in_the_clear_is_refused_until_that_is_allowed() {
    for (words, setting) in [
        (&["dlq", "list"][..], "AMQP_URL"),
        (&["outbox", "status"], "DATABASE_URL"),
        (&["reconcile"], "PAYMENT_URL"),
        (&["reconcile", "--without-provider"], "AMQP_URL"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_operator"))
            .args(words)
            .env("DATABASE_URL", "postgres://db.example/shop?sslmode=require")
            .env("AMQP_URL", "amqp://broker.example")
            .env("PAYMENT_URL", "http://provider.example")
            .env("PAYMENT_SECRET_KEY", "secret")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("{setting} leads over the network unencrypted")), "{said}");
    }
}
