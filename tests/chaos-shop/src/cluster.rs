//! `chaos --cluster`: the shop on servers that fail over. Three PostgreSQL under Patroni and etcd, three RabbitMQ nodes, and
//! HAProxy before them, each on a machine of its own, which is a network namespace here.
//!
//! The command starts itself once more inside namespaces of its own for the network, the mounts and the processes. Whatever
//! happens to it, they end with it, and with them every process, mount and address of the run.

mod etcd;
mod haproxy;
mod network;
mod patroni;
mod rabbitmq;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use machine::commands;
use machine::compile::{self, PACKAGES};
use machine::console::{seconds, step};
use machine::layout::{Layout, write_private};
use machine::process::{pause, this_program};
use machine::servers::postgres::{self, DATABASE};
use machine::servers::start::Broker;
use machine::spec::Spec;
use machine::state::Secrets;
use machine::supervisor::Supervisor;
use machine::system::{find, is_root};
use machine::url::Url;
use machine::{install, services, signals};
use serde_json::json;

use self::network::{Host, Hosts};
use crate::args::{Args, passed_on};

/// Set in the process inside: the programs, as JSON.
const INSIDE: &str = "DOCKSIDE_CLUSTER_PROGRAMS";

/// Three servers of a kind that start together, on a slow machine.
const LIMIT: Duration = Duration::from_secs(180);

/// Whether this is the process inside.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Builds what is needed, and enters.
pub fn build_and_enter(layout: &Layout, args: &Args) -> Result<ExitCode> {
    usable()?;
    let packages = [&PACKAGES[..], &["system-tests"]].concat();
    let wanted = [&PACKAGES[..], &["chaos"]].concat();
    let built = compile::programs(layout, &packages, &wanted, args.release)?;
    enter(layout, args, &built)
}

/// Runs this command again, with these programs, inside namespaces of its own.
pub fn enter(layout: &Layout, args: &Args, built: &BTreeMap<String, PathBuf>) -> Result<ExitCode> {
    install::cluster(layout)?;
    fs::create_dir_all("/run/netns").context("cannot create /run/netns")?;
    signals::install()?;
    // Dies with this process, and whatever it has started with it.
    let child = namespaces(true)
        // The first process there, who waits for those that nobody else does: Patroni takes a dead PostgreSQL that nobody has
        // waited for to be alive.
        .args(["sh", "-c", "\"$@\"; exit $?", "sh"])
        .arg(this_program()?)
        .args(["chaos", "--dir"])
        .arg(&layout.dir)
        .args(passed_on(args))
        .args(args.report.map(|report| [OsStr::new("--report"), report.as_os_str()]).into_iter().flatten())
        .args(args.keep.then_some("--keep"))
        .env(INSIDE, json!(built).to_string())
        .process_group(0)
        .spawn()
        .context("cannot start namespaces")?;
    // It passes nothing on by itself; who is inside gets each signal once.
    Ok(ExitCode::from(commands::attend(child)?))
}

/// # Errors
/// where there can be no cluster, with the reason.
pub fn usable() -> Result<()> {
    ensure!(cfg!(target_os = "linux"), "`--cluster` needs Linux: its machines are network namespaces");
    ensure!(is_root(), "`--cluster` needs root: it makes network namespaces and mounts");
    // Before it is installed, namespaces alone are tried.
    let bridge: &[&str] = match find("ip", &[]) {
        Some(_) => &["ip", "link", "add", "probe", "type", "bridge"],
        None => &["true"],
    };
    let probe = namespaces(false).args(bridge).output();
    match probe.context("`--cluster` needs setpriv and unshare (util-linux)")? {
        probe if probe.status.success() => Ok(()),
        probe => bail!(
            "`--cluster` cannot make network namespaces with bridges here: {}",
            String::from_utf8_lossy(&probe.stderr).trim()
        ),
    }
}

fn namespaces(mounts: bool) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]);
    command.args(mounts.then_some("--mount-proc")).arg("--").stdin(Stdio::null());
    command
}

