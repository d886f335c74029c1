//! `test`: formatting, manifests, contracts, lints, and all tests against servers of their own, in `.dockside/test`.
//!
//! The test programs are built once, for the whole workspace, and then run by themselves: `cargo test -p` would
//! choose other features of the dependencies for each package and compile them again.

pub mod programs;
mod web;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use chaos_shop::cluster;
use machine::commands::finish;
use machine::compile::{self, cargo};
use machine::console::{bold, dim, green, line, red, seconds, step};
use machine::install::Need;
use machine::layout::{Layout, Lock, free_space};
use machine::servers::{rabbitmq, start};
use machine::state::Secrets;
use machine::supervisor::{self, Supervisor};
use machine::{debian, install, process, services, signals};

use crate::test::programs::{Built, Lanes};
use crate::{bench, contracts, observability, openapi, supply};

/// What `matrix` runs unless it is told: each promise's short run.
pub const PROMISES: [&str; 10] = ["p1_", "p2_", "p3_", "p4_", "p5_", "p6_", "p7_", "p8_", "p9_", "p10_"];

/// The package with the tests that cross services.
const SYSTEM: &str = "system-tests";

/// The packages of this command line.
const TOOL: [&str; 6] = ["dockside", "machine", "chaos-shop", "images", "bench", "deploy-test"];

/// The file of its tests in a browser, which run apart.
const WEB: &str = "web";

/// The bench that needs the running shop, of optimised programs too.
const OVERLOAD: &str = "overload";

/// How long the HTTP API is tried.
const CONFORMANCE: Duration = Duration::from_secs(75);

/// Of the data it is tried with: the same each time, so that a run fails for what was changed. `conformance` varies it.
const SEED: u64 = 1;

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    fmt: bool,
    manifests: bool,
    supply: bool,
    observability: bool,
    contracts: bool,
    clippy: bool,
    /// Packages whose tests run; empty for all but the system tests when `unit` is set.
    packages: Vec<String>,
    unit: bool,
    system: bool,
    /// The tests in a browser.
    web: bool,
    conformance: bool,
    /// The short form of `chaos --cluster`.
    cluster: bool,
    /// Of [`BENCHES`], by name.
    benches: Vec<String>,
    /// Parts of names of tests.
    filters: Vec<String>,
}

/// Programs that tests run on in place of the system's.
#[derive(Clone, Debug, Default)]
pub struct Others {
    /// Folders with PostgreSQL's and with RabbitMQ's programs.
    pub postgres: Option<PathBuf>,
    pub rabbitmq: Option<PathBuf>,
    /// SeaweedFS, for tests with a real S3 server.
    pub weed: Option<PathBuf>,
}

/// Tests that hold figures: their name here, their package and their file. An optimised build
/// makes them hold the figures themselves; in `test` they hold some that are easier.
pub const BENCHES: [(&str, &str, &str); 7] = [
    ("catalogue", "product", "at_size"),
    ("growth", "product", "growth"),
    ("import", "product", "import_at_size"),
    ("listeners", "order", "listeners"),
    ("hot-stock", "product", "hot_stock"),
    ("pages", "storefront", "server_time"),
    (OVERLOAD, SYSTEM, "promises"),
];

impl Plan {
    fn new(names: &[String]) -> Plan {
        if names.is_empty() {
            return Plan {
                fmt: true,
                manifests: true,
                supply: true,
                observability: true,
                contracts: true,
                clippy: true,
                unit: true,
                system: true,
                web: true,
                conformance: true,
                cluster: true,
                ..Plan::default()
            };
        }
        let mut plan = Plan::default();
        for name in names {
            match name.as_str() {
                "fmt" => plan.fmt = true,
                "manifests" => plan.manifests = true,
                "supply" => plan.supply = true,
                "observability" => plan.observability = true,
                "contracts" => plan.contracts = true,
                "clippy" => plan.clippy = true,
                "unit" => plan.unit = true,
                "system" => plan.system = true,
                "web" => plan.web = true,
                "conformance" => plan.conformance = true,
                "cluster" => plan.cluster = true,
                "sandbox" => plan.packages.push("payment-sandbox".to_owned()),
                "dockside" => plan.packages.extend(TOOL.map(str::to_owned)),
                "user" | "product" | "order" | "messaging" | "service" | "identity" | "proto"
                | "operator" | "load" | "payment-sandbox" | "storefront" => plan.packages.push(name.clone()),
                _ => plan.filters.push(name.clone()),
            }
        }
        if !plan.filters.is_empty() && !plan.tests() {
            (plan.unit, plan.system, plan.web) = (true, true, true);
        }
        plan
    }

