//! Events in effect: in one transaction with their inbox rows.

use std::collections::HashSet;

use service::{db, failpoint, telemetry};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;
use uuid::Uuid;

use super::{APPLY_DEADLINE, ApplyError, Handler, Worker};
use crate::envelope::Event;

impl<H: Handler> Worker<'_, H> {
    /// Whether the database takes writes: it tries an inbox row, and rolls back.
    pub(super) async fn probe(&self) -> anyhow::Result<()> {
        let probe = async {
            let mut transaction = service::db::begin(self.outbox.pool()).await?;
            let nobody = Uuid::now_v7();
            sqlx::query!("INSERT INTO inbox (consumer, event_id) VALUES ('', $1)", nobody)
                .execute(&mut *transaction)
                .await?;
            transaction.rollback().await
        };
        Ok(tokio::time::timeout(APPLY_DEADLINE, probe).await??)
    }

    pub(super) async fn apply(&self, events: &[Event]) -> Result<(), ApplyError> {
        if events.is_empty() {
            return Ok(());
        }
        timeout_at(Instant::now() + APPLY_DEADLINE, self.apply_in_time(events))
            .await
            .unwrap_or(Err(ApplyError::TookTooLong))
    }

    /// Inbox rows, effects and new events in one transaction. An error at the
    /// commit leaves open whether it happened; the inbox makes it safe to repeat.
    async fn apply_in_time(&self, events: &[Event]) -> Result<(), ApplyError> {
        let mut transaction = service::db::begin(self.outbox.pool()).await?;
        let fresh = self.fresh(&mut transaction, events).await?;
        if !fresh.is_empty() {
            let span = tracing::info_span!("events.apply", otel.kind = "consumer", events = fresh.len());
            // A batch has many parents and a span has one: the first event's.
            telemetry::continue_traceparent(&span, fresh[0].traceparent.as_deref());
            self.handler.apply(&mut transaction, &fresh).instrument(span).await?;
        }
        failpoint::hit("consumer.applied").await?;
        transaction.commit().await?;
        failpoint::hit("consumer.committed").await?;
        self.outbox.wake();
        Ok(())
    }

    /// The events that this consumer has not applied before, each once.
    async fn fresh(
        &self,
        connection: &mut db::Connection,
        events: &[Event],
    ) -> Result<Vec<Event>, ApplyError> {
        let mut ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
        ids.sort_unstable(); // or two replicas with overlapping batches deadlock
        ids.dedup();
        let new = sqlx::query!(
            r#"INSERT INTO inbox (consumer, event_id) SELECT $1, id FROM UNNEST($2::uuid[]) AS id
             ON CONFLICT DO NOTHING
             RETURNING event_id, event_id < (
                 lpad(to_hex((EXTRACT(epoch FROM now() - interval '29 days') * 1000)::bigint), 12, '0')
                 || repeat('0', 20))::uuid AS "old!""#,
            self.consumer,
            &ids,
        )
        .fetch_all(&mut *connection)
        .await?;
        // After the rows were written: so a row that was pruned just now is recorded, too.
        if new.iter().any(|row| row.old) {
            let pruned =
                sqlx::query_scalar!("SELECT up_to FROM inbox_pruned WHERE consumer = $1", self.consumer);
            let pruned = pruned.fetch_optional(connection).await?;
            let forgotten = |event: &&Event| {
                !event.forced
                    && pruned.is_some_and(|up_to| event.id <= up_to)
                    && new.iter().any(|row| row.event_id == event.id)
            };
            if events.iter().any(|event| forgotten(&event)) {
                return Err(ApplyError::Forgotten);
            }
        }
        let mut new: HashSet<Uuid> = new.into_iter().map(|row| row.event_id).collect();
        Ok(events.iter().filter(|event| new.remove(&event.id)).cloned().collect())
    }
}
