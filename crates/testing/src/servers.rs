//! The servers that tests run on: those in the environment, or else private ones that this starts.
//!
//! They are started once, by `cargo dockside up --servers`, in the folder of the build. All test programs share them; each
//! says that it uses them by a lock that ends with it. They end when nobody has held one for two minutes.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The command line may have to be compiled first.
const LIMIT: Duration = Duration::from_secs(600);

/// Locked by whoever uses the servers; see `up.rs` of `tools/dockside`.
const USED: &str = "used";
/// Locked by the one test program that starts them.
const STARTING: &str = "starting";
/// Locked by the process that keeps them running.
const LOCK: &str = "lock";

/// Administrators' addresses.
#[derive(Debug, PartialEq, Eq)]
struct Servers {
    database: String,
    broker: String,
}

/// An administrator's address of PostgreSQL.
///
/// # Panics
/// when none is given and none can be started, with what to do.
pub fn database() -> String {
    given("TEST_DATABASE_URL").unwrap_or_else(|| private().database.clone())
}

/// The same of RabbitMQ.
pub fn broker() -> String {
    given("TEST_AMQP_URL").unwrap_or_else(|| private().broker.clone())
}

#[expect(clippy::disallowed_methods, reason = "tests have no settings of their own")]
fn given(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn private() -> &'static Servers {
    static SERVERS: OnceLock<Result<(Servers, File), String>> = OnceLock::new();
    let found = SERVERS.get_or_init(|| shared().map_err(|error| format!("{error:#}")));
    match found {
        Ok((servers, _used)) => servers,
        Err(error) => panic!(
            "there are no servers for the tests: {error}\nInstall PostgreSQL and RabbitMQ, or run `cargo dockside test`, \
             which installs them, or set TEST_DATABASE_URL and TEST_AMQP_URL (administrators' addresses)"
        ),
    }
}

fn shared() -> Result<(Servers, File)> {
    let build = build_folder(&std::env::current_exe().context("cannot find this program")?)?;
    let dir = build.join("test-servers");
    let used = share(&dir, LIMIT, |limit| start(&build, &dir, limit))?;
    match running(&dir)? {
        Running::Ready(servers) => Ok((servers, used)),
        _ => bail!("they have ended again"),
    }
}

/// Where cargo builds to, which it marks.
fn build_folder(program: &Path) -> Result<PathBuf> {
    let marked = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    marked.map(Path::to_path_buf).context("this program is not in a folder that cargo builds to")
}

/// Takes part in the use of the servers in `dir`; has them started if they don't run, by one program at a time.
///
/// Returns what says that they are used.
fn share(dir: &Path, limit: Duration, start: impl FnOnce(Duration) -> Result<()>) -> Result<File> {
    let deadline = Instant::now() + limit;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    // Before the check of what runs: servers in use do not end. Servers that are ending hold the lock until
    // they have.
    let used = open(dir, USED)?;
    wait(&used, deadline, File::try_lock_shared).context("servers that were to end do not")?;
    let starting = open(dir, STARTING)?;
    wait(&starting, deadline, File::try_lock).context("another test program starts them, and is not done")?;
    loop {
        match running(dir)? {
            Running::Ready(_) => return Ok(used),
            Running::No => {
                start(deadline.saturating_duration_since(Instant::now()))?;
                return Ok(used);
            }
            // Started by a program that has ended since, or ended by `down`.
            Running::NotReady if Instant::now() < deadline => pause(),
            Running::NotReady => bail!("servers that start or end are not done: the time is over"),
        }
    }
}