    /// Whether anything needs the whole shop.
    fn shop(&self) -> bool {
        self.conformance || self.observability
    }

    fn tests(&self) -> bool {
        self.unit || self.system || self.web || !self.packages.is_empty()
    }

    /// Whether tests with databases of their own run.
    fn pooled(&self) -> bool {
        self.unit || self.system || !self.packages.is_empty()
    }

    fn runs(&self, package: &str) -> bool {
        self.packages.iter().any(|p| p == package) || (self.unit && package != SYSTEM)
    }
}

/// A step that has ended.
struct Step {
    name: String,
    took: Duration,
    /// What all processors of the machine worked meanwhile.
    busy: Option<Duration>,
    passed: bool,
}

/// Runs steps, remembers their times and prints the table at the end.
#[derive(Default)]
struct Run {
    steps: Vec<Step>,
    /// What did not run here, and why.
    skipped: Vec<String>,
}

impl Run {
    fn step<T>(&mut self, name: &str, action: impl FnOnce() -> Result<T>) -> Result<T> {
        step(name, "...");
        let (start, busy) = (Instant::now(), process::busy());
        let result = signals::check().and_then(|()| action());
        self.steps.push(Step {
            name: name.to_owned(),
            took: start.elapsed(),
            busy: process::busy().zip(busy).map(|(after, before)| after.saturating_sub(before)),
            passed: result.is_ok(),
        });
        result.with_context(|| name.to_owned())
    }

    fn table(&self) {
        line("");
        line(&dim(&format!("  {:<28} {:>12} {:>16}", "step", "took", "processors' time")));
        for Step { name, took, busy, passed } in &self.steps {
            let word = if *passed { green("ok    ") } else { red("FAILED") };
            let busy = busy.map(seconds).unwrap_or_default();
            line(&format!("  {word}  {name:<20} {:>12} {busy:>16}", seconds(*took)));
        }
        for what in &self.skipped {
            line(&format!("  {}  {what}", bold(&red("SKIPPED"))));
        }
    }
}

pub fn run(layout: &Layout, names: &[String], others: &Others) -> Result<ExitCode> {
    execute(layout, &Plan::new(names), others)
}

/// Holds the figures that the READMEs name, with optimised programs: all of them, or those named.
pub fn bench(layout: &Layout, names: &[String]) -> Result<ExitCode> {
    let named = |name: &str| names.iter().any(|n| n == name);
    let usual = |name: &str| names.is_empty() && !bench::LONG.contains(&name) || named(name);
    let mut kept = true;
    for name in bench::ALL.into_iter().filter(|name| usual(name)) {
        kept &= bench::run(layout, name)?;
    }
    ensure!(kept, "not every figure keeps its floor");
    if names.is_empty() || names.iter().any(|name| !bench::ALL.contains(&name.as_str())) {
        figures(layout, usual)
    } else {
        Ok(ExitCode::SUCCESS)
    }
}

fn figures(layout: &Layout, named: impl Fn(&str) -> bool) -> Result<ExitCode> {
    let benches = BENCHES.iter().map(|(name, _, _)| (*name).to_owned()).filter(|name| named(name));
    execute(layout, &Plan { benches: benches.collect(), ..Plan::default() }, &Others::default())
}

