//! `cargo dockside bench` builds this program and runs it, once for each of these.
//!
//! `bench orders`: how many orders the shop sees through, beside what its PostgreSQL could write at most. `bench reads`:
//! how many products are read, beside a bare server's. `bench replicas`: what an order costs with more replicas.
//! `bench soak`: whether memory grows under load. `bench telemetry`: what traces, metrics and logs cost.
//!
//! The two are measured in turns on the same server, so that a slow or busy machine slows both. Times of one machine say
//! little on another; their ratios say more. `bench/floors.toml` has what each may not fall below, or rise above.

mod floors;
mod limit;
mod measure;
mod orders;
mod reads;
mod replicas;
mod shop;
mod soak;
mod telemetry;
mod work;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use machine::console::{self, line};
use machine::layout::{DEFAULT_DIR, Layout, Lock};
use machine::process::{self, output};
use machine::signals;
use machine::supervisor::{self, Supervisor};
use serde_json::{Value, json};

use crate::floors::{Figure, Floors};
use crate::measure::Measured;

/// Of a run whose figures do not all keep their floors.
const BROKEN: u8 = 2;

fn main() -> ExitCode {
    console::init();
    process::end_with_parent();
    let name = std::env::args().nth(1).unwrap_or_default();
    let dir = std::env::var_os("DOCKSIDE_DIR").map_or(PathBuf::from(DEFAULT_DIR), PathBuf::from);
    match Layout::new(&dir).and_then(|layout| run(&layout, &name)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(BROKEN),
        // The user has seen it, too, and says so.
        Err(e) if e.is::<signals::Interrupted>() => ExitCode::FAILURE,
        Err(e) => console::end(Err(e)),
    }
}

/// Measures, writes `NAME.json` and `NAME.md` into the folder, and returns whether every figure keeps its floor.
fn run(layout: &Layout, name: &str) -> Result<bool> {
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
        "orders" => with_shop(orders::measure),
        "reads" => with_shop(reads::measure),
        "replicas" => replicas::measure(&layout),
        "soak" => with_shop(soak::measure),
        "telemetry" => telemetry::measure(&layout),
        other => bail!("no bench {other}: orders, reads, replicas, soak or telemetry"),
    }?;
    report(&layout, name, &floors, &figures, &rounds)
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

#[cfg(test)]
mod tests {
    #[test]
    fn no_module_leads_back_to_itself() {
        assert_eq!(arrows::circles(env!("CARGO_MANIFEST_DIR")), Vec::<String>::new());
    }
}