/// Starts everything; returns the program that is to break it.
pub fn start(layout: &Layout, supervisor: &Supervisor, args: &Args) -> Result<PathBuf> {
    let built = std::env::var(INSIDE).unwrap_or_default();
    let built: serde_json::Value = serde_json::from_str(&built).context("the list of programs")?;
    let built = built.as_object().into_iter().flatten();
    let built: BTreeMap<String, PathBuf> =
        built.filter_map(|(name, file)| Some((name.clone(), file.as_str()?.into()))).collect();
    let secrets = Secrets::load_or_create(layout)?;
    let hosts = Hosts::new();
    network::build(layout, &hosts)?;
    fs::create_dir_all(layout.dir.join("held"))?;
    for file in fs::read_dir(layout.dir.join("held"))?.flatten() {
        fs::remove_file(file.path())?;
    }
    step("cluster", "starting three PostgreSQL, etcd and RabbitMQ each");
    let begun = machine::console::since_start();
    let spec = |host| etcd::spec(layout, &hosts.etcd, host);
    together(supervisor, hosts.etcd.iter().map(spec))?;
    let mut brokers = hosts.broker.iter().map(|host| rabbitmq::spec(layout, &hosts.broker, host, &secrets));
    let databases = hosts.database.iter().map(|host| patroni::spec(layout, &hosts.etcd, host, &secrets));
    let balancers = hosts.balancer.iter().map(Some).chain([None]);
    let balancers = balancers.map(|host| haproxy::spec(layout, &hosts, host));
    together(supervisor, brokers.by_ref().take(1).chain(databases).chain(balancers))?;
    brokers.try_for_each(|broker| together(supervisor, [broker].into_iter()))?;
    let admin = database(layout, &secrets)?;
    let took = machine::console::since_start() - begun;
    step("cluster", &format!("ready in {}", seconds(took)));

    let broker = machine::servers::rabbitmq::url("admin", &secrets.rabbitmq_admin, haproxy::BROKER);
    let broker = Broker::private(Url::parse(&broker)?);
    supervisor.update(|s| {
        s.postgres = Some(admin.to_string());
        s.rabbitmq = Some(broker.admin_url());
    })?;
    let by = |host: &Host| (host.at(haproxy::DATABASE), host.at(haproxy::BROKER));
    let options = services::Options {
        port: None,
        demo: true,
        contained: false,
        hasty: true,
        measured: false,
        replicas: args.replicas.max(2),
        storefront: false,
        links: None,
        balancers: hosts.balancer.iter().map(by).collect(),
        more: Vec::new(),
    };
    services::start(layout, supervisor, &options, &secrets, &admin, &built, &broker)?;
    announce(layout, &hosts, &secrets)?;
    supervisor.update(|s| s.ready = true)?;
    built.get("chaos").cloned().context("no program chaos")
}

/// Starts them at once, and waits until all serve.
fn together(supervisor: &Supervisor, specs: impl Iterator<Item = Result<Spec>>) -> Result<()> {
    let specs = specs.collect::<Result<Vec<_>>>()?;
    let names: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
    specs.into_iter().try_for_each(|spec| supervisor.start(spec))?;
    thread::scope(|scope| {
        let waiting: Vec<_> =
            names.iter().map(|name| scope.spawn(|| supervisor.wait_ready(name, LIMIT))).collect();
        for thread in waiting {
            thread.join().unwrap_or_else(|_| bail!("a waiting thread panicked"))?;
        }
        Ok(())
    })
}

/// Waits for a primary behind HAProxy, and makes the services' database on it; its administrator's address.
fn database(layout: &Layout, secrets: &Secrets) -> Result<Url> {
    let admin = Url::parse(&postgres::admin_url(secrets, haproxy::DATABASE, "postgres"))?;
    let deadline = machine::console::since_start() + LIMIT;
    while let Err(error) = postgres::psql(&admin, &["-c", "CREATE SCHEMA IF NOT EXISTS ready"]) {
        signals::check()?;
        if machine::console::since_start() > deadline {
            return Err(error.context("there is no primary behind HAProxy"));
        }
        pause(250);
    }
    postgres::provision(layout, &admin, secrets)?;
    Ok(admin.with_database(DATABASE))
}

/// What the program that breaks it has to know of the machines.
fn announce(layout: &Layout, hosts: &Hosts, secrets: &Secrets) -> Result<()> {
    let listed = |hosts: &[Host]| {
        let listed = hosts.iter().map(|host| json!({"name": host.name, "address": host.address}));
        listed.collect::<Vec<_>>()
    };
    let text = json!({
        "etcd": listed(&hosts.etcd),
        "database": listed(&hosts.database),
        "broker": listed(&hosts.broker),
        "balancer": listed(&hosts.balancer),
        "disks": layout.outside().join("disks"),
        "postgres_admin": secrets.postgres_admin,
        "bin": postgres::find_bin(),
    });
    write_private(&layout.dir.join("cluster.json"), format!("{text:#}\n").as_bytes())
}
