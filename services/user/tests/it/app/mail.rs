//! Mails to be sent, as the consumer leaves them.

use prost::Message;
use proto::order::v1::{Line, Order, OrderPlaced};
use serde_json::Value;
use uuid::Uuid;

use super::App;

fn placed(user: &str) -> Vec<u8> {
    let line = Line { name: "Mug <b>".into(), quantity: 2, unit_price: 1250, ..Line::default() };
    let order = Order {
        id: Uuid::now_v7().to_string(),
        user_id: user.to_owned(),
        lines: vec![line],
        total: 2500,
        currency: "EUR".to_owned(),
        number: "F7K2M-9XHRR".to_owned(),
    };
    OrderPlaced { order: Some(order) }.encode_to_vec()
}

/// Registers somebody and writes what the consumer would write of an event.
pub async fn queue(app: &App, email: &str) -> Uuid {
    let user: Uuid =
        app.register(email).await.body["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
    let event = Uuid::now_v7();
    sqlx::query(
        "INSERT INTO users.notifications (event_id, user_id, order_id, kind, payload, status)
         VALUES ($1, $2, $3, 'order.placed.v1', $4, 'pending')",
    )
    .bind(event)
    .bind(user)
    .bind(Uuid::now_v7())
    .bind(placed(&user.to_string()))
    .execute(&app.pool)
    .await
    .expect("the statement works");
    event
}

/// Queues `count` more mails like that of `event`, all at once.
pub async fn queue_more(app: &App, event: Uuid, count: usize) -> Vec<Uuid> {
    queue_together(app, &[(event, count)]).await
}

/// Queues as many more mails like that of each event, all of them at once.
pub async fn queue_together(app: &App, like: &[(Uuid, usize)]) -> Vec<Uuid> {
    let like: Vec<Uuid> = like.iter().flat_map(|(event, count)| vec![*event; *count]).collect();
    let events: Vec<Uuid> = like.iter().map(|_| Uuid::now_v7()).collect();
    sqlx::query(
        "INSERT INTO users.notifications (event_id, user_id, order_id, kind, payload, status)
         SELECT new.id, user_id, order_id, kind, $3, 'pending'
         FROM UNNEST($1::uuid[], $2::uuid[]) AS new (like_event, id)
         JOIN users.notifications ON event_id = new.like_event",
    )
    .bind(&like)
    .bind(&events)
    .bind(placed("nobody"))
    .execute(&app.pool)
    .await
    .expect("the statement works");
    events
}

/// Waits until the mail's row, as JSON, passes `test`.
pub async fn until(app: &App, event: Uuid, what: &str, test: impl Fn(&Value) -> bool) -> Value {
    testing::eventually(what, || async {
        let row: String =
            sqlx::query_scalar("SELECT row_to_json(n)::text FROM users.notifications n WHERE event_id = $1")
                .bind(event)
                .fetch_one(&app.pool)
                .await
                .expect("there is such a row");
        Some(serde_json::from_str(&row).expect("JSON")).filter(&test)
    })
    .await
}

pub async fn until_sent(app: &App, event: Uuid) -> Value {
    until(app, event, "the mail is sent", |row| row["status"] == "sent").await
}

pub const TIME_PASSES: &str = "UPDATE users.notifications SET due_at = now() WHERE status = 'pending'";
