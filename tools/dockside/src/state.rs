//! What survives the supervisor: `state.json` (who runs where) and `secrets.json` (passwords and keys).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::layout::{Layout, write_private};
use crate::net::Probe;
use crate::process::Identity;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    pub supervisor: Option<Identity>,
    /// Set once everything that was asked for is ready.
    pub ready: bool,
    pub edge: Option<String>,
    pub processes: Vec<Process>,
    /// Administrator's addresses, with passwords.
    pub postgres: Option<String>,
    pub rabbitmq: Option<String>,
    /// Ports of the servers, kept from one start to the next.
    pub ports: BTreeMap<String, u16>,
    /// Data outside the folder, for `down --wipe`.
    pub outside: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub name: String,
    #[serde(flatten)]
    pub identity: Identity,
    #[serde(flatten)]
    pub addresses: Addresses,
    pub probe: Probe,
    /// A helper of another process, not shown.
    #[serde(default)]
    pub hidden: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
}

impl State {
    /// The last state written; the default when there is none or it is not readable as one.
    pub fn load(layout: &Layout) -> State {
        fs::read(layout.state()).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default()
    }

    pub fn save(&self, layout: &Layout) -> Result<()> {
        write_private(&layout.state(), &serde_json::to_vec_pretty(self)?)
    }

    pub fn running(&self) -> bool {
        self.supervisor.as_ref().is_some_and(Identity::alive)
    }
}

/// Passwords and keys of this folder's shop, made once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    pub postgres_admin: String,
    pub rabbitmq_admin: String,
    pub erlang_cookie: String,
    /// PostgreSQL role and RabbitMQ account of each service.
    pub user: String,
    pub product: String,
    pub order: String,
    pub payment_secret_key: String,
    pub payment_webhook_secret: String,
}

impl Secrets {
    pub fn load_or_create(layout: &Layout) -> Result<Secrets> {
        let path = layout.dir.join("secrets.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
                format!("{} is damaged: `cargo dockside down --wipe` starts anew", path.display())
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let secrets = Secrets {
                    postgres_admin: random_hex()?,
                    rabbitmq_admin: random_hex()?,
                    erlang_cookie: random_hex()?,
                    user: random_hex()?,
                    product: random_hex()?,
                    order: random_hex()?,
                    // The shapes of Stripe's test keys, so that its client libraries take them.
                    payment_secret_key: format!("sk_test_{}", random_hex()?),
                    payment_webhook_secret: format!("whsec_{}", random_hex()?),
                };
                write_private(&path, &serde_json::to_vec_pretty(&secrets)?)?;
                Ok(secrets)
            }
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

/// 128 random bits in hexadecimal: safe in a URL, a shell and a configuration file.
pub fn random_hex() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes).context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_round_trips() {
        let state = State {
            supervisor: Some(Identity { pid: 1, started: "2".into() }),
            ready: true,
            edge: Some("http://localhost:8080".into()),
            processes: vec![Process {
                name: "order".into(),
                identity: Identity { pid: 3, started: "4".into() },
                addresses: Addresses { http: Some("http://127.0.0.1:8083".into()), ..Addresses::default() },
                probe: Probe::Http { url: "http://127.0.0.1:7083/readyz".into() },
                hidden: false,
            }],
            ports: BTreeMap::from([("postgres".into(), 5433)]),
            ..State::default()
        };
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
    }

    #[test]
    fn an_old_or_empty_state_is_read_as_far_as_it_goes() {
        assert_eq!(serde_json::from_str::<State>("{}").unwrap(), State::default());
    }

    #[test]
    fn random_values_differ() {
        let (a, b) = (random_hex().unwrap(), random_hex().unwrap());
        assert_eq!(a.len(), 32);
        assert_ne!(a, b);
    }
}
