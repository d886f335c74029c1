//! From settings to a running service.

use std::sync::Arc;

use axum::extract::FromRef;
use messaging::Outbox;
use proto::user::v1::user_service_server::UserServiceServer;
use service::Lifecycle;
use service::auth::Verifier;
use service::db::Pool;
use service::peer::Callers;
use service::serve::{Addresses, Ports};
use sqlx::migrate::Migrator;
use tonic::service::Routes;

use crate::config::Config;
use crate::grpc::Calls;
use crate::mailer::Mailer;
use crate::password::Hasher;
use crate::signing::SigningKeys;
use crate::{consumer, demo, http, notification, retention};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// What a request needs.
#[derive(Clone)]
pub(crate) struct App {
    pub pool: Pool,
    pub outbox: Outbox,
    pub hasher: Arc<Hasher>,
    pub keys: Arc<SigningKeys>,
}

impl FromRef<App> for Arc<Verifier> {
    fn from_ref(app: &App) -> Self {
        app.keys.verifier()
    }
}

/// Starts the service's tasks and returns where it listens; it runs until
/// `lifecycle` stops. Fails on a taken port, a bad setting, or when the database
/// can't be reached or migrated.
pub async fn start(config: Config, lifecycle: &Lifecycle) -> anyhow::Result<Addresses> {
    let callers = Callers::parse("user", &config.trusted_callers)?;
    let mailer = Mailer::new(&config.mail)?;
    let ports = Ports::bind(&config.listen, lifecycle)?;
    let migrations = [&messaging::MIGRATIONS, &MIGRATIONS];
    let pool = service::db::open(&config.backends, "users", &migrations).await?;
    let outbox = Outbox::new(pool.clone());
    let app = App {
        keys: SigningKeys::start(&pool, lifecycle).await?,
        hasher: Arc::new(Hasher::new(config.password_hashes_at_once)),
        outbox: outbox.clone(),
        pool: pool.clone(),
    };
    if config.demo_data {
        demo::load(&app).await?;
    }
    retention::start(pool.clone(), lifecycle);
    let amqp_url = &config.backends.amqp_url;
    let notifier = consumer::Notifier { mails: mailer.is_some() };
    messaging::start(lifecycle, "user", amqp_url, &config.naming, &outbox, notifier);
    match mailer {
        Some(mailer) => notification::start(pool.clone(), mailer, lifecycle),
        None => tracing::info!("mail.recorded_only"),
    }
    let calls = Routes::new(UserServiceServer::new(Calls::new(pool.clone(), callers)));
    ports.serve(lifecycle, &pool, http::router(app), calls)
}
