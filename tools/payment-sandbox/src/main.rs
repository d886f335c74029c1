//! `payment-sandbox`: settings from the environment, a server until a signal.

use anyhow::Context;
use clap::Parser;
use payment_sandbox::Config;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    config.log_format.init();
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;

    let mut sandbox = payment_sandbox::start(config).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = sandbox.ended() => return ended,
    }
    tracing::info!("stopping");
    sandbox.stop().await
}
