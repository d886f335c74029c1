//! Events, on a real broker and in the form that is documented.

use crate::app::App;
use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use messaging::topology::Topology;
use prost::Message;
use proto::order::v1::{
    Order, OrderCancelled, OrderConfirmed, OrderDelivered, OrderPlaced, OrderRefunded, OrderShipped,
};
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
    let topology = Topology::new(&amqp_url, &namespace, proto::events::SUBSCRIPTIONS);
    let (_connection, channel) = topology.connect().await.unwrap();
    let app = App::start_with(&testing::database("users").await, &amqp_url, &namespace, &[]).await;

    let user = app.register("ada@example.com").await.body["id"].as_str().unwrap().to_owned();
    let order = Uuid::now_v7();
    let of =
        |user: &str| Some(Order { id: order.to_string(), user_id: user.to_owned(), ..Default::default() });
    let body = || of(&user);
    let placed = OrderPlaced { order: body() }.encode_to_vec();
    let stranger = OrderPlaced { order: of(&Uuid::now_v7().to_string()) }.encode_to_vec();
    let (exchange, duplicated) = (topology.exchange(), Uuid::now_v7());
    for (kind, id, body) in [
        ("order.placed.v1", duplicated, placed.clone()),
        ("order.placed.v1", duplicated, placed),
        (
            "order.confirmed.v1",
            Uuid::now_v7(),
            OrderConfirmed { order: body(), ..Default::default() }.encode_to_vec(),
        ),
        ("order.placed.v1", Uuid::now_v7(), OrderPlaced { order: None }.encode_to_vec()),
        // Of an account that has gone.
        ("order.placed.v1", Uuid::now_v7(), stranger),
        (
            "order.shipped.v1",
            Uuid::now_v7(),
            OrderShipped { order: body(), ..Default::default() }.encode_to_vec(),
        ),
        ("order.delivered.v1", Uuid::now_v7(), OrderDelivered { order: body() }.encode_to_vec()),
        (
            "order.refunded.v1",
            Uuid::now_v7(),
            OrderRefunded { order: body(), ..Default::default() }.encode_to_vec(),
        ),
        (
            "order.cancelled.v1",
            Uuid::now_v7(),
            OrderCancelled { order: body(), reason: "customer".into(), ..OrderCancelled::default() }
                .encode_to_vec(),
        ),
    ] {
        publish(&channel, &exchange, kind, id, body).await;
    }

    // The last one published is applied after all before it were settled.
    testing::eventually("the last notification", || async {
        let last = "SELECT count(*) FROM users.notifications WHERE kind = 'order.cancelled.v1'";
        (app.count(last).await == 1).then_some(())
    })
    .await;
    let notified: Vec<(Uuid, Uuid, String)> =
        sqlx::query_as("SELECT user_id, order_id, kind FROM users.notifications ORDER BY kind")
            .fetch_all(&app.pool)
            .await
            .unwrap();
    let expected = ["cancelled", "confirmed", "delivered", "placed", "refunded", "shipped"];
    let user: Uuid = user.parse().unwrap();
    assert_eq!(notified, expected.map(|what| (user, order, format!("order.{what}.v1"))));
    // Without a mail server they are recorded, and no more is kept than that.
    let recorded = "SELECT count(*) FROM users.notifications WHERE status = 'recorded' AND payload IS NULL";
    assert_eq!(app.count(recorded).await, 6);

    // The one without an order blocked nothing and did not vanish.
    let dead = topology.dead_letters("user");
    testing::eventually("the dead letter", || async {
        channel.basic_get(dead.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn events_flow_while_the_mail_server_hangs() {
    // Connections are taken, and never answered.
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}", server.local_addr().unwrap());
    let (amqp_url, namespace) = (testing::amqp_url(), testing::namespace());
    let topology = Topology::new(&amqp_url, &namespace, proto::events::SUBSCRIPTIONS);
    let (_connection, channel) = topology.connect().await.unwrap();
    let settings = ["--smtp-url", &url, "--smtp-deadline-seconds=20"];
    let app = App::start_with(&testing::database("users").await, &amqp_url, &namespace, &settings).await;
    let user = app.register("ada@example.com").await.body["id"].as_str().unwrap().to_owned();
    let exchange = topology.exchange();
    let publish_one = async || {
        let order = Order { id: Uuid::now_v7().to_string(), user_id: user.clone(), ..Default::default() };
        let body = OrderPlaced { order: Some(Order { currency: "EUR".into(), ..order }) }.encode_to_vec();
        publish(&channel, &exchange, "order.placed.v1", Uuid::now_v7(), body).await;
    };
    publish_one().await;
    testing::eventually("the sender is held up", || async {
        let claimed = "SELECT count(*) FROM users.notifications WHERE attempts = 1";
        (app.count(claimed).await == 1).then_some(())
    })
    .await;
    for _ in 0..300 {
        publish_one().await;
    }
    testing::eventually("all events are applied", || async {
        let pending = "SELECT count(*) FROM users.notifications WHERE status = 'pending'";
        (app.count(pending).await == 301).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_registration_is_announced_to_subscribers() {
    let (amqp_url, namespace) = (testing::amqp_url(), testing::namespace());
    let topology = Topology::new(&amqp_url, &namespace, proto::events::SUBSCRIPTIONS);
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
