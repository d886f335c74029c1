//! Whether anybody uses the servers of `up --for-tests`: each test program holds a shared lock as long as it runs.

use std::fs::File;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use machine::layout::Layout;

/// They stay so long for the next test program.
const LIMIT: Duration = Duration::from_secs(120);

pub struct Idle {
    used: File,
    since: Instant,
    limit: Duration,
}

impl Idle {
    pub fn new(layout: &Layout) -> Result<Idle> {
        let path = layout.dir.join("used");
        let used = File::options().create(true).truncate(false).write(true).open(&path);
        let used = used.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Idle { used, since: Instant::now(), limit: LIMIT })
    }

    /// Whether nobody has used them for so long. From then on nobody can, until this process has ended: a test program that
    /// comes meanwhile waits, and starts them anew.
    pub fn over(&mut self) -> bool {
        if self.used.try_lock().is_err() {
            self.since = Instant::now();
            return false;
        }
        if self.since.elapsed() < self.limit {
            self.used.unlock().ok();
            return false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_end_when_nobody_has_used_them_for_a_while() {
        let dir = std::env::temp_dir().join(format!("dockside-idle-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let open =
            || File::options().create(true).truncate(false).write(true).open(dir.join("used")).unwrap();
        let mut idle = Idle { used: open(), since: Instant::now(), limit: Duration::ZERO };
        let user = open();
        user.try_lock_shared().unwrap();
        assert!(!idle.over());
        drop(user);
        idle.limit = Duration::from_secs(60);
        assert!(!idle.over());
        // Nothing is held meanwhile.
        open().try_lock_shared().unwrap();
        idle.limit = Duration::ZERO;
        assert!(idle.over());
        assert!(open().try_lock_shared().is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
