//! The content of a dead letter.

use std::time::{SystemTime, UNIX_EPOCH};

use lapin::message::Delivery;
use messaging::envelope::Failure;
use messaging::{Event, INBOX_REMEMBERS};
use prost::Message;
use proto::events::{
    ORDER_CANCELLED, ORDER_CONFIRMED, ORDER_DELIVERED, ORDER_PLACED, ORDER_REFUNDED, ORDER_SHIPPED,
    PRODUCT_UPDATED, USER_DELETED, USER_REGISTERED,
};
use proto::{order, product, user};
use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

#[derive(Clone, Debug, Serialize)]
pub struct DeadLetter {
    /// The service whose queue it died in.
    pub service: &'static str,
    /// The message id, which is the event's; without one, a name made of the body.
    pub id: String,
    /// Whether it is an event at all: anything else can't be replayed.
    pub event: bool,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub aggregate_id: Option<Uuid>,
    pub attempts: i64,
    pub error: String,
    /// Seconds since it failed or, where that was not recorded, since the event was made.
    pub age_seconds: Option<u64>,
    /// The event is older than an inbox remembers.
    pub forgotten: bool,
    /// Its service did not trust it.
    pub untrusted: bool,
    /// The body as text, where it decodes as what `kind` says.
    pub body: Option<String>,
    pub body_hex: String,
}

impl DeadLetter {
    pub(super) fn of(service: &'static str, delivery: &Delivery) -> Self {
        let properties = &delivery.properties;
        let failure = Failure::of(properties);
        let event = Event::from_delivery(delivery);
        let kind = properties.kind().as_ref().map(|kind| kind.to_string());
        let id = properties.message_id().as_ref().map(|id| id.to_string()).filter(|id| !id.is_empty());
        let made = event.as_ref().and_then(|event| event.id.get_timestamp()).map(|made| made.to_unix().0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self {
            service,
            id: id.unwrap_or_else(|| format!("body-{}", hex::encode(&Sha256::digest(&delivery.data)[..6]))),
            event: event.is_some(),
            body: kind.as_deref().and_then(|kind| decoded(kind, &delivery.data)),
            kind,
            aggregate_id: event.map(|event| event.aggregate_id),
            attempts: failure.attempts,
            untrusted: failure.untrusted,
            error: failure.reason,
            forgotten: made.is_some_and(|then| now.saturating_sub(then) >= INBOX_REMEMBERS.as_secs()),
            age_seconds: failure.at.or(made).map(|then| now.saturating_sub(then)),
            body_hex: hex::encode(&delivery.data),
        }
    }
}

/// An event's body as text; `None` for an unknown type and for what does not decode.
fn decoded(kind: &str, body: &[u8]) -> Option<String> {
    fn text<M: Message + Default + std::fmt::Debug>(body: &[u8]) -> Option<String> {
        M::decode(body).ok().map(|message| format!("{message:#?}"))
    }
    match kind {
        ORDER_PLACED => text::<order::v1::OrderPlaced>(body),
        ORDER_CONFIRMED => text::<order::v1::OrderConfirmed>(body),
        ORDER_CANCELLED => text::<order::v1::OrderCancelled>(body),
        ORDER_SHIPPED => text::<order::v1::OrderShipped>(body),
        ORDER_DELIVERED => text::<order::v1::OrderDelivered>(body),
        ORDER_REFUNDED => text::<order::v1::OrderRefunded>(body),
        PRODUCT_UPDATED => text::<product::v1::ProductUpdated>(body),
        USER_REGISTERED => text::<user::v1::UserRegistered>(body),
        USER_DELETED => text::<user::v1::UserDeleted>(body),
        _ => None,
    }
}
