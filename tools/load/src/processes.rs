//! CPU and memory of processes with their children, from /proc.

use std::fs;
use std::time::Instant;

use serde::Serialize;

/// Processes of a tree that are looked at; PostgreSQL has one for each connection.
const MOST: usize = 2000;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Process {
    pub name: String,
    pub samples: Vec<Sample>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Seconds since the run began.
    pub at: f64,
    /// Cores in use since the sample before, 1 being a whole one.
    pub cpu: f64,
    /// Bytes: what each process has to itself, and the largest part that one of them shares.
    pub memory: u64,
}

/// Samples some processes, and this one under the name `load`.
pub struct Watch {
    watched: Vec<Watched>,
    start: Instant,
}

struct Watched {
    pid: u32,
    process: Process,
    last: Option<(f64, u64)>,
}

impl Watch {
    /// None where there is no /proc.
    pub fn new(named: &[(String, u32)], start: Instant) -> Option<Self> {
        fs::metadata("/proc/self/stat").ok()?;
        let own = ("load".to_owned(), std::process::id());
        let watched = named.iter().cloned().chain([own]).map(|(name, pid)| Watched {
            pid,
            process: Process { name, samples: Vec::new() },
            last: None,
        });
        Some(Self { watched: watched.collect(), start })
    }

    /// Takes a sample of each. A process that is gone has none.
    pub fn sample(&mut self) {
        let a_second = rustix::param::clock_ticks_per_second() as f64;
        for watched in &mut self.watched {
            let at = self.start.elapsed().as_secs_f64();
            let Some((ticks, memory)) = tree(watched.pid) else {
                watched.last = None;
                continue;
            };
            if let Some((before, last)) = watched.last
                && at > before
            {
                let cpu = ticks.saturating_sub(last) as f64 / a_second / (at - before);
                watched.process.samples.push(Sample { at, cpu, memory });
            }
            watched.last = Some((at, ticks));
        }
    }

    pub fn finish(self) -> Vec<Process> {
        self.watched.into_iter().map(|watched| watched.process).collect()
    }
}

/// Ticks and bytes of a process and its children.
fn tree(root: u32) -> Option<(u64, u64)> {
    let page = rustix::param::page_size() as u64;
    let (mut ticks, mut private, mut shared) = (stat(root)?, 0, 0);
    let mut open = vec![root];
    let mut seen = 0;
    while let Some(pid) = open.pop() {
        if pid != root {
            ticks += stat(pid).unwrap_or_default();
        }
        if let Some((resident, of_others)) = statm(pid) {
            private += resident - of_others.min(resident);
            shared = of_others.max(shared);
        }
        seen += 1;
        if seen < MOST {
            open.extend(children(pid));
        }
    }
    Some((ticks, (private + shared) * page))
}

/// Ticks in use so far, those of children that ended included.
fn stat(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(4);
    Some(fields.map_while(|n| n.parse::<u64>().ok()).sum())
}

/// Pages in memory, and those of them that others may share.
fn statm(pid: u32) -> Option<(u64, u64)> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut fields = statm.split_whitespace().skip(1).map_while(|n| n.parse().ok());
    Some((fields.next()?, fields.next()?))
}

fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children")).unwrap_or_default();
    let lists = threads.map(of).collect::<Vec<_>>().join(" ");
    lists.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_to_work() {
        let Some(mut watch) = Watch::new(&[("gone".to_owned(), u32::MAX - 1)], Instant::now()) else {
            return;
        };
        watch.sample();
        let (begin, mut sum) = (Instant::now(), 0_u64);
        while begin.elapsed().as_millis() < 200 {
            sum = sum.wrapping_mul(31).wrapping_add(7);
        }
        watch.sample();
        let processes = watch.finish();
        assert_eq!((processes[0].name.as_str(), processes[0].samples.len()), ("gone", 0));
        let own = processes[1].samples[0];
        assert!(own.memory > 1 << 20 && own.cpu >= 0.0 && sum != 1, "{own:?}");
    }
}
