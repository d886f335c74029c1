//! Where things are: the checkout, the folder that holds what runs, and the servers' data.

use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process;

/// Free space below which nothing is started: a full disk stops PostgreSQL and RabbitMQ in ways that
/// are hard to read.
const MIN_FREE: u64 = 1 << 30;

/// The folder of the shop's data, logs and state, under the checkout.
pub const DEFAULT_DIR: &str = ".dockside";

#[derive(Clone)]
pub struct Layout {
    /// The root of the checkout.
    pub root: PathBuf,
    /// `.dockside`, or what `--dir` names.
    pub dir: PathBuf,
    /// For a test run: what is in it goes with it.
    pub passing: bool,
    /// For a measurement: PostgreSQL counts its statements.
    pub measured: bool,
    /// Prometheus runs beside the shop: RabbitMQ shows its metrics.
    pub observed: bool,
    /// PostgreSQL, RabbitMQ and gRPC speak TLS, with what is in `tls/`.
    pub tls: bool,
}

impl Layout {
    /// The place of test runs.
    pub fn for_tests(&self) -> Layout {
        Layout { dir: self.dir.join("test"), passing: true, ..self.clone() }
    }

    /// The place of runs with faults.
    pub fn for_chaos(&self) -> Layout {
        Layout { dir: self.dir.join("chaos"), ..self.clone() }
    }

    /// The place of measurements, whose PostgreSQL writes to disk as the shop's does.
    pub fn for_bench(&self) -> Layout {
        Layout { dir: self.dir.join("bench"), measured: true, ..self.clone() }
    }

    /// # Errors
    /// when the checkout cannot be found from the current folder.
    pub fn new(dir: &Path) -> Result<Layout> {
        let here = std::env::current_dir().context("cannot read the current folder")?;
        let root = here
            .ancestors()
            .find(|p| p.join("tools/dockside/Cargo.toml").is_file())
            .map(Path::to_path_buf)
            .or_else(|| {
                // Set by `cargo run`, for example with --manifest-path from elsewhere.
                let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR")?);
                Some(manifest.parent()?.parent()?.to_path_buf())
            })
            .context("run this inside a checkout of Dockside")?;
        // `--dir` is relative to where it was typed, the default to the checkout.
        let dir = if dir == Path::new(DEFAULT_DIR) { root.join(dir) } else { here.join(dir) };
        Ok(Layout { root, dir, passing: false, measured: false, observed: false, tls: false })
    }

    /// Creates the folder and checks that it can be used.
    pub fn prepare(&self) -> Result<()> {
        for dir in [&self.dir, &self.logs()] {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(|e| self.denied(dir, e))?;
        }
        let probe = self.dir.join(".writable");
        fs::write(&probe, b"x").map_err(|e| self.denied(&probe, e))?;
        fs::remove_file(&probe).ok();
        let free = free_space(&self.dir)?;
        if free < MIN_FREE {
            bail!(
                "only {} MiB are free on the disk of {}: at least 1024 MiB are needed. Free some space, or \
                 choose another place with --dir",
                free >> 20,
                self.dir.display()
            );
        }
        Ok(())
    }

