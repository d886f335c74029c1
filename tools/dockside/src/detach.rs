//! `up --detach`: the same command in the background; the foreground shows its progress until it is ready.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use machine::console::line;
use machine::layout::{Layout, Lock};
use machine::process::{self, Identity, Signal};
use machine::signals;
use machine::state::State;

/// The code to end with; `None` when another process is at work in the folder.
pub fn run(layout: &Layout) -> Result<Option<ExitCode>> {
    match Lock::acquire(layout)? {
        // Let go at once: the process in the background takes it.
        Some(lock) => drop(lock),
        None => return Ok(None),
    }
    signals::install()?;
    layout.rotate_log("dockside")?;
    let log = layout.append_log("dockside")?;
    let mut child = Command::new(process::this_program()?)
        .args(std::env::args_os().skip(1))
        .arg("--detached")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start in the background")?;
    let identity = Identity::of(child.id());
    let mut follow = Follow { file: File::open(layout.log("dockside"))?, at: 0 };
    loop {
        let ended = child.try_wait()?;
        let state = State::load(layout);
        let ready = state.ready && state.supervisor == identity && identity.is_some();
        follow.show("")?;
        if ready {
            // The summary is written right after the state.
            process::pause(200);
            follow.show("")?;
            return Ok(Some(ExitCode::SUCCESS));
        }
        if let Some(status) = ended {
            follow.show("")?;
            return Ok(Some(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }));
        }
        if signals::stop_asked() {
            line("stopping");
            process::kill(child.id(), Signal::TERM);
            if let Some(identity) = &identity {
                identity.wait_gone(Duration::from_secs(180));
            }
            follow.show("")?;
            return Ok(Some(ExitCode::from(130)));
        }
        process::pause(100);
    }
}

/// Prints what was appended to a file since the last call.
pub struct Follow {
    pub file: File,
    pub at: u64,
}

impl Follow {
    /// Whole lines only, each after `prefix`.
    pub fn show(&mut self, prefix: &str) -> Result<()> {
        self.file.seek(SeekFrom::Start(self.at))?;
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        self.at += whole as u64;
        for text in String::from_utf8_lossy(&bytes[..whole]).lines() {
            line(&format!("{prefix}{text}"));
        }
        Ok(())
    }
}
