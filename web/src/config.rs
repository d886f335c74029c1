//! The storefront's settings.

use std::net::SocketAddr;

use anyhow::Context;
use axum_extra::extract::cookie::Key;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::{ArgAction, Parser};
use service::config::Process;
use url::Url;

#[derive(Parser)]
#[command(name = "storefront", about = "The shop's pages")]
pub struct Config {
    /// Address of the pages.
    #[arg(long, env = "HTTP_ADDR", default_value = "0.0.0.0:8084")]
    pub http_addr: SocketAddr,
    /// Address of `/livez`, `/readyz`, `/startupz` and `/metrics`; never public.
    #[arg(long, env = "ADMIN_ADDR", default_value = "0.0.0.0:7084")]
    pub admin_addr: SocketAddr,
    /// Most pages in work at the same time; more are refused at once (503).
    #[arg(long, env = "PAGES_AT_ONCE", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    pub pages_at_once: u16,
    /// Most visitors who follow an order at the same time.
    #[arg(long, env = "LISTENERS_AT_ONCE", default_value_t = 250, value_parser = clap::value_parser!(u16).range(1..))]
    pub listeners_at_once: u16,
    /// Where the edge is; the API is at `/api/v1` there: `http://edge:8080`.
    #[arg(long, env = "API_URL")]
    pub api_url: Url,
    /// The shop's address in browsers. With https cookies are for TLS alone.
    #[arg(long, env = "PUBLIC_URL")]
    pub public_url: Url,
    /// What cookies are encrypted with: at least 64 random bytes as base64 or hex. All replicas have the same.
    #[arg(long, env = "COOKIE_KEY", hide_env_values = true)]
    pub cookie_key: String,
    /// What the edge knows the storefront by, so that it believes which visitor a call is for.
    #[arg(long, env = "STOREFRONT_KEY", hide_env_values = true)]
    pub storefront_key: String,
    /// Says on each page that there are demo accounts, and which on the sign-in page: never in production.
    #[arg(long, env = "DEMO_ACCOUNTS", default_value = "false", action = ArgAction::Set)]
    pub demo_accounts: bool,
    /// The card provider is the payment sandbox: its test cards are shown at the checkout; never in production.
    #[arg(long, env = "PAYMENT_SANDBOX", default_value = "false", action = ArgAction::Set)]
    pub payment_sandbox: bool,
    #[command(flatten)]
    pub process: Process,
}

impl Config {
    pub(crate) fn key(&self) -> anyhow::Result<Key> {
        let text = self.cookie_key.trim();
        let bytes = hex::decode(text).or_else(|_| BASE64_STANDARD.decode(text));
        let bytes = bytes.ok().context("COOKIE_KEY is neither base64 nor hex")?;
        let enough =
            "COOKIE_KEY is too short: it takes at least 64 random bytes, such as of `openssl rand -hex 64`";
        anyhow::ensure!(bytes.len() >= 64, enough);
        Ok(Key::from(&bytes))
    }

    /// `https://shop.example.com`, as browsers send it in `Origin`.
    pub(crate) fn origin(&self) -> anyhow::Result<String> {
        let origin = self.public_url.origin();
        let sense = "PUBLIC_URL is an http or https address without a path";
        anyhow::ensure!(origin.is_tuple() && self.public_url.path() == "/", sense);
        Ok(origin.ascii_serialization())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn with_key(key: &str) -> Config {
        let key = format!("--cookie-key={key}");
        let urls = ["--api-url=http://edge:8080", "--public-url=http://localhost:8080", "--storefront-key=x"];
        Config::parse_from(["storefront", urls[0], urls[1], urls[2], &key])
    }

    #[test]
    fn env_example_is_current() {
        let expected = service::config::env_example(&Config::command());
        assert!(
            include_str!("../../.env.example").contains(&expected),
            ".env.example lacks this, after `# --- storefront ---`:\n{expected}"
        );
    }

    #[test]
    fn a_short_cookie_key_is_refused_with_a_sentence() {
        let refused =
            |key: &str| with_key(key).key().err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused(&"ab".repeat(63)).contains("at least 64 random bytes"));
        assert!(refused("no key!").contains("neither base64 nor hex"));
        assert!(with_key(&"ab".repeat(64)).key().is_ok());
        assert!(with_key(&BASE64_STANDARD.encode([7; 64])).key().is_ok());
    }

    #[test]
    fn the_origin_is_the_public_address_without_a_path() {
        assert_eq!(with_key("x").origin().unwrap(), "http://localhost:8080");
        let mut config = with_key("x");
        config.public_url = "https://shop.example.com/".parse().unwrap();
        assert_eq!(config.origin().unwrap(), "https://shop.example.com");
        config.public_url = "https://shop.example.com/shop".parse().unwrap();
        assert!(config.origin().is_err());
    }
}
