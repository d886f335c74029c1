//! P10: poison neither blocks nor vanishes: what can't be applied becomes a dead letter, the rest flows on,
//! and a dead letter can be replayed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use messaging::topology::Topology;
use operator::dlq::{self, Which};
use prost::Message;
use proto::events::{
    ORDER_CANCELLED, ORDER_CONFIRMED, ORDER_PLACED, ORDER_SHIPPED, PRODUCT_UPDATED, USER_DELETED,
};
use proto::order::v1::{Order, OrderShipped};
use proto::user::v1::UserDeleted;
use system_tests::{Shop, eventually};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(15);

/// Whose dead letters have which id.
type Dead = BTreeSet<(&'static str, String)>;

struct Broker {
    topology: Topology,
    channel: Channel,
    _connection: Connection,
}

impl Broker {
    async fn open(shop: &Shop) -> Self {
        let topology = Topology::new(&shop.broker_url, "dockside", proto::events::SUBSCRIPTIONS);
        let (_connection, channel) = topology.open().await.unwrap();
        Self { topology, channel, _connection }
    }

    /// Sends something the way events are sent.
    async fn publish(&self, kind: &str, properties: BasicProperties, body: &[u8]) {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let exchange = self.topology.exchange();
        let sent = self
            .channel
            .basic_publish(exchange.as_str().into(), kind.into(), options, body, properties)
            .await;
        assert!(matches!(sent.unwrap().await.unwrap(), Confirmation::Ack(None)));
    }

    async fn dead(&self) -> Dead {
        let services = dlq::services(None).unwrap();
        let found = dlq::list(&self.topology, &services, 10_000).await.unwrap();
        found.dead_letters.into_iter().map(|dead| (dead.service, dead.id)).collect()
    }
}

/// What every event has, after `attempts` in vain.
fn event(id: Uuid, kind: &str, aggregate: Uuid, attempts: i64) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("aggregate_id".into(), AMQPValue::LongString(aggregate.to_string().into()));
    headers.insert("aggregate_version".into(), AMQPValue::LongLongInt(1));
    headers.insert("dockside-attempts".into(), AMQPValue::LongLongInt(attempts));
    let properties = BasicProperties::default().with_delivery_mode(2);
    properties.with_message_id(id.to_string().into()).with_type(kind.into()).with_headers(headers)
}

