//! Memory under four times the usual load.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use machine::console::{line, seconds};
use machine::process::pause;
use machine::signals;

use crate::books;
use crate::listeners::Listeners;
use crate::load::Load;
use crate::memory::Group;
use crate::shop::{Shop, docker, inspect};

const RATE: u32 = 400;
/// A machine that is too slow for [`RATE`] shows little below this.
const LEAST_RATE: f64 = 300.0;
const LASTS: Duration = Duration::from_secs(60);
/// Of all containers' peaks together, page cache included.
const ALL: u64 = 1 << 30;
const MIB: f64 = 1_048_576.0;

struct Container {
    id: String,
    service: String,
    restarts: String,
    /// In bytes.
    limit: u64,
    group: Group,
    /// The highest that was seen, in bytes.
    working_set: u64,
}

pub fn run(shop: &Shop) -> Result<String> {
    let mut containers = containers(shop)?;
    let load = Load::new(shop, RATE)?;
    let listeners = Listeners::fill(shop)?;
    let ((), report) = load.during(|| {
        let start = Instant::now();
        while start.elapsed() < LASTS {
            signals::check()?;
            for c in &mut containers {
                c.working_set = c.working_set.max(c.group.working_set().with_context(|| gone(c))?);
            }
            pause(250);
        }
        Ok(())
    })?;
    let (listening, took) = listeners.ship(shop)?;
    line(&format!("  {:<16} {:>9} {:>9} {:>18}", "MiB", "limit", "peak", "of it not cache"));
    let mut sum = 0;
    for c in &containers {
        let peak = c.group.peak().with_context(|| gone(c))?;
        sum += peak;
        let [limit, high, without] = [c.limit, peak, c.working_set].map(|bytes| bytes as f64 / MIB);
        line(&format!("  {:<16} {limit:>9.0} {high:>9.1} {without:>18.1}", c.service));
    }
    for c in &containers {
        let state = inspect(&c.id, "{{.RestartCount}} {{.State.Status}} {{.State.OOMKilled}}")?;
        ensure!(state == format!("{} running false", c.restarts), "{} was restarted: {state}", c.service);
        ensure!(c.group.killed()? == 0, "the kernel killed a process of {} for want of memory", c.service);
    }
    // Refusing is a way to stay within limits; the rate is that of the others.
    let refused = report.only_refused()?;
    ensure!(
        report.rate() >= LEAST_RATE,
        "only {:.0} requests/s were answered: too few to judge",
        report.rate()
    );
    books::check(shop, &load, &report)?;
    ensure!(sum < ALL, "all peaks together are {:.0} MiB, not below 1 GiB", sum as f64 / MIB);
    let sum = sum as f64 / MIB;
    Ok(format!(
        "{}, {refused} refused (503), {} orders right; {listening} listeners got a change within {}; \
         all peaks {sum:.0} MiB",
        report.summary(),
        report.placed.len(),
        seconds(took)
    ))
}

fn gone(c: &Container) -> String {
    format!("{}: its control group is gone, so it was restarted", c.service)
}

/// Those that run, each with a limit.
fn containers(shop: &Shop) -> Result<Vec<Container>> {
    let ids = shop.compose(&["ps", "--quiet"])?;
    let format =
        "{{index .Config.Labels \"com.docker.compose.service\"}} {{.RestartCount}} {{.HostConfig.Memory}}";
    let mut found = Vec::new();
    for id in ids.lines() {
        let state = docker(&["inspect", "--format", format, id])?;
        let [service, restarts, limit] = state.split(' ').collect::<Vec<_>>()[..] else {
            anyhow::bail!("not a container's state: {state}");
        };
        let limit: u64 = limit.parse().context("a limit that is no number")?;
        ensure!(limit > 0, "{service} has no limit of memory");
        let (id, service, restarts) = (id.to_owned(), service.to_owned(), restarts.to_owned());
        found.push(Container { group: Group::of(&id)?, id, service, restarts, limit, working_set: 0 });
    }
    found.sort_by(|a, b| a.service.cmp(&b.service));
    Ok(found)
}