    fn denied(&self, path: &Path, e: std::io::Error) -> anyhow::Error {
        match e.kind() {
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => anyhow::anyhow!(
                "no permission to write {}: make it yours (chown), or choose another folder with --dir",
                path.display()
            ),
            std::io::ErrorKind::StorageFull => anyhow::anyhow!(
                "the disk of {} is full: free some space, or choose another place with --dir",
                self.dir.display()
            ),
            _ => anyhow::Error::new(e).context(format!("cannot write {}", path.display())),
        }
    }

    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    pub fn state(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    /// Opens a fresh log and keeps the one before it as `<name>.log.1`.
    pub fn rotate_log(&self, name: &str) -> Result<()> {
        let path = self.log(name);
        if path.exists() {
            fs::rename(&path, self.logs().join(format!("{name}.log.1")))
                .with_context(|| format!("cannot rotate {}", path.display()))?;
        }
        self.append_log(name).map(drop)
    }

    /// The log, for a process to append to.
    pub fn append_log(&self, name: &str) -> Result<File> {
        let path = self.log(name);
        OpenOptions::new().create(true).append(true).open(&path).map_err(|e| self.denied(&path, e))
    }

    /// Where data goes when the servers' user cannot enter the checkout: a place of this folder alone.
    pub fn outside(&self) -> PathBuf {
        Path::new("/var/lib/dockside").join(self.hash())
    }

    /// Tells this folder from every other one of this machine.
    pub fn hash(&self) -> String {
        // FNV-1a: the same in every version of Rust, unlike the standard hasher.
        let hash = self.dir.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
    }

    /// Removes what the servers, the sandbox and the services keep. Nothing of it may run.
    pub fn forget_data(&self) -> Result<()> {
        let outside = self.outside();
        if outside.exists() {
            remove(&outside)?;
            // Stays while other checkouts have data there.
            outside.parent().map(fs::remove_dir);
        }
        let names = [
            "postgres",
            "rabbitmq",
            "docker-postgres",
            "docker-rabbitmq",
            "edge",
            "sandbox",
            "objects",
            "monitoring",
        ];
        names.iter().try_for_each(|name| remove(&self.dir.join(name)))
    }

    /// What a program needs to find every process of the shop in this folder.
    pub fn announced(&self) -> Result<[(String, String); 2]> {
        Ok([
            ("DOCKSIDE_BIN".to_owned(), process::this_program()?.display().to_string()),
            ("DOCKSIDE_DIR".to_owned(), self.dir.display().to_string()),
        ])
    }
}

/// Removes a folder, if it is there.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Bytes that an unprivileged process may still write on the disk that holds `path`.
pub fn free_space(path: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(path).with_context(|| format!("cannot examine {}", path.display()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Writes a file whole or not at all, readable by its owner only.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        fs::rename(&temporary, path)
    };
    write().map_err(|e| match e.kind() {
        std::io::ErrorKind::StorageFull => {
            anyhow::anyhow!("the disk is full: cannot write {}", path.display())
        }
        _ => anyhow::Error::new(e).context(format!("cannot write {}", path.display())),
    })
}

/// The one process that may run a folder's shop. Held until the process ends, however it ends.
pub struct Lock(#[expect(dead_code, reason = "held, not read")] File);

impl Lock {
    /// `None` when another process holds it.
    pub fn acquire(layout: &Layout) -> Result<Option<Lock>> {
        Lock::named(layout, "lock")
    }

    /// The same for another thing that one process at a time may do.
    pub fn named(layout: &Layout, name: &str) -> Result<Option<Lock>> {
        let path = layout.dir.join(name);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| layout.denied(&path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(e)) => Err(e).context("cannot lock"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> Layout {
        let dir = std::env::temp_dir().join(format!("dockside-{name}-{}", std::process::id()));
        Layout { root: dir.clone(), dir, passing: false, measured: false, observed: false, tls: false }
    }

    #[test]
    fn the_place_outside_depends_on_the_folder_alone() {
        let of = |dir: &str| Layout { dir: PathBuf::from(dir), ..scratch("outside") }.outside();
        assert_eq!(of("a"), Path::new("/var/lib/dockside/af63dc4c8601ec8c"));
        assert_ne!(of("/x/.dockside"), of("/x/.dockside/test"));
    }

    #[test]
    fn one_process_holds_the_lock() {
        let layout = scratch("lock");
        layout.prepare().unwrap();
        let held = Lock::acquire(&layout).unwrap();
        assert!(held.is_some());
        assert!(Lock::acquire(&layout).unwrap().is_none());
        drop(held);
        assert!(Lock::acquire(&layout).unwrap().is_some());
        fs::remove_dir_all(&layout.dir).unwrap();
    }

    #[test]
    fn a_log_keeps_the_one_before_it() {
        let layout = scratch("log");
        layout.prepare().unwrap();
        fs::write(layout.log("x"), "old").unwrap();
        layout.rotate_log("x").unwrap();
        assert_eq!(fs::read_to_string(layout.log("x")).unwrap(), "");
        assert_eq!(fs::read_to_string(layout.logs().join("x.log.1")).unwrap(), "old");
        fs::remove_dir_all(&layout.dir).unwrap();
    }

    #[test]
    fn private_files_are_for_their_owner() {
        let layout = scratch("private");
        layout.prepare().unwrap();
        let path = layout.dir.join("secrets.json");
        write_private(&path, b"{}").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_dir_all(&layout.dir).unwrap();
    }
}
