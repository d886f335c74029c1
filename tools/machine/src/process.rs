//! Processes by id: who lives, since when, and how to end them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, kill_process_group, test_kill_process_group};

/// The file of this program. cargo may have built it anew meanwhile: the system then calls the file that runs deleted,
/// and a new one stands in its place.
pub fn this_program() -> Result<PathBuf> {
    Ok(in_place(&std::env::current_exe().context("cannot find this program")?))
}

fn in_place(program: &Path) -> PathBuf {
    let name = program.as_os_str().as_bytes();
    OsStr::from_bytes(name.strip_suffix(b" (deleted)").unwrap_or(name)).into()
}

/// A process as remembered on disk. The start time tells it from a later process with the same id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub pid: u32,
    pub started: String,
}

impl Identity {
    /// Of a process that runs now; `None` when there is none with that id.
    pub fn of(pid: u32) -> Option<Identity> {
        Some(Identity { pid, started: start_time(pid)? })
    }

    pub fn alive(&self) -> bool {
        start_time(self.pid).is_some_and(|started| started == self.started)
    }

    /// Signals the process if it is still the one meant.
    pub fn signal(&self, signal: Signal) {
        if self.alive() {
            kill(self.pid, signal);
        }
    }

    /// Waits until it is gone; false when it still lives at the deadline.
    pub fn wait_gone(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.alive() {
            if Instant::now() >= deadline {
                return false;
            }
            pause(50);
        }
        true
    }
}

/// Sleeps between two checks of something that cannot be waited for.
pub fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

#[cfg(target_os = "linux")]
fn start_time(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    start_time_of_stat(&stat)
}

/// Field 22 of proc_pid_stat(5). The name (field 2) may contain spaces and brackets, so count from the
/// last bracket. A zombie has ended: its parent has just not looked yet.
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "other systems ask ps"))]
fn start_time_of_stat(stat: &str) -> Option<String> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

#[cfg(not(target_os = "linux"))]
fn start_time(pid: u32) -> Option<String> {
    let out = Command::new("ps").args(["-o", "stat=,lstart=", "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    let (stat, started) = text.split_once(' ')?;
    (!stat.starts_with('Z')).then(|| started.trim().to_owned())
}

/// Errors are left out: the process may have ended meanwhile, which is what a signal is for.
pub fn kill(pid: u32, signal: Signal) {
    if let Some(pid) = id(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// The same for all of a process group.
pub fn signal_group(leader: u32, signal: Signal) {
    if let Some(pid) = id(leader) {
        let _ = kill_process_group(pid, signal);
    }
}

/// Ends what a dead leader left behind in its process group.
pub fn kill_group(leader: u32) {
    signal_group(leader, Signal::KILL);
}

/// Whether anyone is in it, also a leader that nobody has waited for yet.
pub fn group_alive(leader: u32) -> bool {
    id(leader).is_some_and(|pid| test_kill_process_group(pid).is_ok())
}

fn id(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// The last `n` lines of a log; nothing when it cannot be read.
pub fn tail(path: &Path, n: usize) -> Vec<String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        // The end of a log that may be large; 64 KiB hold more lines than anyone asks for by default.
        let window = 1024 * n.max(64) as u64;
        let start = file.metadata()?.len().saturating_sub(window);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(n)..].iter().map(|l| (*l).to_owned()).collect()
}

/// Runs a command to its end and returns its standard output.
///
/// Errors carry what the command wrote to its error stream.
pub fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.output().with_context(|| format!("cannot run {name}"))?;
    if !out.status.success() {
        let mut text = String::from_utf8_lossy(&out.stderr).trim().to_owned();
        if text.is_empty() {
            text = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        }
        anyhow::bail!("{name} failed ({}): {text}", out.status);
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Ends this process as a user would when the one that started it has died: it would go on by itself for long.
pub fn end_with_parent() {
    // Other systems have nothing like it.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).ok();
}

/// What all processors of the machine have worked since it started (`man 5 proc_stat`); `None` where nothing says it.
pub fn busy() -> Option<Duration> {
    let ticks = worked(&std::fs::read_to_string("/proc/stat").ok()?)?;
    Some(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

/// User, nice, system, interrupts; neither idle nor waiting.
fn worked(stat: &str) -> Option<u64> {
    let counts: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).flat_map(str::parse).collect();
    [0, 1, 2, 5, 6].iter().map(|place| counts.get(*place).copied()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_built_anew_is_found_in_its_place() {
        assert_eq!(in_place(Path::new("/t/dockside (deleted)")), Path::new("/t/dockside"));
        assert_eq!(in_place(Path::new("/t/dockside")), Path::new("/t/dockside"));
        assert_eq!(this_program().unwrap(), std::env::current_exe().unwrap());
    }

    #[test]
    fn idle_processors_have_not_worked() {
        assert_eq!(worked("cpu  10 20 30 9999 888 4 5 777 0 0\ncpu0 1 1 1 1"), Some(69));
        assert_eq!(worked(""), None);
    }

    #[test]
    fn this_process_is_alive_and_one_that_started_at_another_time_is_not() {
        let me = Identity::of(std::process::id()).unwrap();
        assert!(me.alive());
        assert!(!Identity { started: "1".into(), ..me }.alive());
    }

    #[test]
    fn the_start_time_survives_a_strange_process_name_and_a_zombie_is_dead() {
        let rest = (4..22).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(start_time_of_stat(&format!("7 (a b) c) S {rest} 4242 23")), Some("4242".into()));
        assert_eq!(start_time_of_stat(&format!("7 (a) Z {rest} 4242 23")), None);
    }

    #[test]
    fn tail_of_a_missing_file_is_empty() {
        assert!(tail(Path::new("/nonexistent/x"), 5).is_empty());
    }
}
