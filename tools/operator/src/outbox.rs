//! What waits to be published.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::{AssertSqlSafe, PgPool};

use crate::SERVICES;

#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub service: &'static str,
    /// Events that are not published.
    pub backlog: i64,
    /// How long the oldest of them has waited; 0 when there is none.
    pub oldest_seconds: f64,
    /// Those of them that a relay has in hand for the first time.
    pub claimed: i64,
    /// Those of them that the broker did not take so far, by type. Each is tried again after a pause of at most 15 s.
    pub paused: BTreeMap<String, i64>,
    pub published_last_minute: i64,
}

/// Each service's outbox.
pub async fn status(database: &PgPool) -> sqlx::Result<Vec<Status>> {
    let mut all = Vec::with_capacity(SERVICES.len());
    for (service, schema) in SERVICES {
        let sql = format!(
            "SELECT count(*), count(*) FILTER (WHERE claimed_until > now() AND attempts = 0),
                    COALESCE(EXTRACT(epoch FROM now() - min(created_at)), 0)::float8,
                    (SELECT count(*) FROM {schema}.outbox WHERE published_at > now() - interval '1 minute')
             FROM {schema}.outbox WHERE published_at IS NULL"
        );
        let row: (i64, i64, f64, i64) = sqlx::query_as(AssertSqlSafe(sql)).fetch_one(database).await?;
        let (backlog, claimed, oldest_seconds, published_last_minute) = row;
        let sql = format!(
            "SELECT type, count(*) FROM {schema}.outbox WHERE published_at IS NULL AND attempts > 0 GROUP BY type"
        );
        let paused: Vec<(String, i64)> = sqlx::query_as(AssertSqlSafe(sql)).fetch_all(database).await?;
        let paused = paused.into_iter().collect();
        all.push(Status { service, backlog, oldest_seconds, claimed, paused, published_last_minute });
    }
    Ok(all)
}
