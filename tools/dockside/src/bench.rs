//! `bench orders`: how many orders the shop sees through, beside what its PostgreSQL could write at most. `bench reads`:
//! how many products are read, beside a bare server's. `bench replicas`: what an order costs with more replicas.
//! `bench soak`: whether memory grows under load.
//!
//! The two are measured in turns on the same server, so that a slow or busy machine slows both. Times of one machine say
//! little on another; their ratios say more. `bench/floors.toml` has what each may not fall below, or rise above.

mod floors;
mod limit;
mod orders;
mod reads;
mod replicas;
mod shop;
mod soak;
mod work;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use machine::console::line;
use machine::install::{self, Need};
use machine::layout::{Layout, Lock};
use machine::process::output;
use machine::servers::start;
use machine::state::Secrets;
use machine::supervisor::{self, Supervisor};
use machine::url::Url;
use machine::{services, signals};
use serde_json::{Value, json};

use self::floors::{Figure, Floors};

/// Their names among the benches.
pub const ORDERS: &str = "orders";
pub const READS: &str = "reads";
pub const REPLICAS: &str = "replicas";
pub const SOAK: &str = "soak";

/// All of them. The last takes long, and runs when it is named.
pub const ALL: [&str; 4] = [ORDERS, READS, REPLICAS, SOAK];

/// Clients at once, of the shop and of its limit.
const CLIENTS: u32 = 32;
/// Times that the shop and its limit are measured, in turns.
const ROUNDS: usize = 5;
/// For the services to come to rest.
const REST_MILLIS: u64 = 10_000;

const SERVICES: [&str; 3] = ["user", "product", "order"];

/// Measures, writes `NAME.json` and `NAME.md` into the folder, and returns whether every figure keeps its floor.
pub fn run(layout: &Layout, name: &str) -> Result<bool> {
    let layout = layout.for_bench();
    layout.prepare()?;
    let Some(_lock) = Lock::acquire(&layout)? else {
        bail!("another `cargo dockside bench` is at work in {}", layout.dir.display());
    };
    let floors = Floors::read(&layout.root.join("bench/floors.toml"), name)?;
    signals::install()?;
    supervisor::stop_stale(&layout);
    layout.forget_data()?;
    let with_shop = |measure: fn(&Layout, &Supervisor) -> Result<Measured>| {
        let supervisor = Supervisor::new(&layout)?;
        let measured = measure(&layout, &supervisor);
        supervisor.stop();
        measured
    };
    let (figures, rounds) = match name {
        READS => with_shop(reads::measure),
        REPLICAS => replicas::measure(&layout),
        SOAK => with_shop(soak::measure),
        _ => with_shop(orders::measure),
    }?;
    report(&layout, name, &floors, &figures, &rounds)
}

/// The figures, and for the JSON what they were made of.
type Measured = (Vec<Figure>, Value);

/// Starts a shop as it runs in production, but without limits for each client. Returns its PostgreSQL's address.
fn start(
    layout: &Layout,
    supervisor: &Supervisor,
    built: &BTreeMap<String, PathBuf>,
    replicas: usize,
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
    };
    services::start(layout, supervisor, &options, &secrets, &admin, built, &broker)?;
    supervisor.update(|s| s.ready = true)?;
    Ok(admin)
}

fn report(layout: &Layout, name: &str, floors: &Floors, figures: &[Figure], rounds: &Value) -> Result<bool> {
    let table = floors.table(figures);
    let machine = output(Command::new("uname").arg("-sm").stdin(Stdio::null())).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let head = format!("{cores} cores, {}; medians (spread)\n\n", machine.trim());
    write(&layout.dir.join(format!("{name}.md")), &format!("{head}{table}"))?;
    let figures_json: Vec<Value> = figures.iter().map(Figure::json).collect();
    let json = json!({"version": 1, "cores": cores, "figures": figures_json, "rounds": rounds});
    write(&layout.dir.join(format!("{name}.json")), &format!("{json:#}\n"))?;
    line("");
    line(&format!("{head}{table}"));
    line(&format!("in {} as {name}.md and {name}.json", layout.dir.display()));
    Ok(floors.broken(figures).is_empty())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