fn open(dir: &Path, name: &str) -> Result<File> {
    let path = dir.join(name);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

/// Tries until the lock is there.
fn wait(file: &File, deadline: Instant, lock: fn(&File) -> Result<(), TryLockError>) -> Result<()> {
    loop {
        match lock(file) {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error.into()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => pause(),
            Err(TryLockError::WouldBlock) => bail!("the time is over"),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the first test waits for them, and with it all others")]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

/// What runs in the folder.
#[derive(Debug, PartialEq, Eq)]
enum Running {
    No,
    /// Servers that start, or end.
    NotReady,
    Ready(Servers),
}

fn running(dir: &Path) -> Result<Running> {
    match open(dir, LOCK)?.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error.into()),
        // Nobody keeps them running, whatever the state says.
        Ok(()) => return Ok(Running::No),
    }
    let state: Value =
        serde_json::from_slice(&fs::read(dir.join("state.json")).unwrap_or_default()).unwrap_or_default();
    let address = |name: &str| state[name].as_str().map(str::to_owned);
    let servers = address("postgres").zip(address("rabbitmq"));
    let servers = servers.filter(|_| state["ready"] == true);
    Ok(servers.map_or(Running::NotReady, |(database, broker)| Running::Ready(Servers { database, broker })))
}

/// Runs the command line, which returns once they are ready.
fn start(build: &Path, dir: &Path, limit: Duration) -> Result<()> {
    // Without the name of a test, which would hide it from an onlooker.
    let said = "starting PostgreSQL and RabbitMQ for the tests; they end two minutes after the last one\n";
    std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes()).ok();
    let path = dir.join("up.log");
    let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        // What cargo says of this test program, and servers that aren't for tests.
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|own| name.starts_with(own)) {
            command.env_remove(name);
        }
    }
    command.env_remove("DATABASE_URL").env_remove("AMQP_URL");
    command.args(["run", "--quiet", "--package", "dockside", "--target-dir"]).arg(build).arg("--");
    command.args(["up", "--servers", "--detach", "--for-tests", "--dir"]).arg(dir);
    let output = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut child = output.spawn().context("cannot run cargo")?;
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!("they are not ready after {} s: see {}", limit.as_secs(), path.display());
        }
        pause();
    };
    let log = fs::read_to_string(&path).unwrap_or_default();
    ensure!(status.success(), "`cargo dockside up --servers` failed:\n{}", log.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("test-servers-{name}-{}", std::process::id()))
    }

    /// As the process that keeps the servers running does it.
    fn run(dir: &Path) -> File {
        let lock = open(dir, LOCK).unwrap();
        lock.try_lock().unwrap();
        write_ready(dir);
        lock
    }

    fn write_ready(dir: &Path) {
        let state = r#"{"ready": true, "postgres": "postgres://a", "rabbitmq": "amqp://b"}"#;
        fs::write(dir.join("state.json"), state).unwrap();
    }

    #[test]
    fn programs_that_come_together_start_the_servers_once() {
        let dir = scratch("once");
        let (started, running_on) = (AtomicUsize::new(0), OnceLock::new());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let start = |_| {
                        started.fetch_add(1, SeqCst);
                        running_on.set(run(&dir)).unwrap();
                        Ok(())
                    };
                    share(&dir, Duration::from_secs(30), start).unwrap();
                });
            }
        });
        assert_eq!(started.load(SeqCst), 1);
        let servers = Servers { database: "postgres://a".to_owned(), broker: "amqp://b".to_owned() };
        assert_eq!(running(&dir).unwrap(), Running::Ready(servers));
        // The state of a dead supervisor does not count.
        drop(running_on);
        assert_eq!(running(&dir).unwrap(), Running::No);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn servers_that_end_are_waited_for_and_not_for_ever() {
        let dir = scratch("ending");
        fs::create_dir_all(&dir).unwrap();
        let ending = open(&dir, USED).unwrap();
        ending.try_lock().unwrap();
        let error = share(&dir, Duration::from_millis(100), |_| Ok(())).unwrap_err();
        assert_eq!(format!("{error:#}"), "servers that were to end do not: the time is over");
        drop(ending);
        let used = share(&dir, Duration::from_secs(30), |_| Ok(())).unwrap();
        // While it is held, nobody ends them.
        assert!(open(&dir, USED).unwrap().try_lock().is_err());
        drop(used);
        open(&dir, USED).unwrap().try_lock().unwrap();
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn servers_that_somebody_else_starts_are_waited_for() {
        let dir = scratch("waiting");
        fs::create_dir_all(&dir).unwrap();
        let lock = open(&dir, LOCK).unwrap();
        lock.try_lock().unwrap();
        let error = share(&dir, Duration::from_millis(100), |_| bail!("started twice")).unwrap_err();
        assert_eq!(error.to_string(), "servers that start or end are not done: the time is over");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| share(&dir, Duration::from_secs(30), |_| bail!("started twice")));
            write_ready(&dir);
            waiting.join().unwrap().unwrap();
        });
        drop(lock);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_fails_to_start_is_said() {
        let dir = scratch("failing");
        let error = share(&dir, Duration::from_secs(30), |_| bail!("PostgreSQL is missing")).unwrap_err();
        assert_eq!(error.to_string(), "PostgreSQL is missing");
        fs::remove_dir_all(dir).unwrap();
    }
}
