//! `up`: from nothing to a shop that sells, and then its supervisor until it is told to stop.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Result, bail};
use machine::console::{bold, line, seconds, step};
use machine::install::Need;
use machine::layout::{Layout, Lock};
use machine::servers::monitoring;
use machine::servers::{start, tls};
use machine::state::{Secrets, State};
use machine::supervisor::{self, Supervisor};
use machine::system::given;
use machine::{compile, console, install, process, services, signals};

use crate::detach;
use crate::idle::Idle;

/// What `up` was asked for.
pub struct Args {
    pub detach: bool,
    pub port: u16,
    pub release: bool,
    /// A folder with the programs, which are built otherwise.
    pub programs: Option<PathBuf>,
    pub servers: bool,
    pub no_demo: bool,
    /// The API alone, without web pages.
    pub no_storefront: bool,
    /// PostgreSQL, RabbitMQ and nginx as containers.
    pub docker: bool,
    /// Processes of each service.
    pub replicas: usize,
    /// Prometheus and Alertmanager too.
    pub observe: bool,
    /// PostgreSQL, RabbitMQ, gRPC and key sets by TLS, with a private authority.
    pub tls: bool,
    /// This is the process in the background of `--detach`.
    pub detached: bool,
    /// Servers of test programs: what is in them goes with them, and they end when nobody uses them any more.
    pub for_tests: bool,
}

pub fn run(layout: &Layout, args: &Args) -> Result<ExitCode> {
    let layout = &Layout { observed: args.observe, tls: args.tls, passing: args.for_tests, ..layout.clone() };
    layout.prepare()?;
    if args.detach && !args.detached {
        return match detach::run(layout)? {
            Some(code) => Ok(code),
            None => already_running(layout, !args.servers),
        };
    }
    if args.detached {
        // A session of its own: closing the terminal does not reach it.
        rustix::process::setsid().ok();
    }
    let Some(_lock) = Lock::acquire(layout)? else {
        return already_running(layout, !args.servers);
    };
    // Whoever looks on must not believe what a process that died has left.
    State { ready: false, ..State::load(layout) }.save(layout)?;
    signals::install()?;
    step("dockside", &format!("starting; data and logs are in {}", layout.dir.display()));
    supervisor::stop_stale(layout);
    let mut idle = args.for_tests.then(|| Idle::new(layout)).transpose()?;
    if args.for_tests {
        layout.forget_data()?;
    }
    let supervisor = Supervisor::new(layout)?;
    let result = bring_up(layout, &supervisor, args);
    if result.is_ok() {
        supervisor.update(|s| s.ready = true)?;
        summary(&supervisor.state(), args);
        while !signals::stop_asked() && !idle.as_mut().is_some_and(Idle::over) {
            process::pause(100);
        }
        line("");
        step("dockside", "stopping (again Ctrl-C: at once)");
    }
    supervisor.update(|s| s.ready = false)?;
    supervisor.stop();
    if args.for_tests {
        layout.forget_data()?;
    }
    match result {
        Ok(()) => {
            step("dockside", "stopped; the data stays (`cargo dockside down --wipe` forgets it)");
            Ok(ExitCode::SUCCESS)
        }
        // Stopped by the user while it came up: no error, but not ready either.
        Err(e) if e.is::<signals::Interrupted>() => {
            step("dockside", "interrupted");
            Ok(ExitCode::from(130))
        }
        Err(e) => Err(e),
    }
}

/// Says what runs here already; success when that is what was wanted: a shop, or its servers at least.
fn already_running(layout: &Layout, shop: bool) -> Result<ExitCode> {
    let state = State::load(layout);
    let pid = state.supervisor.as_ref().map_or(0, |s| s.pid);
    let servers = state.ready && state.postgres.is_some();
    match &state.edge {
        Some(edge) if state.ready => line(&format!("The shop already runs at {} (pid {pid}).", bold(edge))),
        None if servers && !shop => line(&format!("PostgreSQL and RabbitMQ already run (pid {pid}).")),
        None if servers => bail!("only PostgreSQL and RabbitMQ run here: `cargo dockside down` first"),
        _ => bail!("another `cargo dockside` (pid {pid}) is at work in {}", layout.dir.display()),
    }
    line("`cargo dockside status` shows what runs, `cargo dockside down` stops it.");
    Ok(ExitCode::SUCCESS)
}

