//! Each service with the account that `up` gives it, on a broker with only those: what an account may not do,
//! and what works all the same.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use machine::layout::Layout;
use machine::servers::start::{self, Broker as Started};
use machine::state::Secrets;
use machine::supervisor::Supervisor;
use messaging::Topology;
use messaging::envelope::Failure;
use proto::events::{ORDER_CANCELLED, ORDER_PLACED, PRODUCT_UPDATED, SUBSCRIPTIONS, USER_DELETED};
use testing::{eventually, within};
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use crate::common::{BAD, Rig};

/// A queue that is there in a moment, on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// One at a time: a broker that starts takes a core for a while.
static TURN: Mutex<()> = Mutex::const_new(());

struct Broker {
    #[expect(dead_code, reason = "it is there to be dropped")]
    turn: MutexGuard<'static, ()>,
    layout: Layout,
    supervisor: Arc<Supervisor>,
    started: Started,
    secrets: Secrets,
}

impl Broker {
    async fn start() -> Self {
        let turn = TURN.lock().await;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let dir = std::env::temp_dir().join(format!("accounts-{}", Uuid::now_v7().simple()));
        let layout = Layout { root, dir, passing: true, measured: false, observed: false, tls: false };
        layout.prepare().unwrap();
        let secrets = Secrets::load_or_create(&layout).unwrap();
        let supervisor = Supervisor::new(&layout).unwrap();
        let started = start::rabbitmq(&layout, &supervisor, &secrets, None, false).unwrap();
        let broker = Self { turn, layout, supervisor, started, secrets };
        start::rabbitmq_ready(&broker.supervisor, &broker.started).unwrap();
        broker
    }

    fn url(&self, service: &str) -> String {
        let secrets = &self.secrets;
        let password = match service {
            "user" => &secrets.user,
            "product" => &secrets.product,
            _ => &secrets.order,
        };
        self.started.url_for(service, password)
    }

    async fn connect(&self, service: &str) -> Connection {
        Connection::connect(&self.url(service), ConnectionProperties::default()).await.unwrap()
    }

    async fn service(&self, name: &'static str) -> Rig {
        Rig::start_as(name, &self.url(name), &self.started.admin_url(), "dockside").await
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.supervisor.stop();
        std::fs::remove_dir_all(&self.layout.dir).ok();
    }
}

/// What the broker says to it, on a channel of its own, as a refusal ends that.
async fn refused(connection: &Connection, act: impl AsyncFnOnce(&Channel) -> lapin::Result<()>) -> String {
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let answer = tokio::time::timeout(PATIENCE, act(&channel)).await.expect("the broker answers");
    answer.expect_err("it is refused").to_string()
}

async fn publish(
    channel: &Channel,
    exchange: &str,
    key: &str,
    properties: BasicProperties,
) -> lapin::Result<()> {
    let options = BasicPublishOptions::default();
    channel.basic_publish(exchange.into(), key.into(), options, b"", properties).await?.await.map(drop)
}

#[tokio::test]
async fn an_account_gets_at_its_own_queues_and_its_own_events_only() {
    let broker = Broker::start().await;
    let admin = Topology::new(&broker.started.admin_url(), "dockside", SUBSCRIPTIONS);
    let (_all, _declared) = admin.connect().await.unwrap();
    let product = broker.connect("product").await;
    let none = FieldTable::default;

    let plain = BasicProperties::default;
    for (exchange, key) in [
        ("", "dockside.order"),
        ("", "dockside.product"),
        ("dockside.order.aside", "dockside.order"),
        ("dockside.events", USER_DELETED),
        ("dockside.events", ORDER_PLACED),
    ] {
        let said = refused(&product, async |channel| publish(channel, exchange, key, plain()).await).await;
        assert!(said.contains("ACCESS_REFUSED"), "to {exchange:?} with {key}: {said}");
    }
    // In its own name, and in no other.
    let channel = product.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    publish(&channel, "dockside.events", PRODUCT_UPDATED, plain().with_user_id("product".into()))
        .await
        .unwrap();
    let said = refused(&product, async |channel| {
        let another = plain().with_user_id("user".into());
        publish(channel, "dockside.events", PRODUCT_UPDATED, another).await
    });
    let said = said.await;
    assert!(said.contains("PRECONDITION_FAILED"), "{said}");

    for queue in ["dockside.order", "dockside.order.dead", "dockside.user"] {
        let said = [
            refused(&product, async |channel| {
                channel.basic_get(queue.into(), BasicGetOptions::default()).await.map(drop)
            })
            .await,
            refused(&product, async |channel| {
                channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.map(drop)
            })
            .await,
            refused(&product, async |channel| {
                channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.map(drop)
            })
            .await,
            refused(&product, async |channel| {
                let (events, options) = ("dockside.events".into(), QueueBindOptions::default());
                channel.queue_bind(queue.into(), events, PRODUCT_UPDATED.into(), options, none()).await
            })
            .await,
            refused(&product, async |channel| {
                let events = "dockside.events".into();
                channel.queue_unbind(queue.into(), events, PRODUCT_UPDATED.into(), none()).await
            })
            .await,
        ];
        assert!(said.iter().all(|said| said.contains("ACCESS_REFUSED")), "{queue}: {said:?}");
    }
    // Nor does it listen in on what is not for it, or end what all need.
    for key in [USER_DELETED, "#", "user.#"] {
        let said = refused(&product, async |channel| {
            let (own, events) = ("dockside.product".into(), "dockside.events".into());
            channel.queue_bind(own, events, key.into(), QueueBindOptions::default(), none()).await
        });
        let said = said.await;
        assert!(said.contains("ACCESS_REFUSED"), "{key}: {said}");
    }
    let said = refused(&product, async |channel| {
        channel.exchange_delete("dockside.events".into(), ExchangeDeleteOptions::default()).await
    });
    assert!(said.await.contains("ACCESS_REFUSED"));
    // A queue of its own leads into no other by its dead letters.
    for exchange in ["", "dockside.order.aside"] {
        let said = refused(&product, async |channel| {
            let mut arguments = none();
            for (name, value) in
                [("x-dead-letter-exchange", exchange), ("x-dead-letter-routing-key", "dockside.order")]
            {
                arguments.insert(name.into(), AMQPValue::LongString(value.into()));
            }
            let (way, options) = ("dockside.product.way".into(), QueueDeclareOptions::default());
            channel.queue_declare(way, options, arguments).await.map(drop)
        });
        let said = said.await;
        assert!(said.contains("ACCESS_REFUSED"), "by {exchange:?}: {said}");
    }
}

