//! `test supply`: the crates that the shop is made of, by cargo-deny (`tests/supply`).

use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use machine::commands::finish;
use machine::console::step;
use machine::install;
use machine::layout::Layout;

/// What the script ends with where RustSec's database can't be reached, and none was fetched before.
const UNREACHABLE: i32 = 75;

/// Licences, sources, and what is banned.
pub fn crates(layout: &Layout) -> Result<()> {
    finish(script(layout)?.arg("crates"))
}

/// What is known against the crates; where that can't be learnt, why not.
pub fn advisories(layout: &Layout) -> Result<Option<String>> {
    let status = script(layout)?.arg("advisories").stdin(Stdio::null()).status()?;
    if status.code() == Some(UNREACHABLE) {
        let text = "advisories against the crates: RustSec's database can't be reached".to_owned();
        step("SKIPPED", &text);
        return Ok(Some(text));
    }
    if !status.success() {
        bail!("something is known against a crate, or cargo-deny failed ({status})");
    }
    Ok(None)
}

/// What it needs is kept beside a test run's data, which is forgotten each time.
fn script(layout: &Layout) -> Result<Command> {
    let mut command = Command::new(install::with_python(layout)?);
    let dir = layout.dir.parent().unwrap_or(&layout.dir);
    command.arg(layout.root.join("tests/supply")).env("DOCKSIDE_DIR", dir).current_dir(&layout.root);
    Ok(command)
}
