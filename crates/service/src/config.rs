//! Settings come from the environment alone (<https://12factor.net/config>).
//!
//! A service's `Config` is a clap struct whose fields carry `env`; the parts
//! here are flattened into it. Any setting `X` can be given as `X_FILE`, the
//! name of a file that holds it, as container platforms hand out secrets.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;

use crate::tls::Identity;

/// Where a service listens. Port 0 takes a free one.
#[derive(clap::Args, Clone, Debug)]
pub struct Listen {
    /// Address of the HTTP API.
    #[arg(long, env = "HTTP_ADDR")]
    pub http_addr: SocketAddr,
    /// Address of the gRPC API; for other services only.
    #[arg(long, env = "GRPC_ADDR")]
    pub grpc_addr: SocketAddr,
    /// Address of `/livez`, `/readyz`, `/startupz`, `/metrics` and `/log-level`; never public.
    #[arg(long, env = "ADMIN_ADDR")]
    pub admin_addr: SocketAddr,
    /// Most requests in work at the same time, over HTTP and over gRPC each; more are refused at once (503,
    /// `UNAVAILABLE`). One with a body counts once more for each 64 KiB of it.
    #[arg(long, env = "REQUESTS_AT_ONCE", default_value = "128")]
    pub requests_at_once: NonZeroU16,
    /// A folder with `tls.crt`, `tls.key` and `ca.crt`, as cert-manager makes them. With it the gRPC port takes TLS
    /// alone, from clients that show a certificate of that authority, and `https` addresses of other services are called
    /// with this one. Files that change are read again.
    #[arg(long, env = "TLS_DIR")]
    pub tls_dir: Option<PathBuf>,
}

impl Listen {
    /// What is in [`Self::tls_dir`].
    pub fn identity(&self) -> anyhow::Result<Option<Identity>> {
        self.tls_dir.as_deref().map(Identity::open).transpose().context("TLS_DIR")
    }
}

#[derive(clap::Args, Clone)]
pub struct Backends {
    /// PostgreSQL, with the service's own role: `postgres://role:password@host:5432/dockside`. Several hosts, with
    /// commas, are servers of which the one that takes writes is used.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
    /// Whether `DATABASE_URL` leads to PgBouncer: `transaction` for its pool mode of that name, which needs
    /// PgBouncer 1.21 and `max_prepared_statements`; `none` for PostgreSQL itself.
    #[arg(long, env = "DATABASE_POOLER", default_value = "none")]
    pub database_pooler: Pooler,
    /// With `DATABASE_POOLER=transaction`: PostgreSQL itself, for migrations and notifications.
    #[arg(long, env = "DATABASE_DIRECT_URL", hide_env_values = true)]
    pub database_direct_url: Option<String>,
    /// Most connections held to PostgreSQL.
    #[arg(long, env = "DATABASE_CONNECTIONS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub database_connections: u32,
    /// RabbitMQ: `amqp://account:password@host:5672/%2f`, or with TLS
    /// `amqps://account:password@host:5671/%2f?cacertfile=/path/of/ca.pem`; without the file the system's authorities count.
    #[arg(long, env = "AMQP_URL", hide_env_values = true)]
    pub amqp_url: String,
    /// Take addresses of PostgreSQL, RabbitMQ, the object store, other services and the payment provider that are
    /// not encrypted, or whose certificates are not checked: for development, and networks that nobody else is on. Without it they are
    /// refused.
    #[arg(long, env = "ALLOW_PLAINTEXT", default_value_t = false, action = clap::ArgAction::Set)]
    pub allow_plaintext: bool,
}

