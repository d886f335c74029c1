//! Putting the service together.

use std::process::ExitCode;
use std::time::Duration;

use aws_lc_rs::hmac;
use identity::Verifier;
use messaging::{Outbox, Topology};
use proto::events;
use service::peer::{self, ServiceKey};
use service::serve::{Addresses, Ports};
use service::{Lifecycle, db, failpoint, grpc, plaintext};
use sqlx::migrate::Migrator;

use crate::cart::Carts;
use crate::catalogue::Catalogue;
use crate::changes::Changes;
use crate::checkout::{Bounds, Checkout, sweeper};
use crate::clients::payment::Payments;
use crate::clients::product::Products;
use crate::clients::user::Users;
use crate::config::Config;
use crate::events::consume::Consumer;
use crate::events::stream::OrderStream;
use crate::failpoints;
use crate::fulfilment::Fulfilment;
use crate::http::{self, App, Customers, Stopping, WebhookKey, problems};
use crate::order::reads::Reads;
use crate::refunds::Refunds;
use crate::saga::calls::Calls;
use crate::saga::measured;
use crate::saga::runner::Sagas;
use crate::saga::watch;

pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!();

/// Connects, migrates, binds and serves until `lifecycle` stops.
pub async fn start(config: Config, lifecycle: &Lifecycle) -> anyhow::Result<Addresses> {
    failpoint::register(failpoints::ALL);
    failpoint::register(messaging::failpoints::ALL);
    let times = config.times()?;
    let peers = [
        ("PAYMENT_URL", config.payment_url.as_str()),
        ("JWKS_URL", &config.jwks_url),
        ("PRODUCT_GRPC", &config.product_grpc),
        ("USER_GRPC", &config.user_grpc),
    ];
    plaintext::refuse_all(&config.backends, &peers)?;
    measured::start();
    let ports = Ports::bind(&config.listen, lifecycle)?;
    let pool =
        db::open(&config.backends, "orders", &[&messaging::MIGRATIONS, &audit::MIGRATIONS, &MIGRATIONS])
            .await?;
    let outbox = Outbox::new(pool.clone());
    let topology =
        Topology::new(&config.backends.amqp_url, &config.naming.amqp_namespace, events::SUBSCRIPTIONS)
            .require_publisher(config.naming.amqp_require_publisher);
    messaging::start(lifecycle, "order", topology, &outbox, Consumer);

    let key = ServiceKey::from_pem("order", &config.service_key)?;
    let products = Products::new(&config.product_grpc, ports.identity.as_ref(), key.clone(), times)?;
    let users = Users::new(&config.user_grpc, ports.identity.as_ref(), key, times)?;
    let payments = Payments::new(
        &config.payment_url,
        &config.payment_secret_key,
        config.payment_return_url.as_deref(),
        times.provider_call,
    )?;
    let (stream, announced) = OrderStream::new(
        pool.clone(),
        config.event_listeners,
        Duration::from_secs(config.event_poll_seconds),
    );
    let calls = Calls { payments, products: products.clone() };
    let stop = lifecycle.stopping();
    let sagas = Sagas::new(pool.clone(), outbox.clone(), stream.clone(), calls, times, stop);
    let catalogue = Catalogue::new(pool.clone(), products.clone(), config.currency);
    let reads = Reads::new(pool.clone());
    let (waking, watching) = (outbox.clone(), stream.clone());
    let fulfilment = Fulfilment::new(pool.clone(), waking, watching, reads.clone(), times);
    let app = App {
        pool: pool.clone(),
        carts: Carts::new(pool.clone(), catalogue),
        changes: Changes::new(
            pool.clone(),
            outbox.clone(),
            stream.clone(),
            reads.clone(),
            sagas.clone(),
            times,
        ),
        fulfilment,
        reads,
        verifier: Verifier::fetching(&config.jwks_url, ports.identity.clone(), lifecycle)?,
        checkout: Checkout::new(
            pool.clone(),
            outbox,
            products.clone(),
            users.clone(),
            sagas.clone(),
            Bounds { times, unpaid_an_hour: config.unpaid_orders_an_hour },
            problems::checkout_refused,
        ),
        refunds: Refunds::new(pool.clone(), sagas.clone(), times, problems::refund_refused),
        sagas: sagas.clone(),
        stream: stream.clone(),
        stopping: Stopping(lifecycle.stopping()),
        customers: Customers(users),
        webhook_key: WebhookKey(hmac::Key::new(hmac::HMAC_SHA256, config.payment_webhook_secret.as_bytes())),
    };
    let (stop, sender) = (lifecycle.stopping(), stream.clone());
    lifecycle.spawn_worker("order_stream.send", |pulse| sender.send(announced, stop, pulse));
    let stop = lifecycle.stopping();
    lifecycle.spawn_worker("order_stream.receive", |pulse| stream.receive(stop, pulse));
    lifecycle.spawn_worker("sagas", |pulse| sagas.run(pulse));
    let (stop, watched) = (lifecycle.stopping(), pool.clone());
    lifecycle.spawn_worker("sagas.watch", |pulse| watch::run(watched, stop, pulse));
    let (stop, swept) = (lifecycle.stopping(), pool.clone());
    lifecycle.spawn_worker("claims", |pulse| sweeper::run(swept, products, times, stop, pulse));
    audit::start(pool.clone(), &config.audit, lifecycle);
    let calls = grpc::Api { descriptors: proto::DESCRIPTORS, ..grpc::Api::default() };
    ports.serve(lifecycle, &pool, http::router(app), calls)
}

/// Prints a new service key: `{"private_key_pem", "public_key"}` on one line.
pub fn keygen() -> ExitCode {
    match peer::generate().and_then(|key| Ok(serde_json::to_string(&key)?)) {
        Ok(key) => {
            println!("{key}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("order: {error:#}");
            ExitCode::FAILURE
        }
    }
}
