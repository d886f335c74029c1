//! What the benches share: how many clients and rounds, and the shop that they measure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use machine::install::{self, Need};
use machine::layout::Layout;
use machine::servers::start;
use machine::services;
use machine::state::Secrets;
use machine::supervisor::Supervisor;
use machine::url::Url;
use serde_json::Value;

use crate::floors::Figure;

/// Clients at once, of the shop and of its limit.
pub const CLIENTS: u32 = 32;
/// Times that the shop and its limit are measured, in turns.
pub const ROUNDS: usize = 5;
/// For the services to come to rest.
pub const REST_MILLIS: u64 = 10_000;

pub const SERVICES: [&str; 3] = ["user", "product", "order"];

/// The figures, and for the JSON what they were made of.
pub type Measured = (Vec<Figure>, Value);

/// Starts a shop as it runs in production, but without limits for each client, and with `more` settings. Returns its
/// PostgreSQL's address.
pub fn start(
    layout: &Layout,
    supervisor: &Supervisor,
    built: &BTreeMap<String, PathBuf>,
    replicas: usize,
    more: &[(&'static str, String)],
    prepare: impl FnOnce(&Url) -> Result<()>,
) -> Result<Url> {
    let secrets = Secrets::load_or_create(layout)?;
    let contained = install::all(layout)?;
    ensure!(
        !contained.contains(&Need::Postgres),
        "the limit is measured with pgbench, beside PostgreSQL's other programs: install PostgreSQL"
    );
    let broker = start::rabbitmq(layout, supervisor, &secrets, None, contained.contains(&Need::RabbitMq))?;
    let admin = start::postgres(layout, supervisor, &secrets, None, false)?;
    start::rabbitmq_ready(supervisor, &broker)?;
    prepare(&admin)?;
    let options = services::Options {
        port: None,
        demo: true,
        contained: contained.contains(&Need::Nginx),
        hasty: false,
        measured: true,
        replicas,
        storefront: false,
        links: None,
        balancers: Vec::new(),
        more: more.to_vec(),
    };
    services::start(layout, supervisor, &options, &secrets, &admin, built, &broker)?;
    supervisor.update(|s| s.ready = true)?;
    Ok(admin)
}
