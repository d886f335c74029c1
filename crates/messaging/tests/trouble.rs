//! Queues that take nothing, a database that takes nothing, a broker that does not answer: other events flow,
//! and no event is lost.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use messaging::envelope;
use messaging::topology::Topology;
use proto::events::{ORDER_PLACED, PRODUCT_UPDATED};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use testing::proxy::Proxy;
use testing::{eventually, within};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use uuid::{NoContext, Timestamp, Uuid};

use crate::common::confirms::Withheld;
use crate::common::{BAD, Rig, at, behind, broker_host};

/// Beyond every pause between two tries.
const PATIENCE: Duration = Duration::from_secs(60);

async fn published_in_the_end(rig: &Rig) {
    let all = || async { (messaging::backlog(&rig.pool).await.unwrap().waiting == 0).then_some(()) };
    within(PATIENCE, "the outbox to be empty", all).await;
}

#[tokio::test]
async fn a_full_queue_holds_up_its_own_events_and_no_others() {
    let rig = Rig::start().await;
    let (_connection, channel) = rig.broker().await;
    let (full, exchange) = (format!("{}.full", rig.topology.queue("user")), rig.topology.exchange());
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(1));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    channel.queue_declare(full.as_str().into(), QueueDeclareOptions::durable(), arguments).await.unwrap();
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    channel
        .queue_bind(full.as_str().into(), exchange.as_str().into(), ORDER_PLACED.into(), options, none)
        .await
        .unwrap();

    // Ahead of the rest are more than fit into many batches.
    rig.write(ORDER_PLACED, 1..=3000).await;
    rig.write(PRODUCT_UPDATED, 1..=300).await;
    rig.applied(300).await;
    let backlog = messaging::backlog(&rig.pool).await.unwrap();
    assert!(backlog.waiting > 2900 && (1..200).contains(&backlog.paused), "{backlog:?}");
    // And later ones don't wait for a turn of theirs.
    rig.write(PRODUCT_UPDATED, 1..=300).await;
    rig.applied(600).await;

    channel.queue_delete(full.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    published_in_the_end(&rig).await;
}

#[tokio::test]
async fn a_queue_that_never_confirms_holds_up_its_own_events_and_no_others() {
    let withheld = Withheld::of(ORDER_PLACED).await;
    let rig = Rig::start_through(&at(withheld.address)).await;
    rig.write(ORDER_PLACED, 1..=1000).await;
    rig.write(PRODUCT_UPDATED, 1..=500).await;
    rig.applied(500).await;
    // What was confirmed is marked, whatever became of the others of its batch.
    let marked = "SELECT count(*) FROM outbox WHERE type = 'product.updated.v1' AND published_at IS NOT NULL";
    let all = || async { (rig.count(marked).await == 500).then_some(()) };
    eventually("what was confirmed to be marked", all).await;
    let paused = || async { (messaging::backlog(&rig.pool).await.unwrap().paused > 0).then_some(()) };
    eventually("the others to be put off", paused).await;
    assert_eq!(messaging::backlog(&rig.pool).await.unwrap().waiting, 1000);
    assert_eq!(rig.count("SELECT count(*) FROM outbox WHERE published_at IS NOT NULL").await, 500);

    withheld.end();
    published_in_the_end(&rig).await;
}

#[tokio::test]
async fn a_broker_that_says_nothing_more_is_left_by_those_who_are_idle_and_those_who_are_not() {
    let proxy = Proxy::to(broker_host()).await;
    let rig = Rig::start_through(&behind(&proxy)).await;
    rig.write(PRODUCT_UPDATED, 1..=1).await;
    rig.applied(1).await;
    rig.published().await;
    let before = proxy.accepted();
    proxy.silence();
    // Heartbeats are all that idle ones have.
    let again = || async { (proxy.accepted() >= before + 2).then_some(()) };
    within(PATIENCE, "relay and consumer to connect again", again).await;
    let left = || async { (proxy.left() >= 2).then_some(()) };
    within(PATIENCE, "their old sockets to be closed", left).await;
    proxy.silence();
    rig.write(PRODUCT_UPDATED, 2..=100).await;
    let all = || async { (rig.count("SELECT count(*) FROM effects").await == 100).then_some(()) };
    within(PATIENCE, "all to be applied", all).await;
    published_in_the_end(&rig).await;
}