fn built(layout: &Layout, args: &Args) -> Result<BTreeMap<String, PathBuf>> {
    match &args.programs {
        Some(folder) => compile::built_in(folder),
        None => compile::services(layout, args.release),
    }
}

fn bring_up(layout: &Layout, supervisor: &Supervisor, args: &Args) -> Result<()> {
    let shop = !args.servers;
    if shop {
        services::check_edge_port(args.port)?;
    }
    let secrets = Secrets::load_or_create(layout)?;
    if args.tls {
        // First: the servers show what it makes.
        let operator = match &args.programs {
            Some(folder) => folder.canonicalize()?.join("operator"),
            None => compile::operator(layout)?,
        };
        tls::make(layout, &operator)?;
    }
    let failure = FirstFailure::default();
    thread::scope(|scope| {
        let build = shop.then(|| scope.spawn(|| failure.of(built(layout, args))));
        let contained = match args.for_tests {
            true => install::present().map(|()| Vec::new()),
            false => install::missing(layout, shop, args.docker),
        };
        let servers = failure.of(contained).and_then(|contained| {
            let within = |need| contained.contains(&need);
            let amqp = given("AMQP_URL");
            let broker =
                failure.of(start::rabbitmq(layout, supervisor, &secrets, amqp, within(Need::RabbitMq)))?;
            let ready = broker.clone();
            scope.spawn({
                let failure = &failure;
                move || failure.of(start::rabbitmq_ready(supervisor, &ready))
            });
            let url = given("DATABASE_URL");
            let database =
                failure.of(start::postgres(layout, supervisor, &secrets, url, within(Need::Postgres)))?;
            Some((database, broker, within(Need::Nginx)))
        });
        let Some(build) = build else { return };
        if let (Some((database, broker, contained)), Ok(Some(programs))) = (servers, build.join()) {
            let options = services::Options {
                port: Some(args.port),
                demo: !args.no_demo,
                contained,
                hasty: false,
                measured: false,
                replicas: args.replicas,
                storefront: !args.no_storefront,
                links: None,
                balancers: Vec::new(),
                more: Vec::new(),
            };
            let started =
                services::start(layout, supervisor, &options, &secrets, &database, &programs, &broker);
            failure.of(started.and_then(|()| match args.observe {
                true => monitoring::start(layout, supervisor, &database),
                false => Ok(()),
            }));
        }
    });
    failure.0.into_inner().unwrap_or_default().map_or(Ok(()), Err)
}

/// Keeps the first thing that went wrong; what else then fails only failed because of it.
#[derive(Default)]
struct FirstFailure(Mutex<Option<anyhow::Error>>);

impl FirstFailure {
    fn of<T>(&self, result: Result<T>) -> Option<T> {
        result
            .map_err(|e| {
                let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(e);
                // Ends what the other threads wait for.
                signals::give_up();
            })
            .ok()
    }
}

fn summary(state: &State, args: &Args) {
    line("");
    let (Some(postgres), Some(rabbitmq)) = (&state.postgres, &state.rabbitmq) else {
        return;
    };
    if let Some(edge) = &state.edge {
        services::summary(edge, !args.no_demo, !args.no_storefront);
        monitoring::summary(state);
    } else {
        line(&format!("  DATABASE_URL={postgres}"));
        line(&format!("  AMQP_URL={rabbitmq}"));
    }
    line("");
    let took = seconds(console::since_start());
    let end = if args.detached { "`cargo dockside down` stops it." } else { "Ctrl-C stops it." };
    line(&format!("Ready in {took}. {end}"));
}
