//! The service put together.

use identity::Verifier;
use messaging::{Outbox, Topology};
use proto::events;
use proto::product::v1::product_service_server::ProductServiceServer;
use service::peer::Callers;
use service::serve::{Addresses, Ports};
use service::{Lifecycle, db, failpoint, plaintext};
use sqlx::migrate::Migrator;
use tonic::service::Routes;

use crate::config::Config;
use crate::consumer::Consumer;
use crate::failpoints;
use crate::objects::Objects;
use crate::stock::Lives;
use crate::{demo, grpc, http, image, product, retention, stock};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Starts the service; it runs until `lifecycle` stops. Returns where it listens.
pub async fn start(config: Config, lifecycle: &Lifecycle) -> anyhow::Result<Addresses> {
    failpoint::register(failpoints::ALL);
    failpoint::register(messaging::failpoints::ALL);
    let objects = config.objects.aws_endpoint_url.as_ref().map(|url| ("AWS_ENDPOINT_URL", url.as_str()));
    let peers: Vec<_> = objects.into_iter().chain([("JWKS_URL", config.jwks_url.as_str())]).collect();
    plaintext::refuse_all(&config.backends, &peers)?;
    let ports = Ports::bind(&config.listen, lifecycle)?;
    let callers = Callers::parse("product", &config.trusted_callers)?;
    let verifier = Verifier::fetching(&config.jwks_url, ports.identity.clone(), lifecycle)?;
    let objects = Objects::open(&config.objects)?;
    let pool =
        db::open(&config.backends, "products", &[&messaging::MIGRATIONS, &audit::MIGRATIONS, &MIGRATIONS])
            .await?;
    if config.demo_data {
        demo::load(&pool).await?;
    }

    let lives = Lives {
        open_seconds: config.reservation_life_seconds,
        ended_days: config.reservation_retention_days,
    };
    let outbox = Outbox::new(pool.clone());
    let topology =
        Topology::new(&config.backends.amqp_url, &config.naming.amqp_namespace, events::SUBSCRIPTIONS)
            .require_publisher(config.naming.amqp_require_publisher);
    messaging::start(lifecycle, "product", topology, &outbox, Consumer(lives));
    let (expiring, stop) = (pool.clone(), lifecycle.stopping());
    lifecycle.spawn_worker("expiry", |pulse| async move {
        stock::expire_until(&expiring, &stop, &pulse).await;
    });

    let (swept, store, stop) = (pool.clone(), objects.clone(), lifecycle.stopping());
    lifecycle.spawn_worker("images", |pulse| async move {
        image::sweep_until(&swept, &store, &stop, &pulse).await;
    });

    retention::start(pool.clone(), lives, lifecycle);
    audit::start(pool.clone(), &config.audit, lifecycle);
    product::indexing::start(pool.clone(), lifecycle);
    let calls = grpc::Calls::new(pool.clone(), callers, lives);
    let routes = Routes::new(ProductServiceServer::new(calls));
    let (stop, currency) = (lifecycle.stopping(), config.default_currency);
    let api = http::router(http::App::new(pool.clone(), outbox, verifier, objects, stop, currency));
    let calls =
        service::grpc::Api { routes, descriptors: proto::DESCRIPTORS, ..service::grpc::Api::default() };
    ports.serve(lifecycle, &pool, api, calls)
}