#[tokio::test]
async fn an_opening_that_times_out_leaves_no_socket_behind() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let topology = Topology::new(
        &format!("amqp://{}/%2f", silent.local_addr().unwrap()),
        "silent",
        proto::events::SUBSCRIPTIONS,
    );
    topology.open().await.unwrap_err();
    let (mut socket, _) = silent.accept().await.unwrap();
    let ended = async { while matches!(socket.read(&mut [0; 64]).await, Ok(1..)) {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("the socket is closed");
}

/// Delivers an event to the consumer without the outbox.
async fn deliver(rig: &Rig, channel: &Channel, id: Uuid, version: i64) {
    let mut headers = FieldTable::default();
    headers.insert("aggregate_id".into(), AMQPValue::LongString(Uuid::now_v7().to_string().into()));
    headers.insert("aggregate_version".into(), AMQPValue::LongLongInt(version));
    let properties = BasicProperties::default()
        .with_message_id(id.to_string().into())
        .with_type(PRODUCT_UPDATED.into())
        .with_headers(headers);
    let (exchange, options) = (rig.topology.exchange(), BasicPublishOptions::default());
    let sent =
        channel.basic_publish(exchange.as_str().into(), PRODUCT_UPDATED.into(), options, b"", properties);
    sent.await.unwrap().await.unwrap();
}

/// Whether anything was ever put into the first retry queue.
async fn was_retried(rig: &Rig) -> bool {
    let (connection, channel) = rig.broker().await;
    let retry = format!("{}.retry.in.1s", rig.topology.queue("order"));
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let found = channel.queue_declare(retry.as_str().into(), options, FieldTable::default()).await;
    connection.close(200, "done".into()).await.ok();
    found.is_ok()
}

async fn dead_letter(rig: &Rig, channel: &Channel) -> lapin::message::Delivery {
    let dead = rig.topology.dead_letters("order");
    let options = BasicGetOptions { no_ack: true };
    let get = || async { channel.basic_get(dead.as_str().into(), options).await.unwrap() };
    eventually("a dead letter", get).await.delivery
}

#[tokio::test]
async fn a_database_that_turns_read_only_makes_no_dead_letters() {
    let rig = Rig::start().await;
    rig.write(PRODUCT_UPDATED, 1..=1).await;
    rig.applied(1).await;
    let (_connection, channel) = rig.broker().await;
    let mut admin = PgConnection::connect(&rig.database_url).await.unwrap();
    let name: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&mut admin).await.unwrap();
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let read_only = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    admin.execute(AssertSqlSafe(read_only)).await.unwrap();
    admin.execute(others).await.unwrap();
    for version in 1..=32 {
        deliver(&rig, &channel, Uuid::now_v7(), version).await;
    }
    // Each try opens a session, which is not used, as it is read-only.
    let sessions = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()";
    let before: i64 = sqlx::query_scalar(sessions).fetch_one(&mut admin).await.unwrap();
    let admin = tokio::sync::Mutex::new(admin);
    let tried = || async {
        let now: i64 = sqlx::query_scalar(sessions).fetch_one(&mut *admin.lock().await).await.unwrap();
        (now >= before + 20).then_some(())
    };
    within(PATIENCE, "the service to try often", tried).await;
    let mut admin = admin.into_inner();
    let back = format!("ALTER DATABASE {name} RESET default_transaction_read_only");
    admin.execute("SET default_transaction_read_only = off").await.unwrap();
    admin.execute(AssertSqlSafe(back)).await.unwrap();
    admin.execute(others).await.unwrap();
    let all = || async {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM effects").fetch_one(&rig.pool).await;
        (count.ok() == Some(33)).then_some(())
    };
    within(PATIENCE, "all to be applied", all).await;
    assert!(!was_retried(&rig).await);
}

