//! What the kernel counts of a container's memory, in its control group.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::shop::inspect;

/// Where the kernel shows control groups; version 1 has a hierarchy for each resource below.
const ROOT: &str = "/sys/fs/cgroup";

/// The control group of a container's main process.
pub struct Group {
    folder: PathBuf,
    unified: bool,
}

impl Group {
    /// # Errors
    /// when the engine runs elsewhere, as in a virtual machine.
    pub fn of(container: &str) -> Result<Group> {
        let pid = inspect(container, "{{.State.Pid}}")?;
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .context("a container's process is not to be seen here: run this where the engine runs")?;
        let (path, unified) = path(&text).context("no control group of memory")?;
        let root = if unified { Path::new(ROOT).to_owned() } else { Path::new(ROOT).join("memory") };
        let group = Group { folder: root.join(path), unified };
        ensure!(group.folder.is_dir(), "no {}: run this where the engine runs", group.folder.display());
        Ok(group)
    }

    /// The most that it ever held at a time, page cache included, in bytes.
    pub fn peak(&self) -> Result<u64> {
        self.number(if self.unified { "memory.peak" } else { "memory.max_usage_in_bytes" })
    }

    /// What it holds now without the page cache that the kernel could drop, in bytes.
    pub fn working_set(&self) -> Result<u64> {
        let (usage, inactive) = match self.unified {
            true => ("memory.current", "inactive_file"),
            false => ("memory.usage_in_bytes", "total_inactive_file"),
        };
        let inactive = self.table("memory.stat")?.get(inactive).copied().unwrap_or_default();
        Ok(self.number(usage)?.saturating_sub(inactive))
    }

    /// How many of its processes the kernel killed for want of memory.
    pub fn killed(&self) -> Result<u64> {
        let file = if self.unified { "memory.events" } else { "memory.oom_control" };
        self.table(file)?.get("oom_kill").copied().with_context(|| format!("no oom_kill in {file}"))
    }

    fn number(&self, file: &str) -> Result<u64> {
        let text = self.read(file)?;
        text.trim().parse().with_context(|| format!("{file} is no number: {text}"))
    }

    /// A file of lines `name number`.
    fn table(&self, file: &str) -> Result<BTreeMap<String, u64>> {
        let text = self.read(file)?;
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        Ok(pairs.filter_map(|(name, n)| Some((name.to_owned(), n.trim().parse().ok()?))).collect())
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.folder.join(file);
        fs::read_to_string(&path)
            .with_context(|| format!("cannot read {} (memory.peak: Linux 5.19)", path.display()))
    }
}

/// The path in a process' `/proc/<pid>/cgroup`, and whether it is of version 2 (cgroups(7)).
fn path(text: &str) -> Option<(&str, bool)> {
    let of = |wanted: fn(&str) -> bool| {
        text.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            wanted(controllers).then(|| path.trim_start_matches('/'))
        })
    };
    let version_1 = of(|controllers| controllers.split(',').any(|c| c == "memory")).map(|path| (path, false));
    version_1.or_else(|| of(str::is_empty).map(|path| (path, true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_memory_is_found_in_both_versions() {
        assert_eq!(path("0::/system.slice/docker-1.scope\n"), Some(("system.slice/docker-1.scope", true)));
        assert_eq!(path("9:name=systemd:/a\n4:cpu,memory:/docker/1\n0::/\n"), Some(("docker/1", false)));
        assert_eq!(path("9:name=systemd:/a\n"), None);
    }
}
