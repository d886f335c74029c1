//! The settings; see `.env.example`.

use service::config::{Backends, Listen, Process};
use service::money::Currency;

use crate::objects;

/// The product service.
#[derive(clap::Parser, Clone)]
#[command(
    mut_arg("http_addr", |arg| arg.required(false).default_value("0.0.0.0:8082")),
    mut_arg("grpc_addr", |arg| arg.required(false).default_value("0.0.0.0:9082")),
    mut_arg("admin_addr", |arg| arg.required(false).default_value("0.0.0.0:7082"))
)]
pub struct Config {
    #[command(flatten)]
    pub listen: Listen,
    #[command(flatten)]
    pub backends: Backends,
    #[command(flatten)]
    pub naming: messaging::Naming,
    #[command(flatten)]
    pub process: Process,
    #[command(flatten)]
    pub audit: audit::Settings,
    /// Where the user service publishes the keys that verify access tokens.
    #[arg(long, env = "JWKS_URL", default_value = "http://localhost:8081/.well-known/jwks.json")]
    pub jwks_url: String,
    /// The services that may call, each with its public key: `order=<base64url>`.
    #[arg(long, env = "TRUSTED_CALLERS")]
    pub trusted_callers: String,
    /// Seconds until a reservation that was not committed gives its stock back.
    #[arg(long, env = "RESERVATION_LIFE_SECONDS", default_value_t = 1200,
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub reservation_life_seconds: u32,
    /// Days that a reservation is kept for. An order that is older and is cancelled puts nothing back into stock.
    #[arg(long, env = "RESERVATION_RETENTION_DAYS", default_value_t = 400,
          value_parser = clap::value_parser!(i32).range(60..=36_500))]
    pub reservation_retention_days: i32,
    /// The currency that price filters and sorting by price mean where the shop has several and the client names none
    /// (ISO 4217). Without it such a search is refused.
    #[arg(long, env = "DEFAULT_CURRENCY", value_parser = currency)]
    pub default_currency: Option<Currency>,
    #[command(flatten)]
    pub objects: objects::Settings,
    /// Load the demo catalogue, once per database.
    #[arg(long, env = "DEMO_DATA", default_value_t = false, action = clap::ArgAction::Set)]
    pub demo_data: bool,
}

fn currency(code: &str) -> Result<Currency, String> {
    Currency::from_code(code).ok_or_else(|| format!("{code} is no currency's code"))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_example_settings_are_current() {
        let example = include_str!("../../../.env.example");
        let settings = service::config::env_example(&Config::command());
        assert!(example.contains(&settings), ".env.example should contain:\n{settings}");
    }
    #[test]
    fn the_ports_have_defaults() {
        let config = Config::parse_from([
            "product",
            "--database-url=postgres://x",
            "--amqp-url=amqp://x",
            "--trusted-callers=order=x",
        ]);
        assert_eq!(config.listen.http_addr.port(), 8082);
        assert_eq!(config.listen.grpc_addr.port(), 9082);
        assert_eq!(config.listen.admin_addr.port(), 7082);
    }
}
