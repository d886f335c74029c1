//! Whether orders, stock, money and events agree.
//!
//! The three schemas are read in one snapshot of the database, so they are compared as of one moment. The
//! provider is asked after that, and what differs there is compared with the order as it is by then. What is
//! on its way is no difference: an order whose saga works and that changed within the grace, an event younger
//! than that.

mod events;
mod mend;
mod money;
mod orders;
mod stock;

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Result;
use messaging::topology::Topology;
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

pub use mend::{Outcome, mend};

use crate::dlq;
use crate::provider::Provider;

/// Most dead letters that are read to explain missing effects.
const MOST_DEAD_LETTERS: usize = 10_000;

/// What is compared.
pub struct Sources<'a> {
    /// With a role that may read all three schemas; for [`mend`] also write to
    /// `orders.sagas` and the outboxes.
    pub database: &'a PgPool,
    /// Without it the orders' own words about money are taken as true.
    pub provider: Option<&'a Provider>,
    /// Without it an event that is a dead letter only shows as not applied.
    pub broker: Option<&'a Topology>,
}

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Only orders that changed, and events and payments that were made, within
    /// this time; `None`: all. The stock is always compared whole.
    pub since: Option<Duration>,
    /// What is younger may still be on its way.
    pub grace: Duration,
}

impl Options {
    fn since_seconds(&self) -> Option<f64> {
        self.since.map(|since| since.as_secs_f64())
    }
}

/// What a comparison came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub orders: usize,
    pub products: i64,
    pub events: i64,
    /// Payments of orders that the provider was asked about.
    pub payments: usize,
    /// Orders that are on their way, and were not compared.
    pub in_flight: Vec<Uuid>,
    pub differences: Vec<Difference>,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.differences.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub about: About,
    /// Of the order, product or event.
    pub id: Uuid,
    /// In words.
    pub what: String,
    pub remedy: Remedy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    Order,
    Money,
    Stock,
    Event,
}

/// What [`mend`] does about it: nothing that writes an order, money or stock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Remedy {
    /// Reschedules the order's saga.
    #[serde(rename = "nudge")]
    Reschedule { order: Uuid },
    /// Publishes the event again; who had it ignores it.
    Publish { service: &'static str, event: Uuid },
    /// A person has to act; this says where.
    Nothing { hint: String },
}

impl Remedy {
    fn nothing(hint: &str) -> Self {
        Self::Nothing { hint: hint.to_owned() }
    }

    /// For an event that is a dead letter: published again, it would only fail again.
    fn replay(event: Uuid) -> Self {
        Self::Nothing { hint: format!("`dlq show {event}` says why; then `dlq replay {event}`") }
    }
}

impl std::fmt::Display for Remedy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reschedule { order } => write!(f, "reschedule the saga of {order}"),
            Self::Publish { service, event } => write!(f, "publish {event} of {service} again"),
            Self::Nothing { hint } => f.write_str(hint),
        }
    }
}

/// Compares; changes nothing.
///
/// # Errors
/// when a source does not answer: then nothing can be said.
pub async fn check(sources: &Sources<'_>, options: &Options) -> Result<Report> {
    let dead = match sources.broker {
        Some(topology) => dead_letters(topology).await?,
        None => HashSet::new(),
    };
    let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
    #[expect(clippy::disallowed_methods, reason = "who cancels this drops its pool, too")]
    let mut transaction = sources.database.begin_with(snapshot).await?;
    let orders = orders::load(&mut transaction, options).await?;
    let mut report = Report { orders: orders.len(), ..Report::default() };
    report.in_flight = orders.iter().filter(|order| order.in_flight(options)).map(|order| order.id).collect();
    report.differences.extend(orders.iter().filter_map(|order| order.difference(options)));
    report.differences.extend(orders::lost(&mut transaction, options).await?);
    report.products = stock::count(&mut transaction).await?;
    report.differences.extend(stock::levels(&mut transaction).await?);
    report.differences.extend(stock::reservations(&mut transaction, options, &dead).await?);
    let (events, missing) = events::missing(&mut transaction, options, &dead).await?;
    report.events = events;
    report.differences.extend(missing);
    transaction.rollback().await?;

    if let Some(provider) = sources.provider {
        let at_rest: Vec<_> = orders.into_iter().filter(|order| !order.working).collect();
        let (asked, differences) = money::compare(sources.database, provider, &at_rest).await?;
        report.payments = asked;
        report.differences.extend(differences);
        report.differences.extend(money::ownerless(sources.database, provider, options).await?);
        report.differences.extend(money::disputes(sources.database, provider, options).await?);
    }
    Ok(report)
}

/// The events among the dead letters, by service.
async fn dead_letters(topology: &Topology) -> Result<HashSet<(&'static str, Uuid)>> {
    let found = dlq::list(topology, &dlq::services(None)?, MOST_DEAD_LETTERS).await?;
    let dead_letters = found.dead_letters.into_iter();
    Ok(dead_letters.filter_map(|letter| Some((letter.service, letter.id.parse().ok()?))).collect())
}
