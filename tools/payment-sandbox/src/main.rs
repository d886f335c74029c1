//! `payment-sandbox`: settings from the environment, a server until a signal.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use payment_sandbox::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let healthcheck = std::env::args_os().nth(1).is_some_and(|command| command == "healthcheck");
    match if healthcheck { ask() } else { serve() } {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("payment-sandbox: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn serve() -> anyhow::Result<()> {
    let config = Config::parse_from(args()?);
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

/// The options, with each secret that is given as a file.
fn args() -> anyhow::Result<Vec<OsString>> {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    for (name, option) in [("SECRET_KEY", "--secret-key"), ("WEBHOOK_SECRET", "--webhook-secret")] {
        if let Some(path) = std::env::var_os(format!("{name}_FILE")) {
            ensure!(std::env::var_os(name).is_none(), "{name} and {name}_FILE are both set; unset one");
            let secret = std::fs::read_to_string(&path)
                .with_context(|| format!("{name}_FILE names {}, which can't be read", path.display()))?;
            args.push(format!("{option}={}", secret.trim_end_matches('\n')).into());
        }
    }
    Ok(args)
}

/// `payment-sandbox healthcheck`, a container's probe: success when the running one answers within two seconds.
#[tokio::main(flavor = "current_thread")]
async fn ask() -> anyhow::Result<()> {
    let address = Config::try_parse_from(["healthcheck"])?.http_addr;
    let answer = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut status = [0; "HTTP/1.1 200".len()];
        stream.read_exact(&mut status).await.map(|_| status)
    };
    let answer = tokio::time::timeout(Duration::from_secs(2), answer).await.context("no answer in time")?;
    let status = answer.with_context(|| format!("no answer from {address}"))?;
    ensure!(&status == b"HTTP/1.1 200", "{address}: {}", String::from_utf8_lossy(&status));
    Ok(())
}
