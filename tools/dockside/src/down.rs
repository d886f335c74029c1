//! `down`: stops what runs, whether or not its supervisor still lives; `--wipe` forgets the data.

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use machine::console::{line, step};
use machine::layout::{Layout, Lock, remove};
use machine::process::Signal;
use machine::signals;
use machine::state::State;
use machine::supervisor::{restart::FILES, shutdown};

/// Every process's grace, one after the other, and some more.
const LIMIT: Duration = Duration::from_secs(180);

pub fn run(layout: &Layout, wipe: bool) -> Result<ExitCode> {
    if !layout.dir.exists() {
        line("Nothing is running here.");
        return Ok(ExitCode::SUCCESS);
    }
    stop(layout)?;
    if wipe {
        forget(layout)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn stop(layout: &Layout) -> Result<()> {
    let state = State::load(layout);
    let mut stopped = false;
    if let Some(supervisor) = state.supervisor.as_ref().filter(|s| s.alive()) {
        step("dockside", &format!("stopping the shop (pid {})", supervisor.pid));
        supervisor.signal(Signal::TERM);
        if !supervisor.wait_gone(LIMIT) {
            supervisor.signal(Signal::KILL);
        }
        stopped = true;
    }
    // What is left when the supervisor was killed.
    let left: Vec<_> = State::load(layout).processes.into_iter().filter(|p| p.live().is_some()).collect();
    shutdown::stop_in_order(&left, signals::stop_at_once);
    if stopped || !left.is_empty() {
        step("dockside", "stopped");
    } else {
        line("Nothing is running here.");
    }
    let mut state = State::load(layout);
    if state != State::default() {
        state.processes.clear();
        state.supervisor = None;
        state.ready = false;
        state.edge = None;
        state.save(layout)?;
    }
    Ok(())
}

fn forget(layout: &Layout) -> Result<()> {
    let (test, chaos, bench) = (layout.for_tests(), layout.for_chaos(), layout.for_bench());
    // Only folders that are ours: `--dir` could name anything.
    let ours: Vec<&Layout> =
        [&test, &chaos, &bench, layout].into_iter().filter(|l| l.state().exists()).collect();
    if ours.is_empty() {
        line("There is no data here.");
        return Ok(());
    }
    for layout in ours {
        if Lock::acquire(layout)?.is_none() {
            bail!("another `cargo dockside` is at work in {}", layout.dir.display());
        }
        layout.forget_data()?;
    }
    for name in ["logs", "test", "chaos", "bench"] {
        remove(&layout.dir.join(name))?;
    }
    for entry in fs::read_dir(&layout.dir)?.flatten() {
        let name = entry.file_name();
        let ours = ["secrets.json", "state.json", "lock", "order.key.pem", "order.key.pub"];
        if ours.iter().chain(&FILES).any(|o| name == *o) {
            fs::remove_file(entry.path())?;
        }
    }
    // Stays when something that is not ours lies in it.
    fs::remove_dir(&layout.dir).ok();
    step("dockside", "all data is forgotten");
    Ok(())
}