impl Backends {
    /// PostgreSQL itself, without a pooler.
    pub fn new(database_url: String, database_connections: u32, amqp_url: String) -> Self {
        Self {
            database_url,
            database_pooler: Pooler::None,
            database_direct_url: None,
            database_connections,
            amqp_url,
            allow_plaintext: false,
        }
    }
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooler {
    None,
    Transaction,
}

#[derive(clap::Args, Clone, Debug)]
pub struct Process {
    /// How logs are written: `json` or `pretty`. What is logged: `RUST_LOG`.
    #[arg(long, env = "LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
    /// Which logs are written, as tracing-subscriber's directives. `/log-level` of the admin port changes it.
    #[arg(long, env = "RUST_LOG", default_value = "info,lapin=warn,lapin::returned_messages=off")]
    pub rust_log: String,
    /// OTLP/gRPC endpoint that traces and metrics are sent to; none are sent without it.
    /// The other standard `OTEL_*` variables apply too.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otel_exporter_otlp_endpoint: Option<String>,
    /// Seconds between becoming not ready and closing the ports at shutdown, so
    /// that load balancers notice first.
    #[arg(long, env = "SHUTDOWN_DELAY_SECONDS", default_value_t = 0)]
    pub shutdown_delay_seconds: u64,
    /// Seconds that requests and tasks get to finish at shutdown.
    #[arg(long, env = "SHUTDOWN_GRACE_SECONDS", default_value_t = 20)]
    pub shutdown_grace_seconds: u64,
    /// Seconds that a background worker may be without movement before the process is not ready; after twice as
    /// long it ends. At least 60, as one step may take as long while the database is away.
    #[arg(long, env = "WATCHDOG_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(60..))]
    pub watchdog_seconds: u64,
}

impl Process {
    pub fn shutdown_delay(&self) -> Duration {
        Duration::from_secs(self.shutdown_delay_seconds)
    }

    pub fn watchdog(&self) -> Duration {
        Duration::from_secs(self.watchdog_seconds)
    }

    pub fn shutdown_grace(&self) -> Duration {
        Duration::from_secs(self.shutdown_grace_seconds)
    }
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Pretty,
}

/// Parses the process's settings, reading `X_FILE` for each setting `X`.
/// Prints help or the error and exits where clap would.
pub fn load<C: Parser>() -> anyhow::Result<C> {
    load_from(std::env::args_os().collect())
}

/// The same for a sub-command, whose `args` are these; the first is its name.
pub fn load_from<C: Parser>(mut args: Vec<OsString>) -> anyhow::Result<C> {
    args.extend(from_files(&C::command(), |name| std::env::var_os(name))?);
    Ok(C::parse_from(args))
}

pub(crate) fn from_files(
    command: &clap::Command,
    env: impl Fn(&str) -> Option<OsString>,
) -> anyhow::Result<Vec<OsString>> {
    let mut args = Vec::new();
    for arg in command.get_arguments() {
        let (Some(name), Some(long)) = (arg.get_env().and_then(|e| e.to_str()), arg.get_long()) else {
            continue;
        };
        let Some(path) = env(&format!("{name}_FILE")) else {
            continue;
        };
        anyhow::ensure!(env(name).is_none(), "{name} and {name}_FILE are both set; unset one");
        let value = std::fs::read_to_string(&path)
            .with_context(|| format!("{name}_FILE names {}, which can't be read", path.display()))?;
        args.push(format!("--{long}={}", value.trim_end_matches('\n')).into());
    }
    Ok(args)
}

/// The settings of a command in the form of an `.env` file; what
/// `.env.example` is compared with.
pub fn env_example(command: &clap::Command) -> String {
    let mut text = String::new();
    for arg in command.get_arguments() {
        let Some(name) = arg.get_env().and_then(|e| e.to_str()) else {
            continue;
        };
        for line in arg.get_help().map(ToString::to_string).unwrap_or_default().lines() {
            text.push_str(&format!("# {line}\n"));
        }
        match arg.get_default_values().first() {
            Some(default) => text.push_str(&format!("# {name}={}\n", default.to_string_lossy())),
            None if arg.is_required_set() => text.push_str(&format!("{name}=\n")),
            None => text.push_str(&format!("# {name}=\n")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[derive(Parser)]
    struct Sample {
        #[command(flatten)]
        backends: Backends,
    }

    #[test]
    fn a_secret_can_be_given_as_a_file() {
        let file = std::env::temp_dir().join(format!("dockside-secret-{}", std::process::id()));
        std::fs::write(&file, "postgres://from-file\n").unwrap();
        let env = |name: &str| (name == "DATABASE_URL_FILE").then(|| file.clone().into_os_string());
        let mut args: Vec<OsString> = vec!["sample".into(), "--amqp-url=amqp://x".into()];
        args.extend(from_files(&Sample::command(), env).unwrap());
        let sample = Sample::parse_from(args);
        assert_eq!(sample.backends.database_url, "postgres://from-file");
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn a_setting_given_twice_is_refused() {
        let env = |name: &str| name.starts_with("DATABASE_URL").then(|| OsString::from("x"));
        let error = from_files(&Sample::command(), env).unwrap_err();
        assert!(error.to_string().contains("both set"), "{error}");
    }
}
