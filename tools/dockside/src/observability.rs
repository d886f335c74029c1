//! `test observability`: the rules of alerts, Grafana's dashboards, and what is configured beside them (`observability/`).

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use machine::commands::finish;
use machine::install;
use machine::layout::Layout;

/// All that can be checked without a shop.
pub fn files(layout: &Layout) -> Result<()> {
    // What it needs is kept in the folder itself, not in a test run's, which is forgotten.
    let dir: &Path = if layout.passing { layout.dir.parent().unwrap_or(&layout.dir) } else { &layout.dir };
    finish(python(layout, "check.py")?.env("DOCKSIDE_DIR", dir))
}

/// Every query of the dashboards, asked of Prometheus while the shop of this folder sells.
pub fn queries(layout: &Layout) -> Result<()> {
    finish(python(layout, "trial.py")?.envs(layout.announced()?))
}

fn python(layout: &Layout, file: &str) -> Result<Command> {
    install::monitoring(layout)?;
    let mut command = Command::new(install::with_python(layout)?);
    command.arg(layout.root.join("observability").join(file)).current_dir(&layout.root);
    Ok(command)
}
