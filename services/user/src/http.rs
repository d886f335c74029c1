//! The HTTP API.

mod addresses;
mod auth;
mod caller;
mod me;
mod sessions;
mod users;

use axum::Router;

use crate::app::App;

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .merge(auth::router())
        .merge(me::router())
        .merge(sessions::router())
        .merge(addresses::router())
        .merge(users::router())
        .with_state(app)
}
