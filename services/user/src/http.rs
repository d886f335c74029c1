//! The HTTP API.

mod addresses;
mod audited;
mod auth;
mod caller;
mod mails;
mod me;
mod resets;
mod sessions;
mod users;
mod verifications;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use identity::Verifier;
use messaging::Outbox;
use serde_json::Value;
use service::db::Pool;
use utoipa_axum::router::OpenApiRouter;

use crate::docs;
use crate::mail_requests::MailRequests;
use crate::password::Hasher;
use crate::signing::SigningKeys;

const TITLE: &str = "Dockside user";

/// What a request needs.
#[derive(Clone)]
pub(crate) struct App {
    pub pool: Pool,
    pub outbox: Outbox,
    pub hasher: Arc<Hasher>,
    pub keys: Arc<SigningKeys>,
    pub mail_requests: MailRequests,
    /// Whether mails leave at all.
    pub mails: bool,
}

impl FromRef<App> for Arc<Verifier> {
    fn from_ref(app: &App) -> Self {
        app.keys.verifier()
    }
}

pub(crate) fn router(app: App) -> Router {
    service::openapi::router(TITLE, identity::TOKEN_DESCRIPTION, routes())
        .merge(docs::router())
        .with_state(app)
}

/// The keys that verify access tokens, for other services: on the port that asks for their certificates, where it does.
pub(crate) fn keys(app: App) -> Router {
    auth::keys().with_state(app)
}

/// The OpenAPI document of this service.
pub fn document() -> Value {
    service::openapi::document(TITLE, identity::TOKEN_DESCRIPTION, routes())
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(auth::router())
        .merge(me::router())
        .merge(resets::router())
        .merge(verifications::router())
        .merge(sessions::router())
        .merge(addresses::router())
        .merge(users::router())
        .merge(mails::router())
        .merge(audited::router())
}
