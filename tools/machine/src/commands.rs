//! Commands that are run to their end with their output shown.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::compile::cargo_missing;
use crate::process::{self, Signal};
use crate::signals;

/// No step of a sound run takes this long.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// Runs a command with its output shown.
pub fn finish(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::null()).spawn().map_err(cargo_missing)?;
    watch(child, &name)
}

/// Waits for a command; ends it when a signal comes or it takes too long.
pub fn watch(mut child: Child, name: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            signals::check()?;
            if !status.success() {
                bail!("{name} failed ({status})");
            }
            return Ok(());
        }
        if signals::stop_asked() || start.elapsed() > LIMIT {
            process::kill(child.id(), Signal::TERM);
            child.wait()?;
            signals::check()?;
            bail!("{name} took more than {} minutes", LIMIT.as_secs() / 60);
        }
        process::pause(50);
    }
}
