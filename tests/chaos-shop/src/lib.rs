//! The shop of `chaos`, in `.dockside/chaos`, and the program of the system tests that breaks it under load and
//! checks that it kept its promises.

#![expect(clippy::disallowed_methods, reason = "synchronous, and the environment names the programs")]

mod args;
pub mod cluster;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use machine::clocks::{self, Clocks};
use machine::compile::{self, PACKAGES};
use machine::console::{line, step};
use machine::install::{self, Need};
use machine::layout::{Layout, Lock};
use machine::process::{self, Signal, pause};
use machine::servers::start;
use machine::state::Secrets;
use machine::supervisor::{self, Supervisor};
use machine::{services, signals};

pub use crate::args::Args;
use crate::args::passed_on;

/// How long the program may take to end by itself: its report has to be written.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// Runs it; on a cluster inside namespaces of its own, which it enters first.
pub fn run(layout: &Layout, args: &Args) -> Result<ExitCode> {
    if args.cluster && !cluster::inside() {
        cluster::build_and_enter(layout, args)
    } else {
        here(layout, args)
    }
}

fn here(layout: &Layout, args: &Args) -> Result<ExitCode> {
    let here = std::env::current_dir().context("cannot read the current folder")?;
    let layout = layout.for_chaos();
    layout.prepare()?;
    let Some(_lock) = Lock::acquire(&layout)? else {
        bail!("another `cargo dockside chaos` is at work in {}", layout.dir.display());
    };
    signals::install()?;
    supervisor::stop_stale(&layout);
    // The report of the last run stays, until this one's.
    layout.forget_data()?;
    let supervisor = Supervisor::new(&layout)?;
    supervisor.expect_deaths();
    let shop = match args.cluster {
        true => cluster::start(&layout, &supervisor, args),
        false => start_shop(&layout, &supervisor, args),
    };
    let result = shop.and_then(|program| {
        let report = args.report.map_or_else(|| layout.dir.join("report"), |report| here.join(report));
        let mut command = Command::new(program);
        command.args(passed_on(args)).arg("--report").arg(report).envs(layout.announced()?);
        let code = finish(&mut command)?;
        if args.keep && !signals::stop_asked() {
            step("dockside", "the shop runs on; Ctrl-C stops it");
            while !signals::stop_asked() {
                pause(100);
            }
        }
        Ok(code)
    });
    supervisor.stop();
    clocks::sweep();
    match result {
        Err(e) if e.is::<signals::Interrupted>() => {
            line("interrupted");
            Ok(ExitCode::from(130))
        }
        other => other,
    }
}

/// Builds and starts everything; returns the program that is to break it.
fn start_shop(layout: &Layout, supervisor: &Supervisor, args: &Args) -> Result<PathBuf> {
    let packages = [&PACKAGES[..], &["system-tests"]].concat();
    let wanted = [&PACKAGES[..], &["links", "chaos"]].concat();
    let built = compile::programs(layout, &packages, &wanted, args.release)?;
    let program = |name: &str| built.get(name).cloned().with_context(|| format!("no program {name}"));
    let secrets = Secrets::load_or_create(layout)?;
    // Private servers always: they are killed.
    let contained = install::all(layout)?;
    let within = |need| contained.contains(&need);
    if args.faults.is_none_or(|faults| faults.split(',').any(|fault| fault == "clock")) {
        match install::clocks(layout).and_then(|()| Clocks::new(layout)) {
            Ok(clocks) => clocks.into_iter().for_each(|clocks| supervisor.with_clocks(clocks)),
            // The other faults need nothing.
            Err(error) => step("clocks", &format!("will not jump: {error:#}")),
        }
    }
    let broker = start::rabbitmq(layout, supervisor, &secrets, None, within(Need::RabbitMq))?;
    let admin = start::postgres(layout, supervisor, &secrets, None, within(Need::Postgres))?;
    start::rabbitmq_ready(supervisor, &broker)?;
    let options = services::Options {
        port: None,
        demo: true,
        contained: within(Need::Nginx),
        hasty: true,
        measured: false,
        replicas: args.replicas,
        storefront: false,
        links: Some(program("links")?),
        balancers: Vec::new(),
        more: Vec::new(),
    };
    services::start(layout, supervisor, &options, &secrets, &admin, &built, &broker)?;
    supervisor.update(|s| s.ready = true)?;
    program("chaos")
}

/// Runs the program to its end; its exit code.
fn finish(command: &mut Command) -> Result<ExitCode> {
    // A group of its own: Ctrl-C reaches this process only, which then signals the program once.
    let mut child = command.stdin(Stdio::null()).process_group(0).spawn().context("cannot start chaos")?;
    while !signals::stop_asked() {
        if let Some(status) = child.try_wait()? {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
        }
        pause(50);
    }
    process::kill(child.id(), Signal::TERM);
    let deadline = Instant::now() + LAST_WORDS;
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline || signals::stop_at_once() {
            child.kill()?;
        }
        pause(50);
    }
    Err(signals::Interrupted.into())
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_module_leads_back_to_itself() {
        assert_eq!(arrows::circles(env!("CARGO_MANIFEST_DIR")), Vec::<String>::new());
    }
}
