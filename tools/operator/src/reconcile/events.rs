//! Outboxes against the inboxes of those who subscribe.

use std::collections::HashSet;

use proto::events::SUBSCRIPTIONS;
use sqlx::{AssertSqlSafe, FromRow, PgConnection};
use uuid::Uuid;

use super::{About, Difference, Options, Remedy};
use crate::SERVICES;

#[derive(FromRow)]
struct Missing {
    id: Uuid,
    kind: String,
    age: f64,
    /// None: it is not published.
    consumer: Option<String>,
}

/// How many events were compared, and those that are not published or that a
/// subscriber has not applied; `dead` says whose dead letters have which.
pub(super) async fn missing(
    connection: &mut PgConnection,
    options: &Options,
    dead: &HashSet<(&'static str, Uuid)>,
) -> sqlx::Result<(i64, Vec<Difference>)> {
    let pairs =
        SUBSCRIPTIONS.iter().flat_map(|(consumer, kinds)| kinds.iter().map(|kind| (*kind, *consumer)));
    let (kinds, consumers): (Vec<&str>, Vec<&str>) = pairs.unzip();
    let (mut count, mut differences) = (0, Vec::new());
    for (service, schema) in SERVICES {
        let window = "created_at < now() - make_interval(secs => $2)
            AND ($1::float8 IS NULL OR created_at > now() - make_interval(secs => $1))";
        let sql = format!("SELECT count(*) FROM {schema}.outbox WHERE {window}");
        let counted = sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql))
            .bind(options.since_seconds())
            .bind(options.grace.as_secs_f64());
        count += counted.fetch_one(&mut *connection).await?;
        // An event that was published again just now is on its way again. Of one up to `up_to` nobody knows any more.
        let sql = format!(
            "SELECT e.id, e.type AS kind, EXTRACT(epoch FROM now() - e.created_at)::float8 AS age,
                    CASE WHEN e.published_at IS NULL THEN NULL ELSE s.consumer END AS consumer
             FROM {schema}.outbox e
             LEFT JOIN UNNEST($3::text[], $4::text[]) AS s (type, consumer)
                 ON s.type = e.type AND e.published_at IS NOT NULL
             LEFT JOIN (SELECT consumer, event_id FROM users.inbox
                        UNION ALL SELECT consumer, event_id FROM products.inbox
                        UNION ALL SELECT consumer, event_id FROM orders.inbox) i
                 ON i.consumer = s.consumer AND i.event_id = e.id
             LEFT JOIN (SELECT consumer, up_to FROM users.inbox_pruned
                        UNION ALL SELECT consumer, up_to FROM products.inbox_pruned
                        UNION ALL SELECT consumer, up_to FROM orders.inbox_pruned) p
                 ON p.consumer = s.consumer AND e.id <= p.up_to
             WHERE {window}
               AND (e.published_at IS NULL
                    OR (s.consumer IS NOT NULL AND i.event_id IS NULL AND p.up_to IS NULL
                        AND e.published_at < now() - make_interval(secs => $2)))
             ORDER BY e.id"
        );
        let rows: Vec<Missing> = sqlx::query_as(AssertSqlSafe(sql))
            .bind(options.since_seconds())
            .bind(options.grace.as_secs_f64())
            .bind(&kinds)
            .bind(&consumers)
            .fetch_all(&mut *connection)
            .await?;
        differences.extend(rows.into_iter().map(|row| row.difference(service, dead)));
    }
    Ok((count, differences))
}

impl Missing {
    fn difference(self, service: &'static str, dead: &HashSet<(&'static str, Uuid)>) -> Difference {
        let (id, kind) = (self.id, self.kind);
        let (what, remedy) = match self.consumer {
            None => (
                format!("{kind} of {service} has waited {:.0} s to be published", self.age),
                Remedy::nothing(
                    "the relay publishes it once it reaches the broker and all queues have a leader",
                ),
            ),
            Some(consumer) if dead.iter().any(|(owner, event)| *owner == consumer && *event == id) => {
                (format!("{kind} of {service} is a dead letter of {consumer}"), Remedy::replay(id))
            }
            Some(consumer) => (
                format!("{kind} of {service} was not applied by {consumer}"),
                Remedy::Publish { service, event: id },
            ),
        };
        Difference { about: About::Event, id, what, remedy }
    }
}
