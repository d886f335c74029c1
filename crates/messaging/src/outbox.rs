//! The writer's side: events are rows, written in the transaction of their change.

use std::sync::Arc;

use prost::Message;
use service::db;
use service::db::Pool;
use tokio::sync::Notify;
use uuid::Uuid;

/// An event to be published once the transaction commits.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub kind: &'static str,
    pub aggregate_id: Uuid,
    /// Grows with every change of the aggregate.
    pub aggregate_version: i64,
    pub payload: Vec<u8>,
    traceparent: Option<String>,
}

impl NewEvent {
    /// `kind` is the event's type and routing key, e.g. `order.placed.v1`. The
    /// event belongs to the trace of whoever makes it.
    pub fn new(kind: &'static str, aggregate_id: Uuid, aggregate_version: i64, body: &impl Message) -> Self {
        let traceparent = service::telemetry::traceparent();
        Self { kind, aggregate_id, aggregate_version, payload: body.encode_to_vec(), traceparent }
    }

    /// The event as part of another trace, for work done in batches.
    pub fn in_trace(self, traceparent: Option<String>) -> Self {
        Self { traceparent, ..self }
    }
}

/// Writes events in the caller's transaction. Call [`Outbox::wake`] once it
/// has committed.
pub async fn enqueue(connection: &mut db::Connection, events: &[NewEvent]) -> sqlx::Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = events.iter().map(|_| Uuid::now_v7()).collect();
    let kinds: Vec<String> = events.iter().map(|event| event.kind.to_owned()).collect();
    let aggregates: Vec<Uuid> = events.iter().map(|event| event.aggregate_id).collect();
    let versions: Vec<i64> = events.iter().map(|event| event.aggregate_version).collect();
    let payloads: Vec<Vec<u8>> = events.iter().map(|event| event.payload.clone()).collect();
    let traces: Vec<Option<String>> = events.iter().map(|event| event.traceparent.clone()).collect();
    sqlx::query!(
        "INSERT INTO outbox (id, type, aggregate_id, aggregate_version, payload, traceparent)
         SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::uuid[], $4::bigint[], $5::bytea[], $6::text[])",
        &ids,
        &kinds,
        &aggregates,
        &versions,
        &payloads,
        &traces as &[Option<String>],
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The service's outbox and the signal that wakes its relay.
///
/// The relay runs in the writer's own process, so a signal in memory wakes it without a NOTIFY, whose lock
/// would queue up all commits of the database. Polling finds what another process left.
#[derive(Clone)]
pub struct Outbox {
    pool: Pool,
    wake_up: Arc<Notify>,
}

impl Outbox {
    pub fn new(pool: Pool) -> Self {
        Self { pool, wake_up: Arc::new(Notify::new()) }
    }

    /// Wakes the relay after a transaction with events has committed.
    pub fn wake(&self) {
        self.wake_up.notify_one();
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) async fn woken(&self) {
        self.wake_up.notified().await;
    }
}
