//! Events, on a real broker and in the form that is documented.

mod app;

use app::App;
use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use messaging::topology::Topology;
use prost::Message;
use proto::order::v1::{Order, OrderCancelled, OrderConfirmed, OrderPlaced};
use proto::user::v1::UserRegistered;
use uuid::Uuid;

async fn publish(channel: &Channel, exchange: &str, kind: &str, id: Uuid, body: Vec<u8>) {
    let mut headers = FieldTable::default();
    headers.insert("aggregate_id".into(), AMQPValue::LongString(Uuid::now_v7().to_string().into()));
    headers.insert("aggregate_version".into(), AMQPValue::LongLongInt(1));
    let properties = BasicProperties::default()
        .with_message_id(id.to_string().into())
        .with_type(kind.into())
        .with_headers(headers);
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let publish = channel.basic_publish(exchange.into(), kind.into(), options, &body, properties);
    let confirmation = publish.await.expect("the broker is there").await.expect("it answers");
    assert!(matches!(confirmation, lapin::Confirmation::Ack(None)));
}

#[tokio::test]
async fn order_events_become_notifications_once_each() {
    let (amqp_url, namespace) = (testing::amqp_url(), testing::namespace());
    let topology = Topology::new(&amqp_url, &namespace);
    let (_connection, channel) = topology.connect().await.unwrap();
    let app = App::start_with(&testing::database("users").await, &amqp_url, &namespace, &[]).await;

    let (user, order) = (Uuid::now_v7(), Uuid::now_v7());
    let body = || Some(Order { id: order.to_string(), user_id: user.to_string(), ..Default::default() });
    let placed = OrderPlaced { order: body() }.encode_to_vec();
    let confirmed = OrderConfirmed { order: body() }.encode_to_vec();
    let cancelled = OrderCancelled { order: body(), reason: "customer".into() }.encode_to_vec();
    let (exchange, duplicated) = (topology.exchange(), Uuid::now_v7());
    for (kind, id, body) in [
        ("order.placed.v1", duplicated, placed.clone()),
        ("order.placed.v1", duplicated, placed),
        ("order.confirmed.v1", Uuid::now_v7(), confirmed),
        ("order.placed.v1", Uuid::now_v7(), OrderPlaced { order: None }.encode_to_vec()),
        ("order.cancelled.v1", Uuid::now_v7(), cancelled),
    ] {
        publish(&channel, &exchange, kind, id, body).await;
    }

    // The last one published is applied after all before it were settled.
    testing::eventually("the last notification", || async {
        let last = "SELECT count(*) FROM users.notifications WHERE kind = 'order.cancelled.v1'";
        (app.count(last).await == 1).then_some(())
    })
    .await;
    let told: Vec<(Uuid, Uuid, String)> =
        sqlx::query_as("SELECT user_id, order_id, kind FROM users.notifications ORDER BY kind")
            .fetch_all(&app.pool)
            .await
            .unwrap();
    let expected = ["order.cancelled.v1", "order.confirmed.v1", "order.placed.v1"];
    assert_eq!(told, expected.map(|kind| (user, order, kind.to_owned())));

    // The one without an order blocked nothing and did not vanish.
    let dead = topology.dead_letters("user");
    testing::eventually("the dead letter", || async {
        channel.basic_get(dead.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_registration_is_told_to_whoever_listens() {
    let (amqp_url, namespace) = (testing::amqp_url(), testing::namespace());
    let topology = Topology::new(&amqp_url, &namespace);
    let (_connection, channel) = topology.connect().await.unwrap();
    let (queue, exchange) = (format!("{namespace}.listener"), topology.exchange());
    let exclusive = QueueDeclareOptions { exclusive: true, ..Default::default() };
    channel.queue_declare(queue.as_str().into(), exclusive, FieldTable::default()).await.unwrap();
    let (kind, options) = ("user.registered.v1", QueueBindOptions::default());
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

    let app = App::start_with(&testing::database("users").await, &amqp_url, &namespace, &[]).await;
    let id = app.register("ada@example.com").await.body["id"].as_str().unwrap().to_owned();
    let message = testing::eventually("user.registered", || async {
        channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap()
    })
    .await;
    let body = UserRegistered::decode(message.delivery.data.as_slice()).unwrap();
    assert_eq!(body.user_id, id);
    assert_eq!(message.delivery.properties.kind().as_ref().unwrap().as_str(), kind);
}
