//! Where the database is: one address, or several of which one is the primary.

use anyhow::{Context, bail, ensure};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// The setting that asks for a kind of server, as libpq has it.
/// <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-TARGET-SESSION-ATTRS>
const TARGET: &str = "target_session_attrs";

/// A connection URI in libpq's form, which may list several hosts:
/// `postgres://role:password@one:5432,two:5432/dockside?target_session_attrs=read-write`.
/// sqlx knows neither the list nor the setting. The result has one entry for each host.
///
/// A service always needs a server that takes writes, so `any`, `primary` and `read-write` mean the same here;
/// a setting that asks for a standby is refused. `setting` is named in errors; the password never is.
pub(super) fn parse(setting: &str, url: &str) -> anyhow::Result<Vec<PgConnectOptions>> {
    let Some((scheme, rest)) = url.split_once("://") else {
        bail!("{setting} is not a PostgreSQL URL: it has no ://");
    };
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let query = without_target(setting, query)?;
    let hosts: Vec<&str> = hosts.split(',').collect();
    let several = hosts.len() > 1;
    (1..)
        .zip(hosts)
        .map(|(number, host)| {
            ensure!(!several || !host.is_empty(), "{setting} lists a host without a name");
            let one = format!("{scheme}://{user}{host}{path}{query}");
            // Named by its place: what was taken for a host may be part of a password.
            let options = one.parse::<PgConnectOptions>().with_context(|| {
                format!(
                    "{setting} is not a PostgreSQL URL; check its host number {number}. In a password \
                     / ? # and @ are written %2F %3F %23 %40"
                )
            })?;
            // tokio resolves names, and knows an IPv6 address without its brackets only.
            let name = options.get_host().trim_matches(['[', ']']).to_owned();
            Ok(options.host(&name))
        })
        .collect()
}

/// Whether each server that the URL lists is spoken to by TLS and has to show that it is the one that is named, or is
/// reached by a socket of this machine.
///
/// `require` takes any certificate, so also that of somebody in between. `verify-ca` takes each that the authority has
/// signed: that of a private authority signs for all of the shop's processes, and any of them could pass for the database.
pub(crate) fn verifies_the_server(setting: &str, url: &str) -> anyhow::Result<bool> {
    let local =
        |options: &PgConnectOptions| options.get_socket().is_some() || options.get_host().starts_with('/');
    let verified = |options: &PgConnectOptions| matches!(options.get_ssl_mode(), PgSslMode::VerifyFull);
    Ok(parse(setting, url)?.iter().all(|options| local(options) || verified(options)))
}

/// The query string without `target_session_attrs`, and with its `?`.
fn without_target(setting: &str, query: &str) -> anyhow::Result<String> {
    let mut kept = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            TARGET => ensure!(
                ["any", "primary", "read-write"].contains(&value),
                "{setting} asks for {TARGET}={value}, but a service writes: set it to read-write"
            ),
            "host" | "port" | "hostaddr" => {
                ensure!(!value.contains(','), "{setting} lists hosts in `{name}`: list them after the @");
                kept.push(pair);
            }
            _ => kept.push(pair),
        }
    }
    Ok(if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(url: &str) -> Vec<(String, u16)> {
        let parsed = parse("DATABASE_URL", url).unwrap();
        parsed.iter().map(|options| (options.get_host().to_owned(), options.get_port())).collect()
    }

    fn refused(url: &str) -> String {
        format!("{:#}", parse("DATABASE_URL", url).unwrap_err())
    }

    #[test]
    fn each_host_of_a_list_is_an_address_of_its_own() {
        let url = "postgres://role:a%40b@one:5433,two,[::1]:5434/shop?target_session_attrs=read-write&sslmode=disable";
        assert_eq!(hosts(url), [("one".into(), 5433), ("two".into(), 5432), ("::1".into(), 5434)]);
        let parsed = parse("DATABASE_URL", url).unwrap();
        assert!(parsed.iter().all(|options| options.get_database() == Some("shop")));
        assert!(parsed.iter().all(|options| options.get_username() == "role"));
    }

    #[test]
    fn a_single_address_stays_as_it_is() {
        assert_eq!(hosts("postgresql://role@db/shop"), [("db".into(), 5432)]);
        assert_eq!(parse("X", "postgres:///shop?host=/run/postgresql").unwrap().len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_refused_in_a_sentence_without_the_password() {
        for (url, says) in [
            ("one:5432", "no ://"),
            ("postgres://role:hush@one,,two/shop", "a host without a name"),
            ("postgres://role:hush@one:x,two/shop", "host number 1"),
            ("postgres://role:hu/sh@one/shop", "host number 1"),
            ("postgres://role:hush@one/shop?host=a,b", "list them after the @"),
            ("postgres://role:hush@one/shop?target_session_attrs=standby", "set it to read-write"),
        ] {
            let error = refused(url);
            assert!(error.contains("DATABASE_URL") && error.contains(says), "{url}: {error}");
            assert!(!error.contains("hu"), "{error}");
        }
    }
}