fn execute(layout: &Layout, plan: &Plan, others: &Others) -> Result<ExitCode> {
    let layout = Layout { observed: plan.observability, ..layout.for_tests() };
    layout.prepare()?;
    let Some(_lock) = Lock::acquire(&layout)? else {
        bail!("another test run is at work in {}", layout.dir.display());
    };
    signals::install()?;
    supervisor::stop_stale(&layout);
    // Every run starts from nothing; the data of the last one stays until then, so that it can be inspected.
    layout.forget_data()?;
    let supervisor = Supervisor::new(&layout)?;
    supervisor.expect_deaths();
    let mut run = Run::default();
    let result = steps(&layout, &supervisor, plan, others, &mut run);
    supervisor.stop();
    run.table();
    match result {
        Err(e) if e.is::<signals::Interrupted>() || signals::stop_asked() => {
            line("interrupted");
            Ok(ExitCode::from(130))
        }
        Err(e) => Err(e),
        Ok(()) => {
            line(&format!("{} in {}", bold(&green("all passed")), seconds(machine::console::since_start())));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What compiles nothing, while the compiler runs: it waits for the network most of the time. Ends early once that is
/// `over`.
fn beside(layout: &Layout, plan: &Plan, over: &AtomicBool) -> (Run, Result<()>) {
    let mut run = Run::default();
    let unknown = RefCell::new(None);
    let mut step = |wanted: bool, name: &str, action: &dyn Fn() -> Result<()>| match wanted {
        true if !over.load(SeqCst) => run.step(name, action),
        _ => Ok(()),
    };
    let servers = plan.tests() || plan.shop() || !plan.benches.is_empty();
    let result = step(servers, "install", &|| install::all(layout).map(drop))
        .and_then(|()| step(plan.manifests, "manifests", &|| manifests(layout)))
        .and_then(|()| step(plan.supply, "crates", &|| supply::crates(layout)))
        .and_then(|()| {
            step(plan.supply, "advisories", &|| {
                *unknown.borrow_mut() = supply::advisories(layout)?;
                Ok(())
            })
        })
        .and_then(|()| step(plan.observability, "observability", &|| observability::files(layout)))
        .and_then(|()| step(plan.contracts, "contracts", &|| contracts::files(layout)))
        .and_then(|()| {
            // What it lacks is said when the tests are to run.
            step(plan.web, "install the browser", &|| {
                install::browser(layout).ok();
                Ok(())
            })
        })
        .and_then(|()| {
            let possible = plan.cluster && cluster::usable().is_ok();
            step(possible, "install for the cluster", &|| install::cluster(layout))
        });
    run.skipped.extend(unknown.into_inner());
    (run, result)
}

/// The programs of the tests, and the tests in the documentation, which cargo runs.
fn compiled(layout: &Layout, plan: &Plan, run: &mut Run) -> Result<Built> {
    if !plan.tests() {
        return Ok(Built::default());
    }
    let built = run.step("build the tests", || programs::build(layout))?;
    if plan.unit && plan.filters.is_empty() {
        let args = ["test", "--workspace", "--exclude", "dockside", "--doc", "--quiet"];
        run.step("doc tests", || finish(cargo(layout).args(args)))?;
    }
    Ok(built)
}

/// Runs the lints while `tests` run, which wait more than they compute. Nothing else may ask cargo for anything until
/// they end: it would wait for them.
fn beside_lints(
    layout: &Layout,
    plan: &Plan,
    run: &mut Run,
    tests: impl FnOnce(&mut Run) -> Result<()>,
) -> Result<()> {
    if !plan.clippy {
        return tests(run);
    }
    let mut command = cargo(layout);
    command.args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]);
    std::thread::scope(|scope| {
        let lints = scope.spawn(|| {
            let mut run = Run::default();
            let result = run.step("clippy", || finish(&mut compile::in_the_background(&command)));
            (run, result)
        });
        let tested = tests(run);
        let (other, linted) = lints.join().map_err(|_| anyhow::anyhow!("a step has panicked"))?;
        run.steps.extend(other.steps);
        if let (Err(_), Err(error)) = (&tested, &linted) {
            line(&format!("{error:#}"));
        }
        tested.and(linted)
    })
}

fn steps(
    layout: &Layout,
    supervisor: &Supervisor,
    plan: &Plan,
    others: &Others,
    run: &mut Run,
) -> Result<()> {
    if plan.fmt {
        run.step("fmt", || finish(cargo(layout).args(["fmt", "--all", "--check"])))?;
    }
    let over = AtomicBool::new(false);
    let built = std::thread::scope(|scope| {
        let beside = scope.spawn(|| beside(layout, plan, &over));
        let built = compiled(layout, plan, run);
        over.store(built.is_err(), SeqCst);
        let (other, result) = beside.join().map_err(|_| anyhow::anyhow!("a step has panicked"))?;
        run.steps.extend(other.steps);
        run.skipped.extend(other.skipped);
        let built = built?;
        result.map(|()| built)
    })?;
    beside_lints(layout, plan, run, |run| tested(layout, supervisor, plan, others, run, built))
}

/// All that runs once everything is built.
fn tested(
    layout: &Layout,
    supervisor: &Supervisor,
    plan: &Plan,
    others: &Others,
    run: &mut Run,
    built: Built,
) -> Result<()> {
    let Built { tests: mut programs, programs: built } = built;
    if plan.contracts {
        run.step("the provider's SDKs", || sdks(layout, &built))?;
    }
    if !plan.tests() && !plan.shop() && plan.benches.is_empty() {
        return if plan.cluster { run.step("cluster", || on_cluster(layout, &built)) } else { Ok(()) };
    }
    let secrets = Secrets::load_or_create(layout)?;
    // Private servers always: tests create and drop databases.
    let (admin, broker, contained) = run.step("servers", || {
        let contained = install::all(layout)?;
        let within = |need| contained.contains(&need);
        let broker = match &others.rabbitmq {
            Some(dir) => start::rabbitmq_by(layout, supervisor, &secrets, &rabbitmq::programs_in(dir)?)?,
            None => start::rabbitmq(layout, supervisor, &secrets, None, within(Need::RabbitMq))?,
        };
        let admin = match &others.postgres {
            Some(dir) => start::postgres_in(layout, supervisor, &secrets, dir)?,
            None => start::postgres(layout, supervisor, &secrets, None, within(Need::Postgres))?,
        };
        start::rabbitmq_ready(supervisor, &broker)?;
        Ok((admin, broker, within(Need::Nginx)))
    })?;
    if !plan.filters.is_empty() {
        programs.retain(|p| {
            let wanted = match p.is(SYSTEM, WEB) {
                true => plan.web,
                false => plan.runs(&p.package) || (plan.system && p.package == SYSTEM),
            };
            wanted && p.has(&plan.filters)
        });
        if programs.is_empty() {
            bail!("no test has {} in its name", plan.filters.join(" or "));
        }
    }
    let logs = layout.logs();
    let lanes = |programs, threads| Lanes { programs, threads, logs: &logs };
    let mut env = vec![
        ("TEST_DATABASE_URL".to_owned(), admin.to_string()),
        ("TEST_AMQP_URL".to_owned(), broker.admin_url()),
    ];
    env.extend(others.weed.iter().map(|weed| ("TEST_WEED".to_owned(), weed.display().to_string())));
    if plan.pooled() {
        env.extend(
            run.step("poolers", || Ok(poolers(layout)))?
                .into_iter()
                .filter_map(|pooler| pooler.map_err(|why| run.skipped.push(why)).ok()),
        );
    }
    if plan.runs("order") {
        match run.step("localstripe", || Ok(contracts::localstripe(layout)))? {
            Ok(program) => env.push(("TEST_LOCALSTRIPE".to_owned(), program.display().to_string())),
            Err(why) => {
                let text = format!("tests with localstripe: {why:#}");
                step("SKIPPED", &text);
                run.skipped.push(text);
            }
        }
    }
    let shop = |run: &mut Run, optimised: bool| {
        run.step("the shop", || {
            let built = match optimised || built.is_empty() {
                true => compile::services_and_chaos(layout, optimised)?,
                false => built.clone(),
            };
            ensure!(
                openapi::committed(layout, &built)?,
                "docs/openapi.json is out of date: run `cargo dockside openapi`"
            );
            let options = services::Options {
                port: None,
                demo: true,
                contained,
                hasty: true,
                measured: false,
                replicas: 1,
                storefront: plan.web && !optimised,
                links: None,
                balancers: Vec::new(),
                more: Vec::new(),
            };
            services::start(layout, supervisor, &options, &secrets, &admin, &built, &broker)?;
            supervisor.update(|s| s.ready = true)?;
            layout.announced()
        })
    };
    if !plan.benches.is_empty() {
        let wanted = BENCHES.iter().filter(|(name, _, _)| plan.benches.iter().any(|n| n == name));
        let wanted: Vec<(&str, &str)> = wanted.map(|(_, package, file)| (*package, *file)).collect();
        let programs = run.step("build the tests", || programs::build_optimised(layout, &wanted))?;
        // One at a time: they measure time.
        let shown = ["--nocapture".to_owned()];
        let (with_shop, alone): (Vec<_>, Vec<_>) = programs.iter().partition(|p| p.package == SYSTEM);
        if !alone.is_empty() {
            run.step("figures", || programs::run(&alone, &env, &shown, &lanes(1, 1)))?;
        }
        if !with_shop.is_empty() {
            let env: Vec<_> = env.iter().cloned().chain(shop(run, true)?).collect();
            let shown = [shown.as_slice(), &["p8_".to_owned()]].concat();
            run.step("figures of the shop", || programs::run(&with_shop, &env, &shown, &lanes(1, 1)))?;
        }
    }
    let chosen: Vec<&programs::Program> = programs.iter().filter(|p| plan.runs(&p.package)).collect();
    if !chosen.is_empty() {
        // A full disk makes tests fail in ways that don't name it.
        step("disk", &format!("{} MiB are free", free_space(&layout.dir)? >> 20));
        // They wait for servers more than they compute.
        let lanes = lanes(2.min(chosen.len()), programs::threads());
        run.step("tests", || programs::run(&chosen, &env, &plan.filters, &lanes))?;
    }
    if plan.cluster {
        match cluster::usable() {
            Ok(()) => run.step("cluster", || on_cluster(layout, &built))?,
            Err(why) => {
                let text = format!("the promises on a cluster: {why:#}");
                step("SKIPPED", &text);
                run.skipped.push(text);
            }
        }
    }
    let of_shop = |in_browser: bool| {
        programs.iter().filter(move |p| p.package == SYSTEM && p.is(SYSTEM, WEB) == in_browser)
    };
    let system: Vec<_> = of_shop(false).filter(|_| plan.system).collect();
    let in_browser: Vec<_> = of_shop(true).filter(|_| plan.web).collect();
    if !system.is_empty() || !in_browser.is_empty() || plan.shop() {
        env.extend(shop(run, false)?);
        if !system.is_empty() {
            install::tour(layout)?;
            // One at a time: a test that kills a process would disturb every other one.
            run.step("system tests", || programs::run(&system, &env, &plan.filters, &lanes(1, 1)))?;
        }
        if plan.observability {
            run.step("queries of the dashboards", || observability::queries(layout))?;
        }
        if !in_browser.is_empty() {
            web::run(layout, plan, run, &in_browser, env)?;
        }
        if plan.conformance {
            // Last, for what it leaves in the shop.
            run.step("conformance", || contracts::conformance(layout, None, CONFORMANCE, Some(SEED)))?;
        }
    }
    Ok(())
}

/// The payment provider's SDKs drive its sandbox.
fn sdks(layout: &Layout, built: &BTreeMap<String, PathBuf>) -> Result<()> {
    const SANDBOX: &str = "payment-sandbox";
    let compiled = match built.is_empty() {
        true => compile::services(layout, false)?,
        false => built.clone(),
    };
    contracts::sdks(layout, compiled.get(SANDBOX).context("the build made no payment sandbox")?)
}

/// The PgBouncers that tests start, each by its variable, or what runs without it and why.
fn poolers(layout: &Layout) -> [Result<(String, String), String>; 2] {
    let wanted = [
        ("TEST_PGBOUNCER", "1.24", &debian::PGBOUNCER),
        ("TEST_PGBOUNCER_OLD", "1.18", &debian::OLD_PGBOUNCER),
    ];
    wanted.map(|(variable, version, set)| match debian::unpack(layout, set) {
        Ok(tree) => Ok((variable.to_owned(), tree.join("usr/sbin/pgbouncer").display().to_string())),
        Err(why) => {
            let text = format!("tests with PgBouncer {version}: {why:#}");
            step("SKIPPED", &text);
            Err(text)
        }
    })
}

/// A shop of its own on servers that fail over, and a few faults.
fn on_cluster(layout: &Layout, built: &BTreeMap<String, PathBuf>) -> Result<()> {
    let args = chaos_shop::Args {
        seed: Some(SEED),
        minutes: 10,
        faults: None,
        victims: None,
        pace: None,
        clients: 8,
        replicas: 2,
        failpoints: None,
        keys: None,
        release: false,
        report: None,
        keep: false,
        cluster: true,
        short: true,
        count: None,
    };
    let status = match built.is_empty() {
        true => chaos_shop::run(layout, &args)?,
        false => cluster::enter(layout, &args, built)?,
    };
    ensure!(status == ExitCode::SUCCESS, "a promise was broken: see above");
    Ok(())
}

/// Checks `k8s/`. What that needs is kept beside this run's data, which is forgotten each time.
fn manifests(layout: &Layout) -> Result<()> {
    let python = install::with_python(layout)?;
    install::tour(layout)?;
    let dir = layout.dir.parent().unwrap_or(&layout.dir);
    finish(Command::new(python).arg(layout.root.join("k8s/checks")).env("DOCKSIDE_DIR", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(names: &[&str]) -> Plan {
        Plan::new(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn without_names_everything_runs() {
        let all = plan(&[]);
        assert!(
            all.fmt && all.manifests && all.supply && all.contracts && all.clippy && all.filters.is_empty()
        );
        assert!(all.unit && all.system && all.web && all.conformance && all.cluster);
        assert!(all.runs("order") && !all.runs(SYSTEM));
    }

    #[test]
    fn names_choose_steps_packages_or_tests() {
        assert_eq!(plan(&["fmt"]), Plan { fmt: true, ..Plan::default() });
        assert_eq!(plan(&["manifests"]), Plan { manifests: true, ..Plan::default() });
        assert_eq!(plan(&["supply"]), Plan { supply: true, ..Plan::default() });
        assert_eq!(plan(&["observability"]), Plan { observability: true, ..Plan::default() });
        assert_eq!(plan(&["contracts"]), Plan { contracts: true, ..Plan::default() });
        assert_eq!(plan(&["conformance"]), Plan { conformance: true, ..Plan::default() });
        assert_eq!(plan(&["web"]), Plan { web: true, ..Plan::default() });
        assert_eq!(plan(&["cluster"]), Plan { cluster: true, ..Plan::default() });
        let sandbox = plan(&["sandbox"]);
        assert!(sandbox.runs("payment-sandbox") && !sandbox.runs("order") && !sandbox.system);
        let tool = plan(&["dockside"]);
        assert!(tool.runs("dockside") && tool.runs("machine") && !tool.runs("order"));
        let storefront = plan(&["storefront"]);
        assert!(storefront.runs("storefront") && !storefront.system && storefront.filters.is_empty());
        let filter = plan(&["oversold"]);
        assert!(filter.unit && filter.system && filter.web && filter.filters == ["oversold"]);
        let narrowed = plan(&["order", "oversold"]);
        assert!(narrowed.runs("order") && !narrowed.runs("user") && !narrowed.system);
    }
}
