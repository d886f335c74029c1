//! `cargo dockside`: starts the shop, stops it, looks at it and tests it. See README.md.
#![expect(
    clippy::disallowed_methods,
    reason = "a synchronous program: it sleeps on its own threads, and reads what the user's shell set"
)]

mod cli;
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

use std::process::ExitCode;

fn main() -> ExitCode {
    console::init();
    cli::run(&cli::command().get_matches()).unwrap_or_else(|e| {
        console::error(&format!("{e:#}"));
        ExitCode::FAILURE
    })
}
