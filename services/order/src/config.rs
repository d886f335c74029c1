use std::time::Duration;

use clap::Parser;
use service::config::{Backends, Listen, Process};
use service::money::Currency;

use crate::times::Times;

/// Dockside's order service: carts, orders, payments.
#[derive(Parser, Clone)]
#[command(
    name = "order",
    version,
    mut_arg("http_addr", |arg| arg.required(false).default_value("0.0.0.0:8083")),
    mut_arg("grpc_addr", |arg| arg.required(false).default_value("0.0.0.0:9083")),
    mut_arg("admin_addr", |arg| arg.required(false).default_value("0.0.0.0:7083"))
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
    /// Where the user service publishes the keys of access tokens.
    #[arg(long, env = "JWKS_URL", default_value = "http://user:8081/.well-known/jwks.json")]
    pub jwks_url: String,
    /// The product service's gRPC address; those of replicas without a common name, with commas.
    #[arg(long, env = "PRODUCT_GRPC", default_value = "http://product:9082")]
    pub product_grpc: String,
    /// The user service's gRPC address; those of replicas without a common name, with commas.
    #[arg(long, env = "USER_GRPC", default_value = "http://user:9081")]
    pub user_grpc: String,
    /// This service's own Ed25519 key (PKCS#8 PEM) to call others with; `order keygen` makes one.
    #[arg(long, env = "SERVICE_KEY", hide_env_values = true)]
    pub service_key: String,
    /// The payment provider: anything that speaks Stripe's PaymentIntents API.
    #[arg(long, env = "PAYMENT_URL", default_value = "http://payment-sandbox:8090")]
    pub payment_url: String,
    /// The secret key that the payment provider knows this shop by.
    #[arg(long, env = "PAYMENT_SECRET_KEY", hide_env_values = true, value_parser = secret)]
    pub payment_secret_key: String,
    /// The secret that the payment provider signs its webhooks with.
    #[arg(long, env = "PAYMENT_WEBHOOK_SECRET", hide_env_values = true, value_parser = secret)]
    pub payment_webhook_secret: String,
    /// Seconds after which an unpaid order is cancelled.
    #[arg(long, env = "PAYMENT_DEADLINE_SECONDS", default_value_t = 300)]
    pub payment_deadline_seconds: u64,
    /// Seconds after which an unpaid order is cancelled whose customer has to prove who they are (3-D Secure).
    #[arg(long, env = "PAYMENT_ACTION_DEADLINE_SECONDS", default_value_t = 900)]
    pub payment_action_deadline_seconds: u64,
    /// Where customers come back to from their bank; {order_id} in it stands for the order's id.
    #[arg(long, env = "PAYMENT_RETURN_URL", value_parser = return_url)]
    pub payment_return_url: Option<String>,
    /// The product service's setting of the same name: seconds that a reservation lives.
    #[arg(long, env = "RESERVATION_LIFE_SECONDS", default_value_t = 1200)]
    pub reservation_life_seconds: u64,
    /// Seconds that a request which places an order holds its key; one that died is taken over, or swept, after them.
    #[arg(long, env = "CLAIM_LEASE_SECONDS", default_value_t = 30)]
    pub claim_lease_seconds: u64,
    /// Seconds that a replica works on an order without a sign of life before another takes over.
    #[arg(long, env = "SAGA_LEASE_SECONDS", default_value_t = 15)]
    pub saga_lease_seconds: u64,
    /// Seconds that one call to the payment provider may take.
    #[arg(long, env = "PROVIDER_CALL_SECONDS", default_value_t = 10)]
    pub provider_call_seconds: u64,
    /// Most clients that listen to orders' events at the same time; more get 503.
    #[arg(long, env = "EVENT_LISTENERS", default_value_t = 2000)]
    pub event_listeners: usize,
    /// Seconds until a change that no listener was told of is found by polling.
    #[arg(long, env = "EVENT_POLL_SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=30))]
    pub event_poll_seconds: u64,
    /// Orders of one account within an hour that are unpaid: their card was declined, or they wait for it. More get 429.
    #[arg(long, env = "UNPAID_ORDERS_AN_HOUR", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub unpaid_orders_an_hour: u32,
    /// Currency of an empty cart's total, ISO 4217.
    #[arg(long, env = "CURRENCY", default_value = "EUR")]
    pub currency: Currency,
}

/// An empty variable is how compose files leave one out.
fn return_url(text: &str) -> Result<String, &'static str> {
    let sound = text.is_empty() || text.starts_with("https://") || text.starts_with("http://");
    if sound { Ok(text.to_owned()) } else { Err("it must be the address of a web page, https://...") }
}

/// With an empty one anybody could sign as the provider.
fn secret(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() { Err("it must not be empty") } else { Ok(text.to_owned()) }
}

impl Config {
    pub(crate) fn times(&self) -> anyhow::Result<Times> {
        let times = Times {
            payment_deadline: Duration::from_secs(self.payment_deadline_seconds),
            action_deadline: Duration::from_secs(self.payment_action_deadline_seconds),
            reservation_life: Duration::from_secs(self.reservation_life_seconds),
            claim_lease: Duration::from_secs(self.claim_lease_seconds),
            saga_lease: Duration::from_secs(self.saga_lease_seconds),
            provider_call: Duration::from_secs(self.provider_call_seconds),
            ..Times::default()
        };
        times.check().map_err(anyhow::Error::msg)?;
        Ok(times)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_secret_of_the_payment_provider_is_not_empty() {
        let with = |key: &str, secret: &str| {
            let (key, secret) =
                (format!("--payment-secret-key={key}"), format!("--payment-webhook-secret={secret}"));
            let args = [
                "order",
                "--database-url=postgres://x",
                "--amqp-url=amqp://x",
                "--service-key=x",
                &key,
                &secret,
            ];
            Config::try_parse_from(args).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(with("sk", "whsec"), Ok(()));
        for (key, secret, setting) in
            [("sk", "", "--payment-webhook-secret"), (" ", "whsec", "--payment-secret-key")]
        {
            let error = with(key, secret).unwrap_err();
            assert!(error.contains(setting) && error.contains("it must not be empty"), "{error}");
        }
    }

    #[test]
    fn the_example_settings_are_current() {
        let section = service::config::env_example(&Config::command());
        let example = include_str!("../../../.env.example");
        assert!(example.contains(&section), ".env.example lacks this, under `# --- order ---`:\n{section}");
    }
}
