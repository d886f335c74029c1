//! Builds the services with cargo, whose own progress is shown as it comes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::console::{seconds, step};
use crate::layout::Layout;
use crate::process::{self, Signal};
use crate::signals;

/// The programs that make the shop, by package.
pub const PACKAGES: [&str; 5] = ["user", "product", "order", "payment-sandbox", "storefront"];

/// `cargo`, as if typed in the checkout: without what `cargo run` put into this process's environment.
pub fn cargo(layout: &Layout) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(&layout.root);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    command
}

/// The same command, run only where nothing else needs the processor.
pub fn in_the_background(command: &Command) -> Command {
    let mut quiet = Command::new("nice");
    quiet.args(["-n", "19"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => quiet.env(name, value),
            None => quiet.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        quiet.current_dir(dir);
    }
    quiet
}

/// Explains why cargo could not be started.
pub fn cargo_missing(e: std::io::Error) -> anyhow::Error {
    match e.kind() {
        std::io::ErrorKind::NotFound => {
            anyhow::anyhow!("cargo is not on the PATH: install Rust from https://rustup.rs and try again")
        }
        _ => anyhow::Error::new(e).context("cannot run cargo"),
    }
}

/// Builds the programs; returns where each is.
pub fn services(layout: &Layout, release: bool) -> Result<BTreeMap<String, PathBuf>> {
    programs(layout, &PACKAGES, &PACKAGES, release)
}

/// The programs that were built before, in this folder.
pub fn built_in(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let folder = folder.canonicalize().with_context(|| format!("no folder {}", folder.display()))?;
    let found = PACKAGES.map(|package| (package.to_owned(), folder.join(package)));
    if let Some((package, _)) = found.iter().find(|(_, program)| !program.is_file()) {
        bail!("{} holds no program {package}", folder.display());
    }
    Ok(found.into())
}

/// The same, together with the programs that `chaos` needs: in one run with it this compiles the dependencies once. By
/// themselves the services choose other features of them.
pub fn services_and_chaos(layout: &Layout, release: bool) -> Result<BTreeMap<String, PathBuf>> {
    let packages = [&PACKAGES[..], &["system-tests"]].concat();
    programs(layout, &packages, &PACKAGES, release)
}

/// What a measurement needs, optimised: the services, who buys from them, the bare server that reads are compared with,
/// and a collector of traces. In one run of cargo, as above.
pub fn measured(layout: &Layout) -> Result<BTreeMap<String, PathBuf>> {
    let packages = [&PACKAGES[..], &["operator", "load", "bare"]].concat();
    let wanted = [&PACKAGES[..], &["load", "load-reads", "bare", "collector"]].concat();
    programs(layout, &packages, &wanted, true)
}

/// Builds the programs of these packages, among which have to be those wanted; returns where each is.
pub fn programs(
    layout: &Layout,
    packages: &[&str],
    wanted: &[&str],
    release: bool,
) -> Result<BTreeMap<String, PathBuf>> {
    let start = Instant::now();
    step("build", &format!("{} (the first time takes some minutes)", wanted.join(", ")));
    let binaries = build(layout, packages, wanted, release)?;
    step("build", &format!("done in {}", seconds(start.elapsed())));
    Ok(binaries)
}

/// Builds the program `operator`; returns where it is. Progress goes to stderr alone: the output is the operator's.
pub fn operator(layout: &Layout) -> Result<PathBuf> {
    // Together with the services: by itself it would choose other features of the dependencies and compile those again.
    let packages: Vec<&str> = PACKAGES.into_iter().chain(["operator"]).collect();
    build(layout, &packages, &["operator"], false)?.remove("operator").context("no program operator")
}

/// Builds a program of this command line, whose package has its name. Returns where it is.
pub fn tool(layout: &Layout, name: &str) -> Result<PathBuf> {
    build(layout, &[name], &[name], false)?.remove(name).with_context(|| format!("no program {name}"))
}

/// Builds the program `load`, optimised: it may share the machine with what it measures. Returns where it is.
pub fn load(layout: &Layout) -> Result<PathBuf> {
    build(layout, &["load"], &["load"], true)?.remove("load").context("no program load")
}

fn build(
    layout: &Layout,
    packages: &[&str],
    wanted: &[&str],
    release: bool,
) -> Result<BTreeMap<String, PathBuf>> {
    let mut command = cargo(layout);
    command.arg("build").args(packages.iter().flat_map(|p| ["-p", p])).arg("--bins");
    if release {
        command.arg("--release");
    }
    // Artifacts as JSON on stdout; progress and diagnostics stay on stderr.
    command.arg("--message-format=json-render-diagnostics").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(cargo_missing)?;
    let pid = child.id();
    let out = child.stdout.take().context("cargo's output")?;
    let done = std::sync::atomic::AtomicBool::new(false);
    let (binaries, status) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                if signals::stop_asked() {
                    process::kill(pid, Signal::TERM);
                    return;
                }
                process::pause(100);
            }
        });
        let binaries: BTreeMap<_, _> =
            BufReader::new(out).lines().map_while(Result::ok).filter_map(|l| executable(&l)).collect();
        let status = child.wait();
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        (binaries, status)
    });
    signals::check()?;
    if !status?.success() {
        bail!("the build failed: see cargo's messages above");
    }
    if let Some(missing) = wanted.iter().find(|p| !binaries.contains_key(**p)) {
        bail!("the build made no program named {missing}");
    }
    Ok(binaries)
}

/// The program that one of cargo's messages announces.
pub fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let file = message.get("executable")?.as_str()?;
    let name = message.get("target")?.get("name")?.as_str()?;
    Some((name.to_owned(), PathBuf::from(file)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_runs_in_the_background_is_the_same_command() {
        let mut command = Command::new("cargo");
        command.args(["clippy", "--workspace"]).env("A", "1").env_remove("B").current_dir("/tmp");
        let quiet = in_the_background(&command);
        let words: Vec<_> = quiet.get_args().collect();
        assert_eq!(
            (quiet.get_program(), words),
            ("nice".as_ref(), ["-n", "19", "cargo", "clippy", "--workspace"].map(AsRef::as_ref).to_vec())
        );
        assert!(quiet.get_envs().eq(command.get_envs()));
        assert_eq!(quiet.get_current_dir(), command.get_current_dir());
    }

    use super::*;

    #[test]
    fn programs_that_are_there_are_taken_as_they_are() {
        let folder = std::env::temp_dir().join(format!("dockside-built-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        for package in PACKAGES {
            let refused = built_in(&folder).unwrap_err().to_string();
            assert!(refused.ends_with(&format!("holds no program {package}")), "{refused}");
            std::fs::write(folder.join(package), "").unwrap();
        }
        let built = built_in(&folder);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(built.unwrap().len(), PACKAGES.len());
        assert!(built_in(&folder).unwrap_err().to_string().starts_with("no folder "));
    }

    #[test]
    fn programs_are_read_from_cargos_messages() {
        let made =
            r#"{"reason":"compiler-artifact","target":{"name":"order"},"executable":"/t/debug/order"}"#;
        assert_eq!(executable(made), Some(("order".into(), "/t/debug/order".into())));
        assert_eq!(
            executable(r#"{"reason":"compiler-artifact","target":{"name":"x"},"executable":null}"#),
            None
        );
        assert_eq!(executable("not json"), None);
    }
}