/// Takes the next dead letter of the service.
async fn dead_letter(rig: &Rig, admin: &Channel, service: &str) -> BasicGetMessage {
    let dead = rig.topology.dead_letters(service);
    let dead =
        || async { admin.basic_get(dead.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap() };
    within(PATIENCE, "a dead letter", dead).await
}

#[tokio::test]
async fn services_with_such_accounts_lose_nothing_and_believe_no_forgery() {
    let broker = Broker::start().await;
    // Published before anybody listens, or may make a queue for them.
    let order = broker.service("order").await;
    order.write(ORDER_CANCELLED, 1..=1).await;
    let (user, product) = (broker.service("user").await, broker.service("product").await);
    user.applied(1).await;
    product.applied(1).await;
    order.published().await;
    let (_connection, admin) = order.topology.open().await.unwrap();

    // A retry goes by the service's own exchange and comes back.
    user.applied.fail.store(true, Ordering::Relaxed);
    order.write(ORDER_PLACED, BAD..=BAD).await;
    let retry = "dockside.user.retry.in.1s";
    let retried = || async {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let (connection, channel) = order.topology.open().await.unwrap();
        let found = channel.queue_declare(retry.into(), options, FieldTable::default()).await.is_ok();
        connection.close(200, "done".into()).await.unwrap();
        found.then_some(())
    };
    within(PATIENCE, "a retry queue", retried).await;
    user.applied.fail.store(false, Ordering::Relaxed);
    user.applied(2).await;
    // And so does a dead letter.
    user.applied.refuse.store(true, Ordering::Relaxed);
    order.write(ORDER_PLACED, BAD..=BAD).await;
    let dead = dead_letter(&order, &admin, "user").await;
    assert_eq!(Failure::of(&dead.properties).reason, "an unlucky number");

    // What an account may send does not become something else by its type.
    let mut headers = FieldTable::default();
    headers.insert("aggregate_id".into(), AMQPValue::LongString(Uuid::now_v7().to_string().into()));
    headers.insert("aggregate_version".into(), AMQPValue::LongLongInt(1));
    let forged = BasicProperties::default()
        .with_message_id(Uuid::now_v7().to_string().into())
        .with_type(USER_DELETED.into())
        .with_user_id("product".into())
        .with_headers(headers);
    let forger = broker.connect("product").await;
    let channel = forger.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    publish(&channel, "dockside.events", PRODUCT_UPDATED, forged).await.unwrap();
    let dead = dead_letter(&order, &admin, "order").await;
    let failure = Failure::of(&dead.properties);
    assert!(failure.untrusted && failure.reason.contains("routing key"), "{failure:?}");
    assert_eq!(order.count("SELECT count(*) FROM inbox").await, 0);

    // A queue that was lost is declared by its own service, and by no other.
    admin.queue_delete("dockside.user".into(), QueueDeleteOptions::default()).await.unwrap();
    let again = || async {
        let (connection, channel) = order.topology.open().await.unwrap();
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = channel.queue_declare("dockside.user".into(), options, FieldTable::default()).await;
        connection.close(200, "done".into()).await.unwrap();
        found.is_ok_and(|queue| queue.consumer_count() > 0).then_some(())
    };
    within(PATIENCE, "the queue to be there again", again).await;
    order.write(ORDER_PLACED, 1..=1).await;
    user.applied(3).await;
    product.write(PRODUCT_UPDATED, 1..=1).await;
    order.applied(1).await;
    for rig in [&order, &user, &product] {
        eventually("the outbox to be empty", || async {
            (messaging::backlog(&rig.pool).await.unwrap().waiting == 0).then_some(())
        })
        .await;
        assert!(rig.lifecycle.shutdown(Duration::from_secs(10)).await);
    }
}
