//! Addresses by which passwords, tokens and personal data would go over the network for everybody on it to read.

use anyhow::bail;

use crate::config::Backends;
use crate::db;

/// Refuses plain addresses of the stores and of these `peers`, as [`refuse`] does: what a service begins with.
pub fn refuse_all(backends: &Backends, peers: &[(&'static str, &str)]) -> anyhow::Result<()> {
    let direct = backends.database_direct_url.as_deref().map(|url| ("DATABASE_DIRECT_URL", url));
    let stores = [("DATABASE_URL", backends.database_url.as_str()), ("AMQP_URL", backends.amqp_url.as_str())];
    let all: Vec<_> = stores.into_iter().chain(direct).chain(peers.iter().copied()).collect();
    refuse(backends.allow_plaintext, &all)
}

/// Refuses those of the addresses, each given with the name of its setting, that lead to anybody without TLS, or to
/// whoever may be at the other end of it. Lists, with commas, are looked through. A socket of the machine's own is no
/// network.
///
/// # Errors
/// when one is refused, with what to set; not when plain addresses are `allowed`.
pub fn refuse(allowed: bool, addresses: &[(&'static str, &str)]) -> anyhow::Result<()> {
    for &(setting, address) in addresses.iter().filter(|_| !allowed) {
        if let Some(instead) = instead(setting, address)? {
            bail!(
                "{setting} leads over the network unencrypted, or to a server that nobody checks: {instead}, or set \
                 ALLOW_PLAINTEXT=true where nobody else is on that network"
            );
        }
    }
    Ok(())
}

/// What to write instead, if it is plain.
fn instead(setting: &'static str, address: &str) -> anyhow::Result<Option<&'static str>> {
    let scheme = |address: &str| address.split_once("://").map(|(scheme, _)| scheme.trim().to_lowercase());
    if matches!(scheme(address).as_deref(), Some("postgres" | "postgresql")) {
        let verified = db::verifies_the_server(setting, address)?;
        return Ok(
            (!verified).then_some("add sslmode=verify-full, and sslrootcert=/path/of/ca.pem, to its query")
        );
    }
    Ok(address.split(',').find_map(|one| match scheme(one)?.as_str() {
        "amqp" => Some("write amqps://, and add cacertfile=/path/of/ca.pem to its query"),
        "http" => Some("write https:// (other services of the shop: with TLS_DIR)"),
        _ => None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_address_is_refused_in_a_sentence_that_says_what_to_set() {
        for (address, write) in [
            ("postgres://role:hush@db/shop", "sslmode=verify-full"),
            ("postgres://role:hush@db/shop?sslmode=prefer", "sslmode=verify-full"),
            ("postgresql://role:hush@db/shop?sslmode=require", "sslmode=verify-full"),
            ("postgres://role:hush@db/shop?sslmode=verify-ca", "sslmode=verify-full"),
            ("postgres://role:hush@one,two/shop?sslmode=disable", "sslmode=verify-full"),
            ("amqp://account:hush@broker/%2f", "amqps://"),
            ("AMQP://account:hush@broker/%2f", "amqps://"),
            ("http://user:8081/.well-known/jwks.json", "https://"),
            ("https://one:9082,http://two:9082", "https://"),
        ] {
            let said =
                refuse(false, &[("OTHER", "https://x"), ("SETTING", address)]).unwrap_err().to_string();
            assert!(said.starts_with("SETTING ") && said.contains(write), "{address}: {said}");
            assert!(said.contains("ALLOW_PLAINTEXT=true") && !said.contains("hush"), "{said}");
            assert!(refuse(true, &[("SETTING", address)]).is_ok());
        }
    }

    #[test]
    fn what_is_encrypted_or_leaves_no_machine_is_taken() {
        for address in [
            "postgres://role@db/shop?sslmode=verify-full",
            "postgres://role@one:1,two:2/shop?sslmode=verify-full&sslrootcert=/tls/ca.crt",
            "postgres:///shop?host=/run/postgresql",
            "postgres://role@%2Frun%2Fpostgresql/shop",
            "amqps://account@broker/%2f",
            "https://one:9082,https://two:9082",
            "s3://bucket/prefix",
        ] {
            assert!(refuse(false, &[("SETTING", address)]).is_ok(), "{address}");
        }
    }
}
