//! Having the services do their work again.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

use super::{About, Difference, Options, Remedy, Report, Sources, check};
use crate::{SERVICES, saga};

const CHECK_EVERY: Duration = Duration::from_secs(1);

/// What mending came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Before anything was done.
    pub found: Report,
    /// Of what was found, that which is still so.
    pub left: Vec<Difference>,
}

/// Compares, applies each difference's remedy, and compares again until all that has one is gone, or
/// `patience` over.
pub async fn mend(sources: &Sources<'_>, options: &Options, patience: Duration) -> Result<Outcome> {
    let found = check(sources, options).await?;
    let mut left = found.differences.clone();
    let mut done = HashSet::new();
    for difference in &left {
        if done.insert(difference.remedy.to_string()) {
            apply(sources.database, &difference.remedy).await?;
        }
    }
    let until = Instant::now() + patience;
    // Without the grace: what was just set going shows until it has arrived.
    let options = Options { grace: Duration::ZERO, ..*options };
    while left.iter().any(|one| !matches!(one.remedy, Remedy::Nothing { .. })) && Instant::now() < until {
        tokio::time::sleep(CHECK_EVERY).await;
        let now = check(sources, &options).await?;
        let still: HashSet<(About, Uuid)> = now.differences.iter().map(|one| (one.about, one.id)).collect();
        // An order that is at it again is not done yet.
        let at_it: HashSet<Uuid> =
            now.differences.iter().filter(|one| one.about == About::Order).map(|one| one.id).collect();
        left.retain(|one| still.contains(&(one.about, one.id)) || at_it.contains(&one.id));
    }
    Ok(Outcome { found, left })
}

async fn apply(database: &PgPool, remedy: &Remedy) -> Result<()> {
    match remedy {
        Remedy::Reschedule { order } => {
            saga::reschedule(database, *order).await?;
        }
        Remedy::Publish { service, event } => {
            let schema = SERVICES.iter().find(|(name, _)| name == service).map_or("", |(_, schema)| schema);
            let again = format!(
                "UPDATE {schema}.outbox SET published_at = NULL, claimed_until = '-infinity' WHERE id = $1"
            );
            sqlx::query(AssertSqlSafe(again)).bind(event).execute(database).await?;
        }
        Remedy::Nothing { .. } => {}
    }
    Ok(())
}
