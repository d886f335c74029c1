//! Events from one service to the others: delivered at least once, applied exactly once.
//!
//! A writer puts an event into its [`outbox`] in the transaction of the change.
//! The [`relay`] publishes it and marks it only when the broker has confirmed.
//! A [`consumer`] writes an inbox row in the transaction of the effect, so that
//! an event delivered twice applies once. [`topology`] says who gets what.

mod consumer;
pub mod envelope;
pub mod failpoints;
pub mod outbox;
mod relay;
mod retention;
pub mod topology;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use service::Lifecycle;
use service::db::Pool;
use sqlx::migrate::Migrator;

pub use consumer::{ApplyError, Handler, move_to};
pub use envelope::Event;
pub use outbox::{NewEvent, Outbox};
pub use retention::INBOX_REMEMBERS;
pub use topology::Topology;

/// The tables of outbox and inbox; run it before the service's own migrations.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// Where the broker is, and the name that everything on it starts with.
#[derive(clap::Args, Clone, Debug)]
pub struct Naming {
    /// What the names of the exchange and of all queues start with.
    #[arg(long, env = "AMQP_NAMESPACE", default_value = "dockside")]
    pub amqp_namespace: String,
    /// Refuse events that don't say which account published them, as those of earlier releases don't.
    #[arg(long, env = "AMQP_REQUIRE_PUBLISHER", default_value_t = false, action = clap::ArgAction::Set)]
    pub amqp_require_publisher: bool,
}

/// Starts the relay of `outbox` and the consumer of `name`'s queue. Both
/// reconnect by themselves until `lifecycle` stops.
pub fn start(
    lifecycle: &Lifecycle,
    name: &'static str,
    topology: Topology,
    outbox: &Outbox,
    handler: impl Handler,
) {
    let topology = Arc::new(topology);
    let (stop, relayed) = (lifecycle.stopping(), topology.clone());
    let events = outbox.clone();
    lifecycle.spawn_worker("relay", |pulse| async move {
        relay::run(name, &relayed, &events, &stop, &pulse).await;
    });
    let (stop, events) = (lifecycle.stopping(), outbox.clone());
    lifecycle.spawn_worker("outbox.watch", |pulse| async move {
        relay::watch(&events, &stop, &pulse).await;
    });
    let (stop, events, caught_up) = (lifecycle.stopping(), outbox.clone(), Arc::new(AtomicBool::new(false)));
    let drained = caught_up.clone();
    lifecycle.spawn_worker("consumer", |pulse| async move {
        consumer::run(name, &topology, &events, &handler, &drained, &stop, &pulse).await;
    });
    let (stop, pool) = (lifecycle.stopping(), outbox.pool().clone());
    lifecycle.spawn_worker("messaging.retention", |pulse| async move {
        retention::run(&pool, name, &caught_up, &stop, &pulse).await;
    });
}

/// The outbox rows that wait to be published.
#[derive(Clone, Copy, Debug)]
pub struct Backlog {
    pub waiting: i64,
    /// Those of them that the broker refused at the last try.
    pub paused: i64,
    /// How long the oldest has waited; 0 when there is none.
    pub oldest_seconds: f64,
}

pub async fn backlog(pool: &Pool) -> sqlx::Result<Backlog> {
    sqlx::query_as!(
        Backlog,
        r#"SELECT count(*) AS "waiting!", count(*) FILTER (WHERE attempts > 0) AS "paused!",
                  COALESCE(EXTRACT(epoch FROM now() - min(created_at)), 0)::float8 AS "oldest_seconds!"
           FROM outbox WHERE published_at IS NULL"#
    )
    .fetch_one(pool)
    .await
}

/// One pass over the inbox rows of `consumer` that are older than [`INBOX_REMEMBERS`]. Returns whether there
/// are probably more.
///
/// The running service does this once a minute, while its consumer has nothing left to do.
pub async fn prune_inbox(pool: &Pool, consumer: &str) -> sqlx::Result<bool> {
    retention::prune_inbox(pool, consumer).await
}
