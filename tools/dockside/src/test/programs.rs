//! Test programs: built once for the whole workspace, listed, run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use machine::commands::{finish, watch};
use machine::compile::{cargo, cargo_missing, executable};
use machine::console::{bold, dim, line, seconds};
use machine::layout::Layout;
use machine::process::output;
use machine::signals;

/// The fewest and the most tests that run at the same moment. They wait for servers more than they compute.
const THREADS: (usize, usize) = (4, 16);

/// A built test program.
pub struct Program {
    pub package: String,
    /// As in `src/lib.rs` or `tests/http.rs`.
    source: String,
    folder: PathBuf,
    file: PathBuf,
}

impl Program {
    fn name(&self) -> String {
        format!("{} {}", self.package, self.source)
    }

    /// Whether it is a package's `tests/FILE.rs` or `tests/FILE/main.rs`.
    pub fn is(&self, package: &str, file: &str) -> bool {
        let sources = [format!("tests/{file}.rs"), format!("tests/{file}/main.rs")];
        self.package == package && sources.contains(&self.source)
    }

    /// Whether any of its tests has one of these parts in its name.
    pub fn has(&self, filters: &[String]) -> bool {
        let list = output(Command::new(&self.file).current_dir(&self.folder).arg("--list").args(filters));
        list.is_ok_and(|text| text.lines().any(|l| l.ends_with(": test")))
    }
}

/// What one run of cargo made.
#[derive(Default)]
pub struct Built {
    pub tests: Vec<Program>,
    /// The services and what is started beside them, by name.
    pub programs: BTreeMap<String, PathBuf>,
}

/// Builds every test, and the programs that tests start: together, so that dependencies are compiled once. Plain `cargo
/// test --workspace` chooses the same features and finds them built.
pub fn build(layout: &Layout) -> Result<Built> {
    let mut built = build_one(layout, &["build", "--workspace", "--bins", "--tests"])?;
    built.tests.sort_by(|a, b| (&a.package, &a.source).cmp(&(&b.package, &b.source)));
    Ok(built)
}

/// Builds these tests, `(package, file)`, as `--release` does.
pub fn build_optimised(layout: &Layout, wanted: &[(&str, &str)]) -> Result<Vec<Program>> {
    let mut arguments = vec!["test", "--no-run", "--workspace", "--exclude", "dockside", "--release"];
    arguments.extend(wanted.iter().flat_map(|(_, file)| ["--test", *file]));
    let mut programs = build_one(layout, &arguments)?.tests;
    // Other packages have files of these names too.
    programs.retain(|p| wanted.iter().any(|(package, file)| p.is(package, file)));
    anyhow::ensure!(programs.len() == wanted.len(), "not all of {wanted:?} were built");
    Ok(programs)
}

fn build_one(layout: &Layout, arguments: &[&str]) -> Result<Built> {
    let mut command = cargo(layout);
    command.args(arguments).arg("--message-format=json-render-diagnostics");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(cargo_missing)?;
    let out = child.stdout.take().context("cargo's output")?;
    let reader = std::thread::spawn(move || {
        let mut built = Built::default();
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            match program(&line) {
                Some(test) => built.tests.push(test),
                None => built.programs.extend(executable(&line)),
            }
        }
        built
    });
    watch(child, &format!("cargo {}", arguments[0]))?;
    reader.join().map_err(|_| anyhow::anyhow!("reading cargo's output failed"))
}

/// The test program that one of cargo's messages announces.
fn program(message: &str) -> Option<Program> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    if message.get("profile")?.get("test")? != &serde_json::Value::Bool(true) {
        return None;
    }
    let file = PathBuf::from(message.get("executable")?.as_str()?);
    let folder = Path::new(message.get("manifest_path")?.as_str()?).parent()?.to_path_buf();
    let source = Path::new(message.get("target")?.get("src_path")?.as_str()?);
    let source = source.strip_prefix(&folder).unwrap_or(source).display().to_string();
    let package = package_of(message.get("package_id")?.as_str()?)?;
    Some(Program { package, source, folder, file })
}

/// The name in `path+file:///x/services/user#0.1.0` or `path+file:///x/tests#system-tests@0.1.0`.
fn package_of(id: &str) -> Option<String> {
    let (path, rest) = id.rsplit_once('#')?;
    match rest.split_once('@') {
        Some((name, _)) => Some(name.to_owned()),
        None => Some(path.rsplit_once('/')?.1.to_owned()),
    }
}

/// How many tests of a program run at the same moment on this machine.
pub fn threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (2 * cores).clamp(THREADS.0, THREADS.1)
}

/// How the programs are run.
pub struct Lanes<'a> {
    /// Programs at the same moment; the output of more than one is kept in `logs` and shown when it has ended.
    pub programs: usize,
    /// Tests of each at the same moment.
    pub threads: usize,
    pub logs: &'a Path,
}

/// Runs the programs, all of them even when one fails.
pub fn run(programs: &[&Program], env: &[(String, String)], filters: &[String], lanes: &Lanes) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let lane = || -> Result<()> {
        while let Some(program) = programs.get(next.fetch_add(1, Relaxed)) {
            let mut command = Command::new(&program.file);
            command.current_dir(&program.folder).env("CARGO_MANIFEST_DIR", &program.folder).args(filters);
            command.arg(format!("--test-threads={}", lanes.threads));
            command.env_remove("DATABASE_URL").env_remove("AMQP_URL").envs(env.iter().cloned());
            if !passed(program, &mut command, lanes)? {
                let mut failed = failed.lock().map_err(|_| anyhow::anyhow!("a lane has panicked"))?;
                failed.push(program.name());
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..lanes.programs).map(|_| scope.spawn(lane)).collect();
        let mut result = lane();
        for other in others {
            result = result.and(other.join().map_err(|_| anyhow::anyhow!("a lane has panicked"))?);
        }
        result
    })?;
    let failed = failed.into_inner().map_err(|_| anyhow::anyhow!("a lane has panicked"))?;
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn passed(program: &Program, command: &mut Command, lanes: &Lanes) -> Result<bool> {
    let title = format!("\n     {} {} {}", bold("Running"), program.package, dim(&program.source));
    line(&title);
    let start = Instant::now();
    let result = if lanes.programs == 1 {
        finish(command)
    } else {
        let path = lanes.logs.join(format!("{}.log", program.name().replace(['/', ' '], "-")));
        let log = File::create(&path)?;
        let result = finish(command.stdout(log.try_clone()?).stderr(log));
        line(&format!("{title}{}", String::from_utf8_lossy(&std::fs::read(&path)?)));
        result
    };
    signals::check()?;
    line(&dim(&seconds(start.elapsed())));
    Ok(result.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_read_from_cargos_id() {
        assert_eq!(package_of("path+file:///x/services/user#0.1.0"), Some("user".into()));
        assert_eq!(package_of("path+file:///x/tests#system-tests@0.1.0"), Some("system-tests".into()));
    }
}
