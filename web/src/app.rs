//! From settings to a running storefront.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum_extra::extract::cookie::Key;
use service::Lifecycle;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};

use crate::api::Client;
use crate::config::Config;
use crate::page::Failed;
use crate::session::Refresher;
use crate::shop::Listeners;
use crate::{admin, assets, guard, shop, visitor};

/// Forms may be this long, in bytes.
const FORM_LIMIT: usize = 64 * 1024;

/// What all requests share.
#[derive(Clone)]
pub struct App(Arc<Shared>);

pub struct Shared {
    pub client: Client,
    pub key: Key,
    /// As browsers send it in `Origin`; what addresses of pages start with.
    pub origin: String,
    /// Browsers reach the shop by TLS.
    pub secure: bool,
    pub demo: bool,
    /// The card provider is the payment sandbox.
    pub sandbox: bool,
    pub refresher: Refresher,
    pub listeners: Listeners,
    pub lifecycle: Lifecycle,
    places: Arc<Semaphore>,
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    pub(crate) fn new(config: &Config, lifecycle: &Lifecycle) -> anyhow::Result<Self> {
        let origin = config.origin()?;
        Ok(Self(Arc::new(Shared {
            client: Client::new(config)?,
            key: config.key()?,
            secure: origin.starts_with("https:"),
            origin,
            demo: config.demo_accounts,
            sandbox: config.payment_sandbox,
            refresher: Refresher::default(),
            listeners: Listeners::new(config.listeners_at_once),
            lifecycle: lifecycle.clone(),
            places: Arc::new(Semaphore::new(config.pages_at_once.into())),
        })))
    }

    /// A cookie's name. A browser takes `__Host-` only by TLS, and then from this host alone.
    pub fn cookie(&self, name: &str) -> String {
        if self.secure { format!("__Host-{name}") } else { name.to_owned() }
    }
}

/// Starts the storefront and returns where its pages are. Fails on a taken port or a bad setting; whether the API is
/// there is seen at each page.
pub fn start(config: &Config, lifecycle: &Lifecycle) -> anyhow::Result<SocketAddr> {
    let app = App::new(config, lifecycle)?;
    service::serve::site(config.http_addr, config.admin_addr, lifecycle, router(app))
}

fn router(app: App) -> Router {
    let pages = shop::router()
        .merge(admin::router())
        .fallback(async || Failed::NotFound)
        .method_not_allowed_fallback(async || Failed::NotFound)
        .layer(CatchPanicLayer::custom(|_| Failed::Refused(crate::api::Refused::Away).into_response()))
        .layer(DefaultBodyLimit::max(FORM_LIMIT))
        .layer(middleware::from_fn_with_state(app.clone(), visitor::layer))
        .layer(middleware::from_fn_with_state(app.clone(), admit));
    let compressed = DefaultPredicate::new().and(NotForContentType::const_new("text/event-stream"));
    Router::new()
        .route("/assets/{hash}/{name}", get(assets::serve))
        .merge(pages)
        .layer(CompressionLayer::new().compress_when(compressed))
        .layer(middleware::from_fn_with_state(app.clone(), finish))
        .with_state(app)
}

/// Lets a page in while there is a place for it. What changes something runs to its end, even when its visitor hangs up,
/// and keeps its place until then. A page that streams gives its place up when it starts.
async fn admit(State(app): State<App>, request: Request, next: Next) -> Response {
    let Ok(place) = app.places.clone().try_acquire_owned() else {
        let full = "Too many visitors at once; try again.\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")], full).into_response();
    };
    let safe = request.method().is_safe();
    let work = async move {
        let response = next.run(request).await;
        drop(place);
        response
    };
    if safe { work.await } else { service::detached(work).await }
}

async fn finish(State(app): State<App>, request: Request, next: Next) -> Response {
    guard::with_headers(next.run(request).await, app.secure)
}
