//! The web pages: a client of the API, by the edge, as any other.

use std::path::PathBuf;

use super::{Three, is_set, loopback, settings};
use crate::net::Probe;
use crate::spec::Spec;
use crate::state::{Addresses, Secrets};
use crate::system::given;

/// Where browsers find the shop.
pub fn address(edge: u16) -> String {
    let address = given("PUBLIC_URL").unwrap_or_else(|| format!("http://localhost:{edge}"));
    address.trim_end_matches('/').to_owned()
}

/// A setting of a service that names a page of this shop, unless the user has one of their own.
pub fn page(setting: &'static str, shop: &str, path: &str) -> Option<(&'static str, String)> {
    (!is_set(setting)).then(|| (setting, format!("{shop}{path}")))
}

/// A process of it, with its additional settings.
pub fn spec<'a>(
    (name, [http, _, admin]): (String, Three),
    program: PathBuf,
    edge: &str,
    shop: &str,
    secrets: &Secrets,
    more: impl Iterator<Item = (&'a str, String)>,
) -> Spec {
    let own = [
        ("HTTP_ADDR", loopback(http)),
        ("ADMIN_ADDR", loopback(admin)),
        ("API_URL", format!("http://{edge}")),
        ("PUBLIC_URL", shop.to_owned()),
        ("COOKIE_KEY", secrets.cookie_key.clone()),
        ("STOREFRONT_KEY", secrets.storefront_key.clone()),
        ("PAYMENT_SANDBOX", "true".to_owned()),
        ("LOG_FORMAT", "json".to_owned()),
    ];
    let (http, admin) = (format!("http://{}", loopback(http)), format!("http://{}", loopback(admin)));
    Spec {
        name,
        program,
        args: Vec::new(),
        env: settings(own.into_iter().chain(more)),
        run_as: None,
        probe: Probe::Http { url: format!("{admin}/readyz") },
        addresses: Addresses { http: Some(http), grpc: None, admin: Some(admin) },
        hidden: false,
        container: None,
    }
}
