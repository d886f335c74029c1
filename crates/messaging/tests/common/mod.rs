//! A service that records the events that it applies, on a database and in a broker namespace of its own.

#![allow(dead_code, reason = "not every test needs all of it")]

pub mod confirms;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lapin::{Channel, Connection};
use messaging::topology::Topology;
use messaging::{ApplyError, Event, Handler, NewEvent, Outbox, outbox};
use proto::events::SUBSCRIPTIONS;
use proto::user::v1::UserRegistered;
use service::Lifecycle;
use service::config::Backends;
use service::db;
use service::db::Pool;
use testing::eventually;
use testing::proxy::Proxy;
use uuid::Uuid;

/// Host and port of the test broker.
pub fn broker_host() -> String {
    let real = testing::amqp_url();
    let (_, after) = real.split_once('@').unwrap();
    after.split('/').next().unwrap().to_owned()
}

/// The broker's URL with another address.
pub fn at(address: std::net::SocketAddr) -> String {
    testing::amqp_url().replace(&broker_host(), &address.to_string())
}

pub fn behind(proxy: &Proxy) -> String {
    at(proxy.address)
}

/// Records every event it applies; refuses the odd ones while `refuse` is set.
#[derive(Clone, Default)]
pub struct Applied {
    pub refuse: Arc<AtomicBool>,
    pub fail: Arc<AtomicBool>,
    /// Every event takes longer than a statement may; or only the odd ones.
    pub all_slow: Arc<AtomicBool>,
    pub slow: Arc<AtomicBool>,
    pub tried: Arc<AtomicUsize>,
}

pub const BAD: i64 = 13;

impl Handler for Applied {
    async fn apply(&self, connection: &mut db::Connection, events: &[Event]) -> Result<(), ApplyError> {
        self.tried.fetch_add(1, Ordering::Relaxed);
        for event in events {
            let odd = event.aggregate_version == BAD;
            if self.all_slow.load(Ordering::Relaxed) || odd && self.slow.load(Ordering::Relaxed) {
                sqlx::query("SET LOCAL statement_timeout = '50ms'").execute(&mut *connection).await?;
                sqlx::query("SELECT pg_sleep(60)").execute(&mut *connection).await?;
            }
            if odd && self.refuse.load(Ordering::Relaxed) {
                return Err(ApplyError::Rejected("an unlucky number".to_owned()));
            }
            sqlx::query("INSERT INTO effects (event_id, aggregate_id) VALUES ($1, $2)")
                .bind(event.id)
                .bind(event.aggregate_id)
                .execute(&mut *connection)
                .await?;
            if odd && self.fail.load(Ordering::Relaxed) {
                sqlx::query("INSERT INTO effects (event_id) VALUES (NULL)").execute(&mut *connection).await?;
            }
        }
        Ok(())
    }
}

pub struct Rig {
    pub pool: Pool,
    pub database_url: String,
    pub outbox: Outbox,
    pub topology: Topology,
    pub applied: Applied,
    pub lifecycle: Lifecycle,
}

impl Rig {
    pub async fn start() -> Self {
        Self::start_through(&testing::amqp_url()).await
    }

    /// With the broker at another address.
    pub async fn start_through(amqp_url: &str) -> Self {
        Self::start_as("order", amqp_url, &testing::amqp_url(), &testing::namespace()).await
    }

    /// As a service, by another account than its tests' own, the `admin`'s.
    pub async fn start_as(service: &'static str, amqp_url: &str, admin: &str, namespace: &str) -> Self {
        let backends = Backends::new(testing::database("orders").await, 5, amqp_url.to_owned());
        let pool = service::db::open(&backends, "orders", &[&messaging::MIGRATIONS]).await.unwrap();
        sqlx::query("CREATE TABLE effects (event_id uuid NOT NULL, aggregate_id uuid)")
            .execute(&pool)
            .await
            .unwrap();
        let (outbox, applied, lifecycle) = (Outbox::new(pool.clone()), Applied::default(), Lifecycle::new());
        let topology = |url: &str| Topology::new(url, namespace, SUBSCRIPTIONS);
        // Tests that deliver events themselves don't say who they are.
        let own = topology(amqp_url).require_publisher(namespace == "dockside");
        messaging::start(&lifecycle, service, own, &outbox, applied.clone());
        let topology = topology(admin);
        Self { pool, database_url: backends.database_url, outbox, topology, applied, lifecycle }
    }

    /// Writes an event for each version, and returns the aggregate's id.
    pub async fn write(&self, kind: &'static str, versions: impl Iterator<Item = i64>) -> Uuid {
        let id = Uuid::now_v7();
        let body = UserRegistered { user_id: id.to_string() };
        let events: Vec<_> = versions.map(|version| NewEvent::new(kind, id, version, &body)).collect();
        let mut transaction = service::db::begin(&self.pool).await.unwrap();
        outbox::enqueue(&mut transaction, &events).await.unwrap();
        transaction.commit().await.unwrap();
        self.outbox.wake();
        id
    }

    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// Waits until so many are applied, as long as it goes on.
    pub async fn applied(&self, wanted: i64) {
        let mut so_far = 0;
        while so_far < wanted {
            let more = || async {
                let effects = self.count("SELECT count(*) FROM effects").await;
                assert!(effects <= wanted, "{effects} effects of {wanted} events");
                (effects > so_far).then_some(effects)
            };
            so_far = eventually(&format!("more than {so_far} of {wanted} effects"), more).await;
        }
    }

    pub async fn published(&self) {
        let all = || async { (messaging::backlog(&self.pool).await.unwrap().waiting == 0).then_some(()) };
        eventually("the outbox to be empty", all).await;
    }

    pub async fn broker(&self) -> (Connection, Channel) {
        self.topology.connect().await.unwrap()
    }
}
