//! `bench orders`, `reads`, `replicas`, `soak` and `telemetry`: the program `bench`, which is compiled when it is first asked for.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use machine::layout::Layout;
use machine::{commands, compile, signals};

/// Those that take long, and run when they are named.
pub const LONG: [&str; 3] = ["soak", "telemetry", "growth"];

/// Those of the program.
pub const ALL: [&str; 5] = ["orders", "reads", "replicas", "soak", "telemetry"];

/// Runs one; returns whether every figure keeps its floor.
pub fn run(layout: &Layout, name: &str) -> Result<bool> {
    let program = compile::tool(layout, "bench")?;
    signals::install()?;
    // A group of its own: Ctrl-C reaches this process only, which then tells the program once.
    let mut command = Command::new(program);
    command.arg(name).env("DOCKSIDE_DIR", &layout.dir).stdin(Stdio::null()).process_group(0);
    let code = commands::attend(command.spawn().context("cannot start bench")?)?;
    signals::check()?;
    match code {
        0 => Ok(true),
        2 => Ok(false),
        _ => bail!("bench {name} failed"),
    }
}
