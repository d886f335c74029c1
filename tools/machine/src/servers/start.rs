//! Starts the two servers that hold data, or takes the ones that the user's environment names.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{postgres, rabbitmq, tls};
use crate::console::{seconds, step};
use crate::layout::Layout;
use crate::net;
use crate::state::Secrets;
use crate::supervisor::Supervisor;
use crate::url::Url;

/// First start of a broker on a slow disk included.
const LIMIT: Duration = Duration::from_secs(90);

/// The port of RabbitMQ's metrics, in the state.
pub const METRICS: &str = "rabbitmq-metrics";

/// Where the services find the broker.
#[derive(Clone)]
pub struct Broker {
    admin: Url,
    private: bool,
}

impl Broker {
    /// A private one, by its administrator's address.
    pub fn private(admin: Url) -> Broker {
        Broker { admin, private: true }
    }

    /// The address for one service: its own account on the private broker, the given one elsewhere.
    pub fn url_for(&self, service: &str, password: &str) -> String {
        if self.private {
            self.admin.with_account(service, password).to_string()
        } else {
            self.admin.to_string()
        }
    }

    pub fn host(&self) -> &str {
        &self.admin.host
    }

    /// The same, called at another address.
    pub fn at(&self, host: String) -> Broker {
        Broker { admin: Url { host, ..self.admin.clone() }, private: self.private }
    }

    pub fn admin_url(&self) -> String {
        self.admin.to_string()
    }
}

fn as_container(contained: bool) -> &'static str {
    if contained { ", as a container" } else { "" }
}

/// A port for a server: the one it had last time, if that is free.
fn port(supervisor: &Supervisor, name: &str) -> Result<u16> {
    let ports = supervisor.state().ports;
    let others: Vec<u16> = ports.iter().filter(|(n, _)| *n != name).map(|(_, p)| *p).collect();
    let port = net::choose(ports.get(name).copied(), &others)?;
    supervisor.update(|s| {
        s.ports.insert(name.to_owned(), port);
    })?;
    Ok(port)
}

/// Starts PostgreSQL, `contained` as a container, or takes the server that was given, and creates what the services
/// need in it.
///
/// Returns the administrator's address of the services' database.
pub fn postgres(
    layout: &Layout,
    supervisor: &Supervisor,
    secrets: &Secrets,
    given: Option<String>,
    contained: bool,
) -> Result<Url> {
    let admin = match given {
        Some(text) => {
            let url = Url::parse(&text).context("DATABASE_URL")?;
            step("postgres", &format!("using {} (DATABASE_URL)", url.host));
            url
        }
        None if contained => run_postgres(layout, supervisor, secrets, None)?,
        None => {
            let bin = postgres::find_bin().context("PostgreSQL is not installed")?;
            run_postgres(layout, supervisor, secrets, Some(&bin))?
        }
    };
    provision(layout, supervisor, secrets, &admin)
}

/// As [`postgres`], with the programs of this folder.
pub fn postgres_in(layout: &Layout, supervisor: &Supervisor, secrets: &Secrets, bin: &Path) -> Result<Url> {
    ensure!(bin.join("initdb").is_file(), "there is no initdb in {}", bin.display());
    let admin = run_postgres(layout, supervisor, secrets, Some(bin))?;
    provision(layout, supervisor, secrets, &admin)
}

/// With the programs of this folder, or as a container.
fn run_postgres(
    layout: &Layout,
    supervisor: &Supervisor,
    secrets: &Secrets,
    bin: Option<&Path>,
) -> Result<Url> {
    let port = port(supervisor, "postgres")?;
    step("postgres", &format!("starting on port {port}{}", as_container(bin.is_none())));
    let spec = postgres::spec(layout, bin, secrets, port)?;
    supervisor.start(spec)?;
    let took = supervisor.wait_ready("postgres", LIMIT)?;
    step("postgres", &format!("ready in {}", seconds(took)));
    let url = Url::parse(&postgres::admin_url(secrets, port, "postgres"))?;
    Ok(match layout.tls {
        false => url,
        true => Url {
            host: format!("{}:{port}", tls::HOST),
            query: format!("?sslmode=verify-full&sslrootcert={}", tls::authority_in_query(layout)),
            ..url
        },
    })
}

fn provision(layout: &Layout, supervisor: &Supervisor, secrets: &Secrets, admin: &Url) -> Result<Url> {
    postgres::provision(layout, admin, secrets)?;
    let admin = admin.with_database(postgres::DATABASE);
    supervisor.update(|s| s.postgres = Some(admin.to_string()))?;
    Ok(admin)
}

/// Starts RabbitMQ, `contained` as a container, or takes the one that was given, without waiting for it: the
/// services reach it once it is there.
pub fn rabbitmq(
    layout: &Layout,
    supervisor: &Supervisor,
    secrets: &Secrets,
    given: Option<String>,
    contained: bool,
) -> Result<Broker> {
    let broker = match given {
        Some(text) => {
            let admin = Url::parse(&text).context("AMQP_URL")?;
            step("rabbitmq", &format!("using {} (AMQP_URL)", admin.host));
            Broker { admin, private: false }
        }
        None => {
            let programs = match contained {
                true => None,
                false => Some(rabbitmq::find_programs().context("RabbitMQ is not installed")?),
            };
            run_rabbitmq(layout, supervisor, secrets, programs.as_ref())?
        }
    };
    supervisor.update(|s| s.rabbitmq = Some(broker.admin_url()))?;
    Ok(broker)
}

/// As [`rabbitmq`], with these programs.
pub fn rabbitmq_by(
    layout: &Layout,
    supervisor: &Supervisor,
    secrets: &Secrets,
    programs: &rabbitmq::Programs,
) -> Result<Broker> {
    let broker = run_rabbitmq(layout, supervisor, secrets, Some(programs))?;
    supervisor.update(|s| s.rabbitmq = Some(broker.admin_url()))?;
    Ok(broker)
}

/// With these programs, or as a container.
fn run_rabbitmq(
    layout: &Layout,
    supervisor: &Supervisor,
    secrets: &Secrets,
    programs: Option<&rabbitmq::Programs>,
) -> Result<Broker> {
    let ports = rabbitmq::Ports {
        amqp: port(supervisor, "rabbitmq")?,
        epmd: port(supervisor, "epmd")?,
        distribution: port(supervisor, "erlang")?,
        metrics: layout.observed.then(|| port(supervisor, METRICS)).transpose()?,
    };
    step("rabbitmq", &format!("starting on port {}{}", ports.amqp, as_container(programs.is_none())));
    let (epmd, broker) = rabbitmq::specs(layout, programs, secrets, &ports)?;
    if let Some(epmd) = epmd {
        supervisor.start(epmd)?;
        supervisor.wait_ready("epmd", LIMIT)?;
    }
    supervisor.start(broker)?;
    let admin = Url::parse(&rabbitmq::url("admin", &secrets.rabbitmq_admin, ports.amqp))?;
    let admin = match layout.tls {
        false => admin,
        true => Url {
            scheme: "amqps".into(),
            host: format!("{}:{}", tls::HOST, ports.amqp),
            query: format!("?cacertfile={}", tls::authority_in_query(layout)),
            ..admin
        },
    };
    Ok(Broker { admin, private: true })
}

/// Waits until the private broker takes connections; one that the user gave is the services' to wait for.
pub fn rabbitmq_ready(supervisor: &Supervisor, broker: &Broker) -> Result<()> {
    if broker.private {
        let took = supervisor.wait_ready("rabbitmq", LIMIT)?;
        step("rabbitmq", &format!("ready in {}", seconds(took)));
    }
    Ok(())
}
