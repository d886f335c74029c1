//! What happens to orders becomes what their customers are told: a row in
//! `users.notifications` for each event.

use messaging::{ApplyError, Event, Handler, topology};
use proto::order::v1::{Order, OrderCancelled, OrderConfirmed, OrderPlaced};
use sqlx::PgConnection;
use uuid::Uuid;

pub(crate) struct Notifier;

impl Handler for Notifier {
    async fn apply(&self, connection: &mut PgConnection, events: &[Event]) -> Result<(), ApplyError> {
        let mut notifications = Vec::with_capacity(events.len());
        for event in events {
            let order = match event.kind.as_str() {
                topology::ORDER_PLACED => event.decode::<OrderPlaced>()?.order,
                topology::ORDER_CONFIRMED => event.decode::<OrderConfirmed>()?.order,
                topology::ORDER_CANCELLED => event.decode::<OrderCancelled>()?.order,
                _ => continue,
            };
            notifications.push(Notification::new(event, order.as_ref())?);
        }
        insert(connection, notifications).await?;
        Ok(())
    }
}

struct Notification {
    event: Uuid,
    user: Uuid,
    order: Uuid,
    kind: String,
}

impl Notification {
    fn new(event: &Event, order: Option<&Order>) -> Result<Self, ApplyError> {
        let rejected = |what: &str| ApplyError::Rejected(format!("{} has {what}", event.kind));
        let order = order.ok_or_else(|| rejected("no order"))?;
        Ok(Self {
            event: event.id,
            user: order.user_id.parse().map_err(|_| rejected("no user id"))?,
            order: order.id.parse().map_err(|_| rejected("no order id"))?,
            kind: event.kind.clone(),
        })
    }
}

async fn insert(connection: &mut PgConnection, mut notifications: Vec<Notification>) -> sqlx::Result<()> {
    if notifications.is_empty() {
        return Ok(());
    }
    notifications.sort_unstable_by_key(|notification| notification.event); // or two replicas deadlock
    let events: Vec<Uuid> = notifications.iter().map(|one| one.event).collect();
    let users: Vec<Uuid> = notifications.iter().map(|one| one.user).collect();
    let orders: Vec<Uuid> = notifications.iter().map(|one| one.order).collect();
    let kinds: Vec<String> = notifications.into_iter().map(|one| one.kind).collect();
    sqlx::query!(
        "INSERT INTO users.notifications (event_id, user_id, order_id, kind)
         SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::text[])
         ON CONFLICT (event_id) DO NOTHING",
        &events,
        &users,
        &orders,
        &kinds,
    )
    .execute(connection)
    .await?;
    Ok(())
}
