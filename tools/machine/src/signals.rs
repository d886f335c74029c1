//! Ctrl-C and SIGTERM: the first asks for an orderly end, the second for one at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

static COUNT: AtomicUsize = AtomicUsize::new(0);

static INSTALLED: AtomicBool = AtomicBool::new(false);

/// From here on signals are counted instead of ending the process.
pub fn install() -> Result<()> {
    // A second listener would count each of them twice.
    if INSTALLED.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot listen for signals")?;
    thread::spawn(move || {
        for _ in signals.forever() {
            COUNT.fetch_add(1, Ordering::SeqCst);
        }
    });
    Ok(())
}

/// Ends what this process waits for, as a Ctrl-C would.
pub fn request_stop() {
    let _ = COUNT.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst);
}

pub fn stop_asked() -> bool {
    COUNT.load(Ordering::SeqCst) > 0
}

pub fn stop_at_once() -> bool {
    COUNT.load(Ordering::SeqCst) > 1
}

/// # Errors
/// once a stop was asked for, so that everything that waits ends.
pub fn check() -> Result<()> {
    if stop_asked() { Err(Interrupted.into()) } else { Ok(()) }
}

/// The error of everything that a signal has interrupted.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}
