//! What survives the supervisor: `state.json` (who runs where) and `secrets.json` (passwords and keys).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::layout::{Layout, write_private};
use crate::net::Probe;
use crate::process::Identity;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub name: String,
    /// `None` while it is being started again.
    pub identity: Option<Identity>,
    pub addresses: Addresses,
    pub probe: Probe,
    /// A helper of another process, not shown.
    pub hidden: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    pub http: Option<String>,
    pub grpc: Option<String>,
    pub admin: Option<String>,
}

impl State {
    /// The last state written; the default when there is none or it is not readable as one.
    pub fn load(layout: &Layout) -> State {
        let bytes = fs::read(layout.state()).unwrap_or_default();
        serde_json::from_slice(&bytes).map(|value| State::from_json(&value)).unwrap_or_default()
    }

    pub fn save(&self, layout: &Layout) -> Result<()> {
        write_private(&layout.state(), &serde_json::to_vec_pretty(&self.to_json())?)
    }

    pub fn running(&self) -> bool {
        self.supervisor.as_ref().is_some_and(Identity::alive)
    }

    fn to_json(&self) -> Value {
        json!({
            "supervisor": self.supervisor.as_ref().map(|s| json!({"pid": s.pid, "started": s.started})),
            "ready": self.ready,
            "edge": self.edge,
            "processes": self.processes.iter().map(Process::to_json).collect::<Vec<_>>(),
            "postgres": self.postgres,
            "rabbitmq": self.rabbitmq,
            "ports": self.ports,
        })
    }

    /// Reads as far as it goes: what another version wrote may lack parts.
    fn from_json(value: &Value) -> State {
        let ports = value["ports"].as_object().into_iter().flatten();
        State {
            supervisor: identity(&value["supervisor"]),
            ready: value["ready"].as_bool().unwrap_or(false),
            edge: text(&value["edge"]),
            processes: value["processes"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Process::from_json)
                .collect(),
            postgres: text(&value["postgres"]),
            rabbitmq: text(&value["rabbitmq"]),
            ports: ports.filter_map(|(n, p)| Some((n.clone(), u16::try_from(p.as_u64()?).ok()?))).collect(),
        }
    }
}

impl Process {
    /// The process itself, while it lives.
    pub fn live(&self) -> Option<&Identity> {
        self.identity.as_ref().filter(|i| i.alive())
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "pid": self.identity.as_ref().map(|i| i.pid),
            "started": self.identity.as_ref().map(|i| &i.started),
            "http": self.addresses.http,
            "grpc": self.addresses.grpc,
            "admin": self.addresses.admin,
            "probe": self.probe.to_text(),
            "hidden": self.hidden,
        })
    }

    fn from_json(value: &Value) -> Option<Process> {
        Some(Process {
            name: text(&value["name"])?,
            identity: identity(value),
            addresses: Addresses {
                http: text(&value["http"]),
                grpc: text(&value["grpc"]),
                admin: text(&value["admin"]),
            },
            probe: Probe::parse(value["probe"].as_str()?)?,
            hidden: value["hidden"].as_bool().unwrap_or(false),
        })
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn identity(value: &Value) -> Option<Identity> {
    Some(Identity { pid: u32::try_from(value["pid"].as_u64()?).ok()?, started: text(&value["started"])? })
}

/// The service that a process is a replica of: `order` of `order-2`.
pub fn service_of(process: &str) -> &str {
    match process.rsplit_once('-') {
        Some((service, number)) if number.parse::<usize>().is_ok() => service,
        _ => process,
    }
}

/// The name of a replica, by its number from 1.
pub fn replica_name(service: &str, number: usize) -> String {
    if number == 1 { service.to_owned() } else { format!("{service}-{number}") }
}

/// Passwords and keys of this folder's shop, made once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    pub postgres_admin: String,
    pub rabbitmq_admin: String,
    pub erlang_cookie: String,
    /// PostgreSQL role and RabbitMQ account of each service.
    pub user: String,
    pub product: String,
    pub order: String,
    /// PostgreSQL role of `operator reconcile` where it runs by itself.
    pub reconcile: String,
    pub payment_secret_key: String,
    pub payment_webhook_secret: String,
    /// What the storefront proves itself to the edge by.
    pub storefront_key: String,
    /// What the storefront seals its cookies with: 64 bytes.
    pub cookie_key: String,
}

impl Secrets {
    pub fn load_or_create(layout: &Layout) -> Result<Secrets> {
        let path = layout.dir.join("secrets.json");
        let mut known = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
                format!("{} is damaged: `cargo dockside down --wipe` starts anew", path.display())
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Value::Object(serde_json::Map::new()),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        let mut made = false;
        let mut secret = |name: &str, prefix: &str| -> Result<String> {
            if let Some(secret) = known[name].as_str() {
                return Ok(secret.to_owned());
            }
            made = true;
            let secret = format!("{prefix}{}", random_hex()?);
            known[name] = json!(secret);
            Ok(secret)
        };
        let secrets = Secrets {
            postgres_admin: secret("postgres_admin", "")?,
            rabbitmq_admin: secret("rabbitmq_admin", "")?,
            erlang_cookie: secret("erlang_cookie", "")?,
            user: secret("user", "")?,
            product: secret("product", "")?,
            order: secret("order", "")?,
            reconcile: secret("reconcile", "")?,
            // The shapes of Stripe's test keys, so that its client libraries take them.
            payment_secret_key: secret("payment_secret_key", "sk_test_")?,
            payment_webhook_secret: secret("payment_webhook_secret", "whsec_")?,
            storefront_key: secret("storefront_key", "")?,
            // 16 bytes after 48.
            cookie_key: secret("cookie_key", &(random_hex()? + &random_hex()? + &random_hex()?))?,
        };
        if made {
            write_private(&path, &serde_json::to_vec_pretty(&known)?)?;
        }
        Ok(secrets)
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
                identity: Some(Identity { pid: 3, started: "4".into() }),
                addresses: Addresses { http: Some("http://127.0.0.1:8083".into()), ..Addresses::default() },
                probe: Probe::Http { url: "http://127.0.0.1:7083/readyz".into() },
                hidden: false,
            }],
            ports: BTreeMap::from([("postgres".into(), 5433)]),
            ..State::default()
        };
        let text = state.to_json().to_string();
        assert_eq!(State::from_json(&serde_json::from_str(&text).unwrap()), state);
    }

    #[test]
    fn an_old_or_empty_state_is_read_as_far_as_it_goes() {
        assert_eq!(State::from_json(&json!({})), State::default());
        assert_eq!(
            State::from_json(&json!({"edge": 1, "processes": [{}], "ports": {"a": 70_000}})),
            State::default()
        );
    }

    #[test]
    fn random_values_differ() {
        let (a, b) = (random_hex().unwrap(), random_hex().unwrap());
        assert_eq!(a.len(), 32);
        assert_ne!(a, b);
    }
}