/// Among every 25 events one that can't be applied, of each kind to each
/// service that gets any.
async fn inject(broker: &Broker, flowing: &Shop) -> Dead {
    let nobody = UserDeleted { user_id: "nobody".to_owned() }.encode_to_vec();
    let garbage: &[u8] = &[0xff; 40];
    // Subscribers, type, whether it has an event's properties, body.
    let poison: [(&[&'static str], &str, bool, &[u8]); 9] = [
        (&["user"], ORDER_PLACED, false, b"noise"),
        (&["user", "product"], ORDER_CANCELLED, false, b""),
        (&["order"], PRODUCT_UPDATED, false, garbage),
        (&["user"], ORDER_CONFIRMED, true, garbage),
        (&["user", "product"], ORDER_CANCELLED, true, garbage),
        (&["order"], PRODUCT_UPDATED, true, garbage),
        (&["user"], ORDER_SHIPPED, true, b""),
        (&["order"], PRODUCT_UPDATED, true, b""),
        (&["order"], USER_DELETED, true, &nobody),
    ];
    let mut injected = Dead::new();
    for (subscribers, kind, is_event, body) in poison {
        let applied = applied(flowing).await;
        let id = Uuid::now_v7();
        let properties = match is_event {
            true => event(id, kind, Uuid::now_v7(), 0),
            false => BasicProperties::default().with_message_id(id.to_string().into()),
        };
        broker.publish(kind, properties, body).await;
        injected.extend(subscribers.iter().map(|service| (*service, id.to_string())));
        let flows = || async { (self::applied(flowing).await >= applied + 25).then_some(()) };
        eventually("events to flow past the poison", PATIENCE, flows).await;
    }
    injected
}

async fn applied(shop: &Shop) -> i64 {
    let count = "SELECT count(*) FROM users.inbox";
    sqlx::query_scalar(count).fetch_one(&shop.database).await.unwrap()
}

async fn dead_letters_counted(shop: &Shop) -> u64 {
    let mut sum = 0;
    for service in dlq::services(None).unwrap() {
        let counter = format!("events_put_aside_total{{queue=\"dockside.{service}.dead\"}}");
        sum += shop.counted(service, &counter).await;
    }
    sum
}

#[tokio::test]
async fn p10_poison_neither_blocks_nor_vanishes_and_can_be_replayed() {
    let shop = Arc::new(Shop::open().await);
    let broker = Broker::open(&shop).await;
    let before = broker.dead().await;
    let counted = dead_letters_counted(&shop).await;
    let product = shop.product(100_000).await;
    let stop = Arc::new(AtomicBool::new(false));
    let buyers: Vec<_> = (0..4)
        .map(|_| {
            let (shop, stop) = (shop.clone(), stop.clone());
            tokio::spawn(async move {
                let buyer = shop.customer().await;
                let mut placed: Vec<Uuid> = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    placed.push(buyer.place(product, 1, "pm_card_visa").await.parse().unwrap());
                }
                for order in &placed {
                    assert_eq!(buyer.ended(&order.to_string()).await["status"], "confirmed");
                }
                placed
            })
        })
        .collect();
    let injected = inject(&broker, &shop).await;
    stop.store(true, Ordering::Relaxed);
    let mut orders = Vec::new();
    for buyer in buyers {
        orders.extend(buyer.await.unwrap());
    }

    // Every event of every order had its effect, and exactly the poison is dead.
    let applied = || async {
        let missing: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM orders.outbox e
             LEFT JOIN users.inbox i ON i.consumer = 'user' AND i.event_id = e.id
             WHERE e.aggregate_id = ANY($1) AND i.event_id IS NULL",
        )
        .bind(&orders)
        .fetch_one(&shop.database)
        .await
        .unwrap();
        (missing == 0).then_some(())
    };
    eventually("every order's events to be applied", PATIENCE, applied).await;
    let dead = broker.dead().await;
    assert_eq!(dead.difference(&before).cloned().collect::<Dead>(), injected);
    assert_eq!(before.difference(&dead).count(), 0);
    // Each was counted, which is what an alarm sees.
    assert_eq!(dead_letters_counted(&shop).await - counted, injected.len() as u64);

    replay(&shop, &broker, orders[0]).await;

    for (service, id) in &injected {
        let dropped = dlq::drop(&broker.topology, &[*service], &Which::Id(id.clone())).await.unwrap();
        assert_eq!(dropped.done.len(), 1);
    }
    assert_eq!(broker.dead().await, before);
}

/// A good event that its service can't write for now: dead after its last try, and applied once it is
/// replayed.
async fn replay(shop: &Shop, broker: &Broker, order: Uuid) {
    let obstacle = format!("p10_{}", Uuid::now_v7().simple());
    let sql = |text: String| async move {
        use sqlx::Executor;
        shop.database.execute(sqlx::AssertSqlSafe(text)).await.unwrap();
    };
    let id = Uuid::now_v7();
    sql(format!(
        "CREATE FUNCTION users.{obstacle}() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'in the way'; END $$;
         GRANT EXECUTE ON FUNCTION users.{obstacle}() TO PUBLIC;
         CREATE TRIGGER {obstacle} BEFORE INSERT ON users.notifications FOR EACH ROW
         WHEN (NEW.event_id = '{id}') EXECUTE FUNCTION users.{obstacle}()"
    ))
    .await;
    let user: Uuid = sqlx::query_scalar("SELECT user_id FROM orders.orders WHERE id = $1")
        .bind(order)
        .fetch_one(&shop.database)
        .await
        .unwrap();
    let (id_of_order, user_id, currency) = (order.to_string(), user.to_string(), "EUR".to_owned());
    let body = Order { id: id_of_order, user_id, total: 1250, currency, ..Order::default() };
    let body = OrderShipped {
        order: Some(body),
        carrier: "Post".to_owned(),
        tracking_number: "1".to_owned(),
        ..Default::default()
    };
    // Four tries are behind it, so the next failure is the last.
    broker.publish(ORDER_SHIPPED, event(id, ORDER_SHIPPED, order, 4), &body.encode_to_vec()).await;
    let dead = ("user", id.to_string());
    let dies = || async { broker.dead().await.contains(&dead).then_some(()) };
    eventually("the event to die", PATIENCE, dies).await;

    sql(format!("DROP TRIGGER {obstacle} ON users.notifications; DROP FUNCTION users.{obstacle}()")).await;
    let moved = dlq::replay(&broker.topology, &["user"], &Which::Id(id.to_string()), false).await.unwrap();
    assert_eq!(moved.done.len(), 1);
    shop.eventually("SELECT count(*) FROM users.notifications WHERE event_id = $1", id, 1).await;
    assert!(!broker.dead().await.contains(&dead));
}
