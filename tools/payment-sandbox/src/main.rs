//! `payment-sandbox`: settings from the environment, a server until a signal.

use std::process::ExitCode;

use anyhow::Context;
use payment_sandbox::Config;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    if let Some(asked) = service::healthcheck::<Config>("HTTP_ADDR", "/livez") {
        return asked;
    }
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("payment-sandbox: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn serve() -> anyhow::Result<()> {
    let config: Config = service::config::load()?;
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
