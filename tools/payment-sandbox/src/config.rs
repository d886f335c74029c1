//! The settings, all from the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::version::{self, Version};

/// A stand-in card provider that speaks a subset of Stripe's PaymentIntents API.
#[derive(Clone, Debug, Parser)]
#[command(name = "payment-sandbox", version)]
pub struct Config {
    /// Address of the API; port 0 takes a free one, which the log names.
    #[arg(long, env = "HTTP_ADDR", default_value = "127.0.0.1:8090")]
    pub http_addr: SocketAddr,

    /// Directory of `ledger.jsonl`, created when missing. One process at a time may use it.
    #[arg(long, env = "DATA_DIR", default_value = ".dockside/payment-sandbox")]
    pub data_dir: PathBuf,

    /// The key that clients send as `Authorization: Bearer <key>`; or `SECRET_KEY_FILE`, a file that holds it.
    #[arg(long, env = "SECRET_KEY", default_value = "sk_test_dockside", hide_env_values = true)]
    pub secret_key: String,

    /// Where events are sent; unset (or empty) sends none.
    #[arg(long, env = "WEBHOOK_URL")]
    pub webhook_url: Option<String>,

    /// Signs the events (`Stripe-Signature`); or `WEBHOOK_SECRET_FILE`.
    #[arg(long, env = "WEBHOOK_SECRET", default_value = "whsec_dockside", hide_env_values = true)]
    pub webhook_secret: String,

    /// How long a confirm with `pm_card_slow` stays `processing`, in milliseconds.
    #[arg(long, env = "SLOW_MILLIS", default_value_t = 3000)]
    pub slow_millis: u64,

    /// The account's API version: that of requests without `Stripe-Version`, and of events.
    #[arg(long, env = "API_VERSION", default_value = version::DEFAULT)]
    pub api_version: String,

    /// How long customers may take to prove who they are (3-D Secure), in seconds; then that has failed.
    #[arg(long, env = "AUTHENTICATION_SECONDS", default_value_t = 3600)]
    pub authentication_seconds: u64,

    /// What customers reach the sandbox's pages by, as `http://host:port`; unset, what its client called it.
    #[arg(long, env = "PUBLIC_URL")]
    pub public_url: Option<String>,

    /// Format of the log on stderr; its level is set by `RUST_LOG` (default `info`).
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Pretty)]
    pub log_format: LogFormat,
}

impl Config {
    /// How long `pm_card_slow` takes.
    pub fn slow(&self) -> Duration {
        Duration::from_millis(self.slow_millis)
    }

    /// The account's API version; an error when it is not known.
    pub(crate) fn version(&self) -> anyhow::Result<Version> {
        self.api_version.parse().map_err(|error: String| anyhow::anyhow!("API_VERSION: {error}"))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Pretty,
    Json,
}

impl LogFormat {
    /// Starts logging for the whole process; a second call has no effect.
    pub fn init(self) {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        let started = match self {
            Self::Pretty => log.try_init(),
            Self::Json => log.json().flatten_event(true).try_init(),
        };
        if let Err(error) = started {
            tracing::debug!(%error, "logging was already set up");
        }
    }
}
