//! `chaos`: a shop of its own, in `.dockside/chaos`, and the program of the system tests that breaks it under load and
//! checks that it kept its promises.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
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

use crate::cluster;

pub struct Args<'a> {
    /// Drawn and printed by the program when `None`.
    pub seed: Option<u64>,
    pub minutes: u64,
    pub faults: Option<&'a str>,
    pub victims: Option<&'a str>,
    pub pace: Option<&'a str>,
    pub clients: u64,
    pub replicas: usize,
    pub failpoints: Option<u64>,
    pub keys: Option<u64>,
    pub release: bool,
    pub report: Option<&'a Path>,
    pub keep: bool,
    /// On servers that fail over.
    pub cluster: bool,
    /// On the cluster, the few faults that `test` tries.
    pub short: bool,
    /// On the cluster, how many faults.
    pub count: Option<u64>,
}

/// What the program gets to end by itself when it is told to: its report is to be written.
const LAST_WORDS: Duration = Duration::from_secs(20);

pub fn run(layout: &Layout, args: &Args) -> Result<ExitCode> {
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
    };
    services::start(layout, supervisor, &options, &secrets, &admin, &built, &broker)?;
    supervisor.update(|s| s.ready = true)?;
    program("chaos")
}

/// The program's options: all but `--keep`, and the report's folder, which is named whether it was given or not.
pub fn passed_on(args: &Args) -> Vec<String> {
    let numbers = [
        ("--seed", args.seed),
        ("--minutes", Some(args.minutes)),
        ("--clients", Some(args.clients)),
        ("--replicas", Some(args.replicas as u64)),
        ("--failpoints", args.failpoints),
        ("--keys", args.keys),
        ("--count", args.count),
    ];
    let numbers = numbers.into_iter().filter_map(|(name, n)| Some([name.to_owned(), n?.to_string()]));
    let texts = [("--faults", args.faults), ("--victims", args.victims), ("--pace", args.pace)];
    let texts = texts.into_iter().filter_map(|(name, text)| Some([name.to_owned(), text?.to_owned()]));
    let flags = [("--cluster", args.cluster), ("--short", args.short)];
    let flags = flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_owned());
    numbers.chain(texts).flatten().chain(flags).collect()
}

/// Runs the program to its end; its exit code.
fn finish(command: &mut Command) -> Result<ExitCode> {
    // A group of its own: Ctrl-C reaches this process only, which then tells the program once.
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
    use super::*;

    #[test]
    fn options_are_passed_on_and_those_left_out_are_not() {
        let mut args = Args {
            seed: None,
            minutes: 5,
            faults: None,
            victims: None,
            pace: None,
            clients: 16,
            replicas: 1,
            failpoints: None,
            keys: None,
            release: false,
            report: None,
            keep: true,
            cluster: false,
            short: false,
            count: None,
        };
        assert_eq!(passed_on(&args).join(" "), "--minutes 5 --clients 16 --replicas 1");
        (args.seed, args.faults, args.pace) = (Some(7), Some("kill,stop"), Some("2"));
        assert_eq!(
            passed_on(&args).join(" "),
            "--seed 7 --minutes 5 --clients 16 --replicas 1 --faults kill,stop --pace 2"
        );
    }
}
