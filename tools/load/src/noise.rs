//! How much else goes on on this machine, before the load begins.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Refusal;

const NAP: Duration = Duration::from_millis(1);
/// A timer that wakes later than this (99 of 100) makes a measurement of some milliseconds worthless.
const LATE: f64 = 0.005;
/// More of all cores in use by others leaves too little for the shop and the load.
const BUSY: f64 = 0.3;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Noise {
    /// Seconds that a timer of 1 ms woke too late.
    pub late_p50: f64,
    pub late_p99: f64,
    pub late_max: f64,
    /// The share of all cores that was in use, 0 to 1; None where there is no /proc/stat.
    pub busy: Option<f64>,
    pub cores: usize,
}

impl Noise {
    /// Measures for so long. It blocks the thread.
    #[expect(clippy::disallowed_methods, reason = "it is the thread's sleep that is measured")]
    pub fn measure(time: Duration) -> Self {
        let (begin, before) = (Instant::now(), cpu());
        let mut late = Vec::new();
        while begin.elapsed() < time {
            let slept = Instant::now();
            std::thread::sleep(NAP);
            late.push(slept.elapsed().saturating_sub(NAP).as_secs_f64());
        }
        late.sort_by(f64::total_cmp);
        let at = |q: f64| late.get(((late.len() - 1) as f64 * q) as usize).copied().unwrap_or_default();
        let busy = before.zip(cpu()).and_then(|((busy, all), (busy_now, all_now))| {
            (all_now > all).then(|| (busy_now - busy) as f64 / (all_now - all) as f64)
        });
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { late_p50: at(0.5), late_p99: at(0.99), late_max: at(1.0), busy, cores }
    }

    /// In a sentence.
    pub fn text(&self) -> String {
        let busy = match self.busy {
            Some(busy) => format!("{:.0} % of {} cores in use", busy * 100.0, self.cores),
            None => "how busy the cores are is not known here".to_owned(),
        };
        format!(
            "a timer of 1 ms wakes {:.2} ms late (p99; at worst {:.1} ms), {busy}",
            self.late_p99 * 1e3,
            self.late_max * 1e3
        )
    }

    /// Whether this is a machine to measure on.
    ///
    /// # Errors
    /// a sentence with the limits when it is not.
    pub fn judge(&self) -> Result<(), Refusal> {
        if self.late_p99 <= LATE && self.busy.is_none_or(|busy| busy <= BUSY) {
            return Ok(());
        }
        Err(Refusal(format!(
            "this machine is too busy to measure on: {}; up to {:.0} ms and {:.0} % would do. --noisy runs all the same",
            self.text(),
            LATE * 1e3,
            BUSY * 100.0
        )))
    }
}

/// Ticks of all cores: in use, and all.
fn cpu() -> Option<(u64, u64)> {
    parse(&std::fs::read_to_string("/proc/stat").ok()?)
}

fn parse(stat: &str) -> Option<(u64, u64)> {
    let numbers = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // user nice system idle iowait irq softirq steal; guests are in user already.
    let ticks: Vec<u64> = numbers.split_whitespace().take(8).map_while(|n| n.parse().ok()).collect();
    let all: u64 = ticks.iter().sum();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((all - idle, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read() {
        assert_eq!(parse("cpu  10 1 5 80 4 0 0 0 7 0\ncpu0 1 1 1 1\n"), Some((16, 100)));
        assert_eq!(parse("nothing"), None);
    }

    #[test]
    fn a_quiet_machine_is_taken_and_a_busy_one_is_not() {
        let quiet = Noise { late_p50: 0.0001, late_p99: 0.0004, late_max: 0.02, busy: Some(0.1), cores: 2 };
        assert_eq!(quiet.judge(), Ok(()));
        assert_eq!(Noise { busy: None, ..quiet.clone() }.judge(), Ok(()));
        let late = Noise { late_p99: 0.012, ..quiet.clone() }.judge().unwrap_err();
        assert!(late.0.contains("12.00 ms late") && late.0.contains("--noisy"), "{late}");
        let busy = Noise { busy: Some(0.8), ..quiet }.judge().unwrap_err();
        assert!(busy.0.contains("80 % of 2 cores"), "{busy}");
    }

    #[test]
    fn it_is_measured() {
        let noise = Noise::measure(Duration::from_millis(50));
        assert!(noise.late_p50 <= noise.late_p99 && noise.late_p99 <= noise.late_max, "{noise:?}");
        assert!(noise.cores >= 1 && noise.busy.is_none_or(|busy| (0.0..=1.0).contains(&busy)), "{noise:?}");
    }
}
