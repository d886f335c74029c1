//! A stand-in card provider: a subset of Stripe's PaymentIntents API over an append-only log.
//!
//! The path of one request, as reading order:
//!
//! 1. [`http`] checks the key and turns the form ([`params`]) into a command.
//! 2. [`sandbox`] claims its `Idempotency-Key` ([`idempotency`]) and has the command decided under one lock.
//! 3. [`commands`] decides, by the card ([`cards`]) and by what is so far ([`book`]): events, or a refusal.
//! 4. The events and the answer become one line of the log ([`log`]), on disk before anyone sees either.
//! 5. The answer goes out, or is lost if the card says so; [`webhooks`] delivers the events.

mod book;
mod cards;
mod commands;
mod config;
mod currencies;
mod error;
mod http;
mod idempotency;
mod intents;
mod log;
mod params;
mod sandbox;
mod version;
mod views;
mod webhooks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use config::{Config, LogFormat};
use sandbox::Sandbox;

/// Time for open requests to end once the sandbox stops.
const GRACE: Duration = Duration::from_secs(5);

/// A running sandbox. Dropping it leaves it running.
pub struct Handle {
    /// The address that it is bound to.
    pub addr: SocketAddr,
    stop: CancellationToken,
    server: JoinHandle<anyhow::Result<()>>,
}

impl Handle {
    /// Waits until the server ends by itself, which is an error: its log could not be written.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        (&mut self.server).await?
    }

    /// Stops: no new connections, at most 5 s for the requests under way, then the log is closed.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.server.await?
    }
}

/// Replays the log, binds the address and serves in the background.
/// Errors: a log that is corrupt or in use, an address that can't be bound, a webhook URL that is none.
pub async fn start(config: Config) -> anyhow::Result<Handle> {
    let stop = CancellationToken::new();
    let sandbox = Sandbox::open(&config, stop.clone())?;
    let listener = TcpListener::bind(config.http_addr)
        .await
        .with_context(|| format!("binding HTTP_ADDR {}", config.http_addr))?;
    let addr = listener.local_addr()?;
    tracing::info!(%addr, data_dir = %config.data_dir.display(), "payment sandbox serves http://{addr}");
    let router = http::router(sandbox.clone(), &config.secret_key, config.version()?);
    let server = tokio::spawn(serve(listener, router, sandbox, stop.clone()));
    Ok(Handle { addr, stop, server })
}

async fn serve(
    listener: TcpListener,
    router: axum::Router,
    sandbox: Arc<Sandbox>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let server = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let mut server = tokio::spawn(async move { server.await });
    let failed = tokio::select! {
        biased; // after a stop the server may have ended already
        () = stop.cancelled() => false,
        () = sandbox.log().ended() => true,
        ended = &mut server => bail!("the server ended: {ended:?}"),
    };
    stop.cancel();
    let drained = tokio::time::timeout(GRACE, async {
        let served = (&mut server).await;
        sandbox.idle().await;
        served
    });
    if drained.await.is_err() {
        tracing::warn!("some requests did not end in time");
        server.abort();
    }
    sandbox.log().close().await;
    if failed {
        bail!("the log could not be written");
    }
    Ok(())
}
