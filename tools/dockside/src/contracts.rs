//! `test contracts` and `conformance`: the contracts, held by tools that are not ours (`tests/contracts`).

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use machine::commands::finish;
use machine::console::step;
use machine::layout::Layout;
use machine::state::{State, random_hex};
use machine::{install, signals};

/// The gRPC services and events: linted, and compatible with those of the last commit. The OpenAPI document: linted.
pub fn files(layout: &Layout) -> Result<()> {
    finish(python(layout)?.arg("files"))
}

/// The payment provider's API: its own SDKs drive the sandbox, which is this program.
pub fn sdks(layout: &Layout, sandbox: &Path) -> Result<()> {
    finish(python(layout)?.arg("sdks").arg("--sandbox").arg(sandbox))
}

/// Another stand-in of the payment provider, by other people, which tests of the order service pay through: its program.
pub fn localstripe(layout: &Layout) -> Result<PathBuf> {
    finish(python(layout)?.arg("localstripe"))?;
    Ok(kept(layout).join("contracts/bin/localstripe"))
}

/// axe-core, which finds what keeps people from using a page: its file.
pub fn axe(layout: &Layout) -> Result<PathBuf> {
    finish(python(layout)?.arg("axe"))?;
    Ok(kept(layout).join("contracts/node/node_modules/axe-core/axe.min.js"))
}

/// `conformance`: as long as one likes.
pub fn run(layout: &Layout, url: Option<&str>, time: Duration, seed: Option<u64>) -> Result<ExitCode> {
    layout.prepare()?;
    signals::install()?;
    conformance(layout, url, time, seed)?;
    Ok(ExitCode::SUCCESS)
}

/// Tries the HTTP API for so long, with data made from its document and a seed, random when left out.
///
/// # Errors
/// when an answer is not as the document says, or no shop runs here and no `url` names another one.
pub fn conformance(layout: &Layout, url: Option<&str>, time: Duration, seed: Option<u64>) -> Result<()> {
    let url = match url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => State::load(layout)
            .edge
            .context("the shop does not run here: `cargo dockside up` starts it, --url names another one")?,
    };
    let seed = match seed {
        Some(seed) => seed,
        None => u32::from_str_radix(&random_hex()?[..8], 16)?.into(),
    };
    step(
        "conformance",
        &format!("{} s of {url}; the same again: cargo dockside conformance --seed {seed}", time.as_secs()),
    );
    let (seconds, seed) = (time.as_secs().to_string(), seed.to_string());
    finish(python(layout)?.args(["api", "--url", &url, "--seconds", &seconds, "--seed", &seed]))
}

/// Where what is installed is kept: in the folder itself, not in a test run's, which is forgotten.
fn kept(layout: &Layout) -> &Path {
    if layout.passing { layout.dir.parent().unwrap_or(&layout.dir) } else { &layout.dir }
}

/// Runs `tests/contracts`.
fn python(layout: &Layout) -> Result<Command> {
    let mut command = Command::new(install::with_python(layout)?);
    let dir = kept(layout);
    command.arg(layout.root.join("tests/contracts")).env("DOCKSIDE_DIR", dir).current_dir(&layout.root);
    Ok(command)
}
