//! From settings to a running service.

use std::sync::Arc;

use messaging::{Outbox, Topology};
use proto::events;
use proto::user::v1::user_service_server::UserServiceServer;
use service::peer::Callers;
use service::serve::{Addresses, Ports};
use service::{Lifecycle, failpoint, grpc, plaintext};
use tonic::service::Routes;

use crate::config::Config;
use crate::failpoints;
use crate::grpc::Calls;
use crate::http::{self, App};
use crate::mail_requests::MailRequests;
use crate::mailer::Mailer;
use crate::password::Hasher;
use crate::signing::{Seals, SigningKeys};
use crate::{consumer, demo, notification, retention};

/// Starts the service's tasks and returns where it listens; it runs until
/// `lifecycle` stops. Fails on a taken port, a bad setting, or when the database
/// can't be reached or migrated.
pub async fn start(config: Config, lifecycle: &Lifecycle) -> anyhow::Result<Addresses> {
    failpoint::register(failpoints::ALL);
    failpoint::register(messaging::failpoints::ALL);
    plaintext::refuse_all(&config.backends, &[])?;
    let callers = Callers::parse("user", &config.trusted_callers)?;
    let mailer = Mailer::new(&config.mail)?;
    let seals = Seals::parse(config.signing_key_encryption_key.as_deref())?;
    let ports = Ports::bind(&config.listen, lifecycle)?;
    let pool = service::db::open(&config.backends, "users", &crate::MIGRATIONS).await?;
    let outbox = Outbox::new(pool.clone());
    let mail_requests = MailRequests::new(&config, pool.clone(), mailer.is_some())?;
    let app = App {
        mail_requests,
        keys: SigningKeys::start(&pool, seals, lifecycle).await?,
        hasher: Arc::new(Hasher::new(config.password_hashes_at_once)),
        outbox: outbox.clone(),
        pool: pool.clone(),
        mails: mailer.is_some(),
    };
    if config.demo_accounts {
        demo::load(&app.pool, &app.hasher).await?;
    }
    demo::warn(&app.pool, &app.hasher, config.demo_accounts).await;
    retention::start(pool.clone(), lifecycle);
    audit::start(pool.clone(), &config.audit, lifecycle);
    let notifier = consumer::Notifier { mails: app.mails };
    let topology =
        Topology::new(&config.backends.amqp_url, &config.naming.amqp_namespace, events::SUBSCRIPTIONS)
            .require_publisher(config.naming.amqp_require_publisher);
    messaging::start(lifecycle, "user", topology, &outbox, notifier);
    match mailer {
        Some(mailer) => notification::start(pool.clone(), mailer, lifecycle),
        None => tracing::info!("mail.recorded_only"),
    }
    let routes = Routes::new(UserServiceServer::new(Calls::new(pool.clone(), callers)));
    let pages = http::keys(app.clone());
    let calls = grpc::Api { routes, descriptors: proto::DESCRIPTORS, pages };
    ports.serve(lifecycle, &pool, http::router(app), calls)
}