#[tokio::test]
async fn a_slow_database_makes_no_dead_letters() {
    let rig = Rig::start().await;
    rig.write(PRODUCT_UPDATED, 1..=1).await;
    rig.applied(1).await;
    rig.applied.all_slow.store(true, Ordering::Relaxed);
    rig.write(PRODUCT_UPDATED, 2..=41).await;
    let often = || async { (rig.applied.tried.load(Ordering::Relaxed) > 12).then_some(()) };
    within(PATIENCE, "the consumer to try often", often).await;
    // What comes later is no proof either.
    rig.write(PRODUCT_UPDATED, 42..=42).await;
    let before = rig.applied.tried.load(Ordering::Relaxed);
    let more = || async { (rig.applied.tried.load(Ordering::Relaxed) > before + 5).then_some(()) };
    within(PATIENCE, "the consumer to go on trying", more).await;
    rig.applied.all_slow.store(false, Ordering::Relaxed);
    rig.applied(42).await;
    assert!(!was_retried(&rig).await);
}

#[tokio::test]
async fn an_event_that_takes_too_long_is_dead_lettered_once_others_succeed() {
    let rig = Rig::start().await;
    rig.applied.slow.store(true, Ordering::Relaxed);
    rig.write(PRODUCT_UPDATED, BAD..=BAD).await;
    let often = || async { (rig.applied.tried.load(Ordering::Relaxed) > 3).then_some(()) };
    within(PATIENCE, "the consumer to try often", often).await;
    assert!(!was_retried(&rig).await);
    rig.write(PRODUCT_UPDATED, 1..=1).await;
    rig.applied(1).await;
    let retried = || async { was_retried(&rig).await.then_some(()) };
    eventually("it to be retried", retried).await;
    rig.applied.slow.store(false, Ordering::Relaxed);
    let both = || async { (rig.count("SELECT count(*) FROM effects").await == 2).then_some(()) };
    within(PATIENCE, "it to be applied in the end", both).await;
}

fn made_days_ago(days: u64) -> Uuid {
    let then = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
    let then = then.duration_since(UNIX_EPOCH).unwrap();
    Uuid::new_v7(Timestamp::from_unix(NoContext, then.as_secs(), then.subsec_nanos()))
}

#[tokio::test]
async fn an_event_whose_inbox_row_is_gone_is_not_applied_again_and_one_that_only_waited_is() {
    let rig = Rig::start().await;
    let (_connection, channel) = rig.broker().await;
    // They waited in a queue whose consumer was down for long.
    let (older, old) = (made_days_ago(50), made_days_ago(40));
    deliver(&rig, &channel, old, 1).await;
    rig.applied(1).await;
    sqlx::query("UPDATE inbox SET applied_at = now() - interval '31 days'").execute(&rig.pool).await.unwrap();
    // Less than a full batch.
    assert!(!messaging::prune_inbox(&rig.pool, "order").await.unwrap());
    assert_eq!(rig.count("SELECT count(*) FROM inbox WHERE consumer = 'order'").await, 0);

    for doubtful in [old, older] {
        deliver(&rig, &channel, doubtful, 1).await;
        let dead = dead_letter(&rig, &channel).await;
        let failure = envelope::Failure::of(&dead.properties);
        assert!(failure.reason.contains("too old"), "{failure:?}");
        assert_eq!(dead.properties.message_id().clone().unwrap().as_str(), doubtful.to_string());
    }
    assert_eq!(rig.count("SELECT count(*) FROM effects").await, 1);
    // Nothing was pruned of what came after, however long ago that was.
    deliver(&rig, &channel, made_days_ago(39), 1).await;
    rig.applied(2).await;

    // By order of a person, and once.
    deliver(&rig, &channel, older, 1).await;
    let dead = dead_letter(&rig, &channel).await;
    let queue = rig.topology.queue("order");
    for _ in 0..2 {
        let forced = envelope::revived(&dead.properties, true, rig.topology.account());
        messaging::move_to(&channel, &queue, forced, &dead.data).await.unwrap();
    }
    rig.write(PRODUCT_UPDATED, 1..=1).await;
    rig.applied(4).await;
}
