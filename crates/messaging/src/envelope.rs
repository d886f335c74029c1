//! An event on the wire: AMQP properties and headers around a protobuf body.

use std::time::{SystemTime, UNIX_EPOCH};

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use uuid::Uuid;

/// A received event.
#[derive(Clone, Debug)]
pub struct Event {
    pub id: Uuid,
    /// E.g. `order.cancelled.v1`.
    pub kind: String,
    pub aggregate_id: Uuid,
    pub aggregate_version: i64,
    pub payload: Vec<u8>,
    pub(crate) traceparent: Option<String>,
    /// To be applied even if it is no longer known whether it was applied before.
    pub(crate) forced: bool,
}

impl Event {
    /// The body; an error names the event, which then ends as a dead letter.
    pub fn decode<M: prost::Message + Default>(&self) -> Result<M, crate::ApplyError> {
        M::decode(self.payload.as_slice())
            .map_err(|error| crate::ApplyError::Rejected(format!("{} does not decode: {error}", self.kind)))
    }

    /// `None` when a property that every event has is missing or malformed.
    pub fn from_delivery(delivery: &Delivery) -> Option<Self> {
        let properties = &delivery.properties;
        let headers = properties.headers().as_ref()?;
        Some(Self {
            id: properties.message_id().as_ref()?.as_str().parse().ok()?,
            kind: properties.kind().as_ref()?.to_string(),
            aggregate_id: text(headers, "aggregate_id")?.parse().ok()?,
            aggregate_version: number(headers, "aggregate_version")?,
            payload: delivery.data.clone(),
            traceparent: text(headers, "traceparent"),
            forced: is_set(headers, FORCED),
        })
    }

    pub(crate) fn properties(&self, account: &str) -> BasicProperties {
        let mut headers = FieldTable::default();
        let mut set = |name: &str, value: AMQPValue| {
            headers.insert(name.into(), value);
        };
        set("aggregate_id", AMQPValue::LongString(self.aggregate_id.to_string().into()));
        set("aggregate_version", AMQPValue::LongLongInt(self.aggregate_version));
        if let Some(traceparent) = &self.traceparent {
            set("traceparent", AMQPValue::LongString(traceparent.clone().into()));
        }
        let short = |text: &str| ShortString::try_new(text).unwrap_or_default();
        BasicProperties::default()
            .with_delivery_mode(2) // persistent
            .with_content_type("application/x-protobuf".into())
            .with_message_id(short(&self.id.to_string()))
            .with_type(short(&self.kind))
            .with_user_id(short(account))
            .with_headers(headers)
    }
}

const ATTEMPTS: &str = "dockside-attempts";
const ERROR: &str = "dockside-error";
const FORCED: &str = "dockside-forced";
const UNTRUSTED: &str = "dockside-untrusted";

/// How often the delivery was already tried and put into a retry queue.
pub(crate) fn attempts(properties: &BasicProperties) -> i64 {
    properties.headers().as_ref().and_then(|headers| number(headers, ATTEMPTS)).unwrap_or(0)
}

/// The delivery's properties with its count of attempts, why the last one
/// failed, and when.
pub(crate) fn failed(properties: &BasicProperties, attempts: i64, reason: &str) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(ATTEMPTS.into(), AMQPValue::LongLongInt(attempts));
    headers.insert(ERROR.into(), AMQPValue::LongString(reason.to_owned().into()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    properties.clone().with_headers(headers).with_delivery_mode(2).with_timestamp(now)
}

/// As [`failed`], for a message that was not trusted.
pub(crate) fn untrusted(properties: &BasicProperties, reason: &str) -> BasicProperties {
    let failed = failed(properties, 0, reason);
    let mut headers = failed.headers().clone().unwrap_or_default();
    headers.insert(UNTRUSTED.into(), AMQPValue::Boolean(true));
    failed.with_headers(headers)
}

/// The known facts about a dead letter's failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub attempts: i64,
    pub reason: String,
    /// When the consumer dead-lettered it, in seconds since 1970; none when the broker did.
    pub at: Option<u64>,
    /// It was not trusted: its sender may not send it, or it did not come by the way of its type.
    pub untrusted: bool,
}

impl Failure {
    pub fn of(properties: &BasicProperties) -> Self {
        let headers = properties.headers().clone().unwrap_or_default();
        // The broker itself makes dead letters of messages that it delivered too often, and says so here.
        let reason = text(&headers, ERROR)
            .or_else(|| Some(format!("the broker gave up: {}", text(&headers, "x-first-death-reason")?)));
        Self {
            attempts: attempts(properties),
            reason: reason.unwrap_or_else(|| "unknown".to_owned()),
            at: *properties.timestamp(),
            untrusted: is_set(&headers, UNTRUSTED),
        }
    }
}

/// The properties of a dead letter as they were before it failed: as for a first delivery, with all attempts
/// ahead. `forced`: it is to be applied even if it is older than its consumer's inbox remembers. `account`:
/// the sender now.
pub fn revived(properties: &BasicProperties, forced: bool, account: &str) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in properties.headers().clone().unwrap_or_default().inner() {
        let ours = [ATTEMPTS, ERROR, FORCED, UNTRUSTED].contains(&name.as_str());
        // x-death, x-delivery-count and the like.
        if !ours && !name.as_str().starts_with("x-") {
            headers.insert(name.clone(), value.clone());
        }
    }
    if forced {
        headers.insert(FORCED.into(), AMQPValue::Boolean(true));
    }
    sent_by(properties.clone().with_headers(headers).with_delivery_mode(2), account)
}

/// The same from another account: the broker takes no message in anybody else's name.
pub fn sent_by(properties: BasicProperties, account: &str) -> BasicProperties {
    properties.with_user_id(ShortString::try_new(account).unwrap_or_default())
}

/// How often the broker has delivered this message and got it back.
pub fn delivery_count(properties: &BasicProperties) -> i64 {
    properties.headers().as_ref().and_then(|headers| number(headers, "x-delivery-count")).unwrap_or(0)
}

fn text(headers: &FieldTable, name: &str) -> Option<String> {
    match headers.inner().get(name)? {
        AMQPValue::LongString(value) => Some(value.to_string()),
        AMQPValue::ShortString(value) => Some(value.to_string()),
        _ => None,
    }
}

fn is_set(headers: &FieldTable, name: &str) -> bool {
    matches!(headers.inner().get(name), Some(AMQPValue::Boolean(true)))
}

fn number(headers: &FieldTable, name: &str) -> Option<i64> {
    match headers.inner().get(name)? {
        AMQPValue::LongLongInt(value) => Some(*value),
        AMQPValue::LongInt(value) => Some(i64::from(*value)),
        AMQPValue::ShortInt(value) => Some(i64::from(*value)),
        AMQPValue::ShortShortInt(value) => Some(i64::from(*value)),
        AMQPValue::ShortShortUInt(value) => Some(i64::from(*value)),
        _ => None,
    }
}
