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

/// Waits for a command in a process group of its own, which gets each signal that this process gets; its exit code.
pub fn attend(mut child: Child) -> Result<u8> {
    let mut passed_on = 0;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
        }
        let asked = u8::from(signals::stop_asked()) + u8::from(signals::stop_at_once());
        if asked > passed_on {
            passed_on = asked;
            process::signal_group(child.id(), Signal::TERM);
        }
        process::pause(50);
    }
}
