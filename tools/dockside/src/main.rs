//! `cargo dockside`: starts the shop, stops it, looks at it and tests it. See README.md.
#![expect(
    clippy::disallowed_methods,
    reason = "a synchronous program: it sleeps on its own threads, and reads what the user's shell set"
)]

mod compile;
mod console;
mod detach;
mod down;
mod install;
mod layout;
mod logs;
mod net;
mod prepare;
mod process;
mod servers;
mod services;
mod shutdown;
mod signals;
mod smoke;
mod state;
mod status;
mod supervisor;
mod test;
mod up;
mod url;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::layout::Layout;

/// The folder of the shop's data, logs and state, under the checkout.
pub const DEFAULT_DIR: &str = ".dockside";

/// Runs the Dockside shop on this machine.
///
/// PostgreSQL, RabbitMQ and nginx run as private instances of this checkout, on free ports; servers that
/// already run here are left alone.
#[derive(Parser)]
#[command(name = "cargo dockside", bin_name = "cargo dockside")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Clone)]
pub struct At {
    /// Folder of the data, logs and state
    #[arg(long, value_name = "FOLDER", default_value = DEFAULT_DIR, env = "DOCKSIDE_DIR")]
    pub dir: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    Up(UpArgs),
    /// Stop the shop; its data stays
    Down {
        /// Forget the data, the logs and the passwords too
        #[arg(long)]
        wipe: bool,
        #[command(flatten)]
        at: At,
    },
    /// Show what the processes wrote
    Logs {
        /// user, product, order, payment-sandbox, edge, postgres, rabbitmq or dockside; all when left out
        service: Option<String>,
        /// Keep showing what is added, until Ctrl-C
        #[arg(short, long)]
        follow: bool,
        /// How many lines from the end
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: usize,
        #[command(flatten)]
        at: At,
    },
    /// Buy something through the running shop and show how long each step takes
    Smoke {
        /// Address of a shop that runs elsewhere, e.g. http://localhost:8080
        #[arg(long)]
        url: Option<String>,
        #[command(flatten)]
        at: At,
    },
    /// Run the checks and tests: all of them, or those named
    ///
    /// Private servers are started for it under the folder's `test/`, and stopped at the end.
    Test {
        /// fmt, clippy, unit (all but system), system; a package: user, product, order, messaging, service,
        /// sandbox, dockside; or part of the names of tests
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        at: At,
    },
    /// Bring the committed query metadata (.sqlx) in step with the code and the migrations
    ///
    /// Needs only PostgreSQL: the running one of this folder, or one started for it.
    Prepare {
        /// Change nothing; fail and say what differs when something is out of date
        #[arg(long)]
        check: bool,
        /// Only these: messaging, user, product, order
        #[arg(value_name = "CRATE")]
        only: Vec<String>,
        #[command(flatten)]
        at: At,
    },
    /// Show what runs and whether it is ready; exit code 1 when nothing runs
    Status {
        /// As one JSON document, with the administrators' addresses of PostgreSQL and RabbitMQ
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: At,
    },
}

/// Build and start the shop, and keep it running until Ctrl-C
///
/// Installs PostgreSQL, RabbitMQ and nginx with the system's package manager when they are missing and it may.
/// DATABASE_URL (an administrator's address) and AMQP_URL in the environment are used instead of private servers.
/// Other settings of the services in the environment are passed on.
#[derive(Args, Clone)]
pub struct UpArgs {
    /// Return once the shop is ready and leave it running in the background
    #[arg(long)]
    pub detach: bool,
    /// Port of the shop's public address
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Build optimised programs (slower to build; for figures)
    #[arg(long)]
    pub release: bool,
    /// Only PostgreSQL and RabbitMQ, for developing against
    #[arg(long)]
    pub servers: bool,
    /// No demo catalogue and accounts
    #[arg(long)]
    pub no_demo: bool,
    #[command(flatten)]
    pub at: At,
    /// The process in the background of --detach
    #[arg(long, hide = true)]
    pub detached: bool,
}

fn main() -> ExitCode {
    console::init();
    let result = match Cli::parse().command {
        Command::Up(args) => up::run(&args),
        Command::Down { wipe, at } => Layout::new(&at.dir).and_then(|l| down::run(&l, wipe)),
        Command::Logs { service, follow, lines, at } => {
            Layout::new(&at.dir).and_then(|l| logs::run(&l, service.as_deref(), follow, lines))
        }
        Command::Smoke { url, at } => Layout::new(&at.dir).and_then(|l| smoke::run(&l, url.as_deref())),
        Command::Test { names, at } => Layout::new(&at.dir).and_then(|l| test::run(&l, &names)),
        Command::Prepare { check, only, at } => {
            Layout::new(&at.dir).and_then(|l| prepare::run(&l, check, &only))
        }
        Command::Status { json, at } => Layout::new(&at.dir).and_then(|l| status::run(&l, json)),
    };
    result.unwrap_or_else(|e| {
        console::error(&format!("{e:#}"));
        ExitCode::FAILURE
    })
}
