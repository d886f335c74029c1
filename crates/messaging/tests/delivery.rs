//! From outbox to effect over a real broker: once in effect, whatever happens
//! on the way.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueBindOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection};
use messaging::topology::{PRODUCT_UPDATED, Topology, USER_REGISTERED};
use messaging::{ApplyError, Event, Handler, Naming, NewEvent, Outbox, outbox};
use proto::user::v1::UserRegistered;
use service::Lifecycle;
use service::config::Backends;
use service::db;
use service::db::Pool;
use testing::eventually;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Notes every event it applies; refuses the odd ones while told to.
#[derive(Clone, Default)]
struct Notes {
    refuse: Arc<AtomicBool>,
    fail: Arc<AtomicBool>,
}

const BAD: i64 = 13;

impl Handler for Notes {
    async fn apply(&self, connection: &mut db::Connection, events: &[Event]) -> Result<(), ApplyError> {
        for event in events {
            if event.aggregate_version == BAD && self.refuse.load(Ordering::Relaxed) {
                return Err(ApplyError::Rejected("an unlucky number".to_owned()));
            }
            sqlx::query("INSERT INTO effects (event_id, aggregate_id) VALUES ($1, $2)")
                .bind(event.id)
                .bind(event.aggregate_id)
                .execute(&mut *connection)
                .await?;
            if event.aggregate_version == BAD && self.fail.load(Ordering::Relaxed) {
                sqlx::query("INSERT INTO effects (event_id) VALUES (NULL)").execute(&mut *connection).await?;
            }
        }
        Ok(())
    }
}

struct Rig {
    pool: Pool,
    outbox: Outbox,
    topology: Topology,
    notes: Notes,
    lifecycle: Lifecycle,
}

impl Rig {
    async fn start() -> Self {
        Self::start_through(&testing::amqp_url()).await
    }

    /// With the broker behind another address.
    async fn start_through(amqp_url: &str) -> Self {
        let backends = Backends::new(testing::database("orders").await, 5, amqp_url.to_owned());
        let pool = service::db::open(&backends, "orders", &[&messaging::MIGRATIONS]).await.unwrap();
        sqlx::query("CREATE TABLE effects (event_id uuid NOT NULL, aggregate_id uuid)")
            .execute(&pool)
            .await
            .unwrap();
        let naming = Naming { amqp_namespace: testing::namespace() };
        let (outbox, notes, lifecycle) = (Outbox::new(pool.clone()), Notes::default(), Lifecycle::new());
        messaging::start(&lifecycle, "order", amqp_url, &naming, &outbox, notes.clone());
        let topology = Topology::new(&testing::amqp_url(), &naming.amqp_namespace);
        Self { pool, outbox, topology, notes, lifecycle }
    }

    /// Writes an event for each version, and returns the aggregate's id.
    async fn write(&self, kind: &'static str, versions: impl Iterator<Item = i64>) -> Uuid {
        let id = Uuid::now_v7();
        let body = UserRegistered { user_id: id.to_string() };
        let events: Vec<_> = versions.map(|version| NewEvent::new(kind, id, version, &body)).collect();
        let mut transaction = service::db::begin(&self.pool).await.unwrap();
        outbox::enqueue(&mut transaction, &events).await.unwrap();
        transaction.commit().await.unwrap();
        self.outbox.wake();
        id
    }

    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// Waits until so many are applied, as long as it goes on.
    async fn applied(&self, wanted: i64) {
        let mut so_far = 0;
        while so_far < wanted {
            let more = || async {
                let effects = self.count("SELECT count(*) FROM effects").await;
                assert!(effects <= wanted, "{effects} effects of {wanted} events");
                (effects > so_far).then_some(effects)
            };
            so_far = eventually(&format!("more than {so_far} of {wanted} effects"), more).await;
        }
    }

    async fn published(&self) {
        let all = || async { (messaging::backlog(&self.pool).await.unwrap().0 == 0).then_some(()) };
        eventually("the outbox to be empty", all).await;
    }

    async fn broker(&self) -> (Connection, Channel) {
        self.topology.connect().await.unwrap()
    }
}

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
    // One more event behind the copies: when it is applied, they have been through.
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
    rig.notes.refuse.store(true, Ordering::Relaxed);
    rig.write(PRODUCT_UPDATED, 1..=100).await;
    rig.applied(99).await;
    let (_connection, channel) = rig.broker().await;
    let dead = rig.topology.dead_letters("order");
    let letter =
        || async { channel.basic_get(dead.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap() };
    let letter = eventually("a dead letter", letter).await;
    let headers = letter.properties.headers().clone().unwrap();
    let reason = format!("{:?}", headers.inner()["dockside-error"]);
    assert!(reason.contains("unlucky") || reason.contains("117, 110, 108"), "{reason}");
    // An error that is not the event's own fault is tried again, later.
    rig.notes.refuse.store(false, Ordering::Relaxed);
    rig.notes.fail.store(true, Ordering::Relaxed);
    rig.write(PRODUCT_UPDATED, BAD..=BAD).await;
    rig.write(PRODUCT_UPDATED, 1..=1).await;
    rig.applied(100).await;
    rig.notes.fail.store(false, Ordering::Relaxed);
    rig.applied(101).await;
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
    let letter =
        || async { channel.basic_get(dead.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap() };
    assert_eq!(eventually("a dead letter", letter).await.data, b"noise");
}

/// A broker address whose connections can be cut.
async fn cuttable(target: String) -> (String, Arc<std::sync::Mutex<CancellationToken>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cut = Arc::new(std::sync::Mutex::new(CancellationToken::new()));
    let current = cut.clone();
    tokio::spawn(async move {
        while let Ok((mut inner, _)) = listener.accept().await {
            let (cut, target) = (current.lock().unwrap().clone(), target.clone());
            tokio::spawn(async move {
                let Ok(mut outer) = TcpStream::connect(target).await else { return };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut inner, &mut outer) => {}
                    () = cut.cancelled() => {}
                }
            });
        }
    });
    (address.to_string(), cut)
}

#[tokio::test]
async fn a_cut_connection_loses_and_doubles_nothing() {
    let real = testing::amqp_url();
    let (_, after) = real.split_once('@').unwrap();
    let target = after.split('/').next().unwrap().to_owned();
    let (address, cut) = cuttable(target.clone()).await;
    let rig = Rig::start_through(&real.replace(&target, &address)).await;
    for _ in 0..10 {
        rig.write(PRODUCT_UPDATED, 1..=100).await;
        let now = std::mem::take(&mut *cut.lock().unwrap());
        now.cancel();
    }
    rig.applied(1000).await;
    rig.published().await;
    assert_eq!(rig.count("SELECT count(DISTINCT event_id) FROM effects").await, 1000);
}
