//! `load`: the program of that name, optimised, with the running shop's address and processes.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::ArgMatches;
use machine::compile;
use machine::layout::Layout;
use machine::state::State;

use crate::operator;

pub const NAME: &str = "load";

pub fn command() -> clap::Command {
    operator::passing(
        NAME,
        "Send shoppers to the running shop, or to any other, and measure how it serves them",
    )
}

/// Becomes `load`, whose exit code this is then: 2 when the run did not begin or is not valid.
///
/// # Errors
/// when neither a shop runs here nor the words name one, or the program cannot be built.
pub fn run(layout: &Layout, typed: &ArgMatches) -> Result<ExitCode> {
    let mut words: Vec<OsString> = typed.get_many("words").into_iter().flatten().cloned().collect();
    let has = |wanted: &[&str]| {
        words.iter().any(|word| {
            let word = word.to_string_lossy();
            wanted.iter().any(|wanted| word == *wanted || word.starts_with(&format!("{wanted}=")))
        })
    };
    if !has(&["--url", "-h", "--help"]) {
        let state = State::load(layout);
        let edge = state.edge.clone().filter(|_| state.running());
        let edge = edge
            .context("the shop does not run here: `cargo dockside up` starts it, --url names another one")?;
        words.extend(["--url".into(), edge.into()]);
        words.extend(watched(&state));
    }
    let program = compile::load(layout)?;
    let error = Command::new(&program).args(words).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

/// The processes whose CPU and memory are to be drawn.
fn watched(state: &State) -> Vec<OsString> {
    let seen = state.processes.iter().filter(|process| !process.hidden);
    let named = seen.filter_map(|process| Some(format!("--watch={}={}", process.name, process.live()?.pid)));
    named.map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    #[test]
    fn what_is_typed_is_passed_on_as_it_is() {
        let typed = ["dockside", "load", "--dir", "x", "--rate", "5", "--report", "out"];
        let matches = crate::cli::command().try_get_matches_from(typed).unwrap();
        let (_, load) = matches.subcommand().unwrap();
        let words: Vec<_> = load.get_many::<OsString>("words").unwrap().collect();
        assert_eq!(words, ["--rate", "5", "--report", "out"]);
    }
}
