//! `images` and `deploy-test`: programs of their own, which are compiled when they are first asked for.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::ArgMatches;
use clap::parser::ValueSource;
use machine::compile;
use machine::layout::Layout;

use crate::operator::passing;

/// Each with what `--help` says of it here.
type About = (&'static str, &'static str);
pub const IMAGES: About =
    ("images", "Build the container images; show their sizes and layers, and what is in them");
pub const DEPLOY_TEST: About = (
    "deploy-test",
    "Test the images and docker-compose.yml under load on a Docker engine: all steps, or the one named",
);

pub fn command((name, about): About) -> clap::Command {
    passing(name, about)
}

pub fn is(name: &str) -> bool {
    [IMAGES, DEPLOY_TEST].iter().any(|(command, _)| *command == name)
}

/// Becomes the program, whose exit code this is then.
pub fn run(layout: &Layout, name: &str, typed: &ArgMatches) -> Result<ExitCode> {
    let program = compile::tool(layout, name)?;
    let mut command = Command::new(&program);
    // By itself it looks into the environment, too.
    if let (Some(dir), Some(ValueSource::CommandLine)) =
        (typed.get_one::<PathBuf>("dir"), typed.value_source("dir"))
    {
        command.arg("--dir").arg(dir);
    }
    let error = command.args(typed.get_many::<OsString>("words").into_iter().flatten()).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_passed_on_as_it_is() {
        let typed = ["dockside", "deploy-test", "--dir", "x", "replace", "--keep"];
        let matches = crate::cli::command().try_get_matches_from(typed).unwrap();
        let (name, m) = matches.subcommand().unwrap();
        let words: Vec<_> = m.get_many::<OsString>("words").unwrap().collect();
        assert!(is(name));
        assert_eq!(words, ["replace", "--keep"]);
        assert_eq!(m.get_one("dir"), Some(&PathBuf::from("x")));
    }
}
