//! What processes have used: CPU time of each and of all that it started, and memory.

use std::collections::BTreeMap;
use std::fs;

/// Seconds of CPU time by name.
pub struct Work(BTreeMap<String, f64>);

/// Of one line of `/proc/PID/stat`: parent, ticks of its own and ticks of children that have ended.
struct Stat {
    parent: u32,
    ticks: u64,
}

impl Work {
    /// So far, of these processes with all their descendants.
    pub fn of<'a>(roots: impl Iterator<Item = (&'a str, u32)>) -> Work {
        let all: BTreeMap<u32, Stat> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                Some((pid, parse(&fs::read_to_string(entry.path().join("stat")).ok()?)?))
            })
            .collect();
        let descends = |mut pid: u32, root: u32| {
            // A process table that changes while it is read may have a circle.
            for _ in 0..64 {
                if pid == root {
                    return true;
                }
                match all.get(&pid) {
                    Some(stat) if stat.parent > 1 => pid = stat.parent,
                    _ => return false,
                }
            }
            false
        };
        let tick = 1.0 / rustix::param::clock_ticks_per_second() as f64;
        let used = |root: u32| {
            let ticks: u64 =
                all.iter().filter(|(pid, _)| descends(**pid, root)).map(|(_, stat)| stat.ticks).sum();
            ticks as f64 * tick
        };
        Work(roots.map(|(name, pid)| (name.to_owned(), used(pid))).collect())
    }

    /// Seconds by name since an earlier reading.
    pub fn since(&self, before: &Work) -> Vec<(String, f64)> {
        let earlier = |name: &String| before.0.get(name).copied().unwrap_or(0.0);
        self.0.iter().map(|(name, seconds)| (name.clone(), (seconds - earlier(name)).max(0.0))).collect()
    }
}

/// <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>
fn parse(stat: &str) -> Option<Stat> {
    // The name in parentheses may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = (11..=14).map(|at| fields.get(at)?.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks })
}

/// A process's own memory (resident, shared pages divided among those who share them), in MiB.
pub fn memory_mib(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat = parse("7 (a) b (c) S 3 7 7 0 -1 4194560 100 0 0 0 20 5 2 1 20 0 1 0 9 1 1").unwrap();
        assert_eq!((stat.parent, stat.ticks), (3, 28));
        assert!(parse("nonsense").is_none());
    }

    #[test]
    fn work_is_counted_from_one_reading_to_the_next() {
        let (before, after) = (Work(BTreeMap::new()), Work([("x".to_owned(), 2.0)].into()));
        assert_eq!(after.since(&before), [("x".to_owned(), 2.0)]);
        assert_eq!(before.since(&after), []);
    }
}
