//! The parts of a `scheme://user:password@host:port/path?query` address that are changed here.

use anyhow::{Context, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub scheme: String,
    pub user: String,
    pub password: String,
    /// With the port, when one is given.
    pub host: String,
    /// Without the leading slash.
    pub path: String,
    /// With the question mark; empty when there is none.
    pub query: String,
}

impl Url {
    /// User and password stay encoded as they came, which is right for building other addresses.
    pub fn parse(text: &str) -> Result<Url> {
        let (scheme, rest) = text.split_once("://").context("not an address: it has no `://`")?;
        let (rest, query) = match rest.find('?') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, ""),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (account, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = account.split_once(':').unwrap_or((account, ""));
        Ok(Url {
            scheme: scheme.to_owned(),
            user: user.to_owned(),
            password: password.to_owned(),
            host: host.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
        })
    }

    pub fn with_database(&self, name: &str) -> Url {
        Url { path: name.to_owned(), ..self.clone() }
    }

    pub fn with_account(&self, user: &str, password: &str) -> Url {
        Url { user: user.to_owned(), password: password.to_owned(), ..self.clone() }
    }

    /// For a command line, which other accounts can read.
    pub fn without_password(&self) -> String {
        let at = if self.user.is_empty() { String::new() } else { format!("{}@", self.user) };
        format!("{}://{at}{}/{}{}", self.scheme, self.host, self.path, self.query)
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let account = match (self.user.as_str(), self.password.as_str()) {
            ("", "") => String::new(),
            (user, "") => format!("{user}@"),
            (user, password) => format!("{user}:{password}@"),
        };
        write!(f, "{}://{account}{}/{}{}", self.scheme, self.host, self.path, self.query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_round_trips_and_its_parts_can_be_exchanged() {
        let text = "postgres://admin:p%40ss@db.example:5433/shop?sslmode=require";
        let url = Url::parse(text).unwrap();
        assert_eq!(url.to_string(), text);
        let other = url.with_database("dockside").with_account("order_service", "x");
        assert_eq!(other.to_string(), "postgres://order_service:x@db.example:5433/dockside?sslmode=require");
        assert_eq!(url.without_password(), "postgres://admin@db.example:5433/shop?sslmode=require");
    }

    #[test]
    fn parts_may_be_missing() {
        assert_eq!(Url::parse("amqp://localhost").unwrap().to_string(), "amqp://localhost/");
        assert!(Url::parse("localhost").is_err());
    }
}
