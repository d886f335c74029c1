//! Starting, killing, scaling and replacing services.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use machine::console::{line, seconds};
use machine::smoke;
use serde_json::Value;

use crate::books;
use crate::customers::{Customer, stocked};
use crate::load::Load;
use crate::shop::{Shop, docker, inspect, wait};

/// Requests a second: the usual load.
pub const RATE: u32 = 100;
/// Requests that each replica of order has to answer, of some 35 a second for both.
const SERVED: usize = 100;
/// One after the other, each new beside old.
const REPLACED: [&str; 10] =
    ["order", "product", "user", "order", "product", "user", "order", "product", "user", "order"];

pub fn up(shop: &Shop) -> Result<String> {
    pulls_none_of_ours(shop)?;
    let start = Instant::now();
    shop.compose(&["build"])?;
    let built = start.elapsed();
    let largest = images::largest(&shop.layout, &shop.project)?;
    let start = Instant::now();
    shop.start()?;
    let started = start.elapsed();
    smoke::run(&shop.layout, Some(&shop.edge()))?;
    Ok(format!(
        "built in {}, none larger than {largest} compressed; healthy in {}, and an order is paid",
        seconds(built),
        seconds(started)
    ))
}

/// A registry's image of the shop's name would be a stranger's, and get the secrets.
fn pulls_none_of_ours(shop: &Shop) -> Result<()> {
    let config = shop.compose(&["--profile", "canary", "config", "--format", "json"])?;
    let config: Value = serde_json::from_str(&config).context("Compose's configuration is no JSON")?;
    let services = config["services"].as_object().context("no services")?;
    let ours = |service: &Value| service["image"].as_str().is_some_and(|i| i.starts_with("dockside/"));
    let wrong = services.iter().find(|(_, s)| ours(s) && s["pull_policy"] != "never");
    ensure!(wrong.is_none(), "Compose would pull the image of {:?}", wrong.map(|(name, _)| name));
    ensure!(services.values().filter(|s| ours(s)).count() == 10, "not the images that were expected");
    Ok(())
}

/// The process dies, not by the engine's hand, which would keep it down.
pub fn heal(shop: &Shop) -> Result<String> {
    let product = stocked(shop, 1, 10)?.remove(0);
    let customer = Customer::new(shop)?;
    let (tools, mut found) = (shop.tools()?, Vec::new());
    for service in ["user", "product", "order", "storefront"] {
        let id = shop.container(service)?;
        let before: u32 = inspect(&id, "{{.RestartCount}}")?.parse().context("no number of restarts")?;
        let pid = inspect(&id, "{{.State.Pid}}")?;
        // From a container, as who may use the engine need not be root.
        let kill = format!("kill -KILL {pid}");
        let host = ["--pid=host", "--network=none", "--user=0", "--entrypoint=sh", &tools, "-c", &kill];
        docker(&[["run", "--rm"].as_slice(), &host].concat())?;
        let start = Instant::now();
        let wanted = format!("{} healthy", before + 1);
        wait(Duration::from_secs(30), || {
            Ok(inspect(&id, "{{.RestartCount}} {{.State.Health.Status}}")? == wanted)
        })
        .with_context(|| format!("waiting until {service} is healthy again"))?;
        let took = start.elapsed();
        customer.sign_in(shop)?;
        customer.buys(shop, &product)?;
        found.push(format!("{service} {}", seconds(took)));
    }
    Ok(format!("healthy again after SIGKILL: {}", found.join(", ")))
}

pub fn scale(shop: &Shop) -> Result<String> {
    let load = Load::new(shop, RATE)?;
    let scaled = |count: &str| {
        let scale = format!("order={count}");
        shop.compose(&["up", "--detach", "--wait", "--no-recreate", "--scale", &scale]).map(drop)
    };
    let (replicas, report) = load.during(|| {
        scaled("2")?;
        let replicas =
            shop.containers("order")?.iter().map(|id| shop.address(id)).collect::<Result<Vec<_>>>()?;
        ensure!(replicas.len() == 2, "order has {} replicas, not 2", replicas.len());
        wait(Duration::from_secs(30), || {
            let log = shop.logged(&load.run)?;
            Ok(replicas.iter().all(|address| answered(&log, address) >= SERVED))
        })
        .with_context(|| format!("waiting until both replicas of order have answered {SERVED} requests"))?;
        scaled("1")?;
        Ok(replicas)
    })?;
    report.none_lost()?;
    report.kept_up(RATE)?;
    books::check(shop, &load, &report)?;
    let log = shop.requests(&load.run, report.sent)?;
    let counts: Vec<String> = replicas.iter().map(|address| answered(&log, address).to_string()).collect();
    Ok(format!("{}, none lost; the replicas of order answered {}", report.summary(), counts.join(" and ")))
}

/// How many of these requests the replica of order with that address answered.
fn answered(log: &[String], address: &str) -> usize {
    // The last one tried is the one that answered.
    let mark = format!("{address}:8083\",\"upstream_seconds");
    log.iter().filter(|line| line.contains(&mark)).count()
}

pub fn replace(shop: &Shop) -> Result<String> {
    let load = Load::new(shop, RATE)?;
    let ((), report) = load.during(|| {
        for service in REPLACED {
            let start = Instant::now();
            let old = shop.container(service)?;
            let scale = format!("{service}=2");
            shop.compose(&["up", "--detach", "--wait", "--no-recreate", "--scale", &scale, service])?;
            docker(&["stop", &old])?;
            let code = inspect(&old, "{{.State.ExitCode}}")?;
            ensure!(code == "0", "{service} ended with code {code} on its signal to stop");
            docker(&["rm", &old])?;
            line(&format!("  {service} replaced in {}", seconds(start.elapsed())));
        }
        Ok(())
    })?;
    report.none_lost()?;
    report.kept_up(RATE)?;
    books::check(shop, &load, &report)?;
    let (count, orders) = (REPLACED.len(), report.placed.len());
    Ok(format!(
        "{count} replacements, {}, none lost; {orders} orders confirmed, paid and sold once",
        report.summary()
    ))
}
