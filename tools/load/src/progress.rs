//! The display of a run that is under way: in a terminal one line that is drawn anew, elsewhere a line every
//! ten seconds.

use std::io::{IsTerminal, Write};

use crate::plan::Plan;
use crate::record::Second;

/// Between two lines where there is no terminal, in seconds.
const SELDOM: u64 = 10;

pub struct Progress {
    terminal: bool,
    seen: u64,
    /// Names of the stages.
    stages: Vec<String>,
    length: f64,
}

impl Progress {
    pub fn new(plan: &Plan) -> Self {
        let terminal =
            std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let stages = plan.stages.iter().map(|stage| stage.name.clone()).collect();
        Self { terminal, seen: 0, stages, length: plan.length().as_secs_f64() }
    }

    pub fn show(&mut self, second: &Second) {
        self.seen += 1;
        if !self.terminal && !self.seen.is_multiple_of(SELDOM) {
            return;
        }
        let (begin, end) = if self.terminal { ("\r\x1b[K", "") } else { ("", "\n") };
        let mut out = std::io::stderr().lock();
        // Nobody may be watching.
        let _ = write!(out, "{begin}{}{end}", self.line(second));
        let _ = out.flush();
    }

    fn line(&self, second: &Second) -> String {
        let stage = self.stages.get(second.stage).map_or("", String::as_str);
        let stage = if second.at > self.length + 0.5 { "last ones" } else { stage };
        format!(
            "{:>4.0}/{:.0} s  {stage:<9}  arrive {:>5}/s  requests {:>6}/s  p50 {:>6.1} ms  p99 {:>7.1} ms  errors {:>4}/s  \
             confirmed {:>5}/s  backlog {:>4}  under way {:>4}",
            second.at,
            self.length,
            second.offered,
            second.answered,
            second.p50 * 1e3,
            second.p99 * 1e3,
            second.errors,
            second.confirmed,
            second.backlog,
            second.in_flight,
        )
    }

    /// Leaves the line that was drawn.
    pub fn end(&self) {
        if self.terminal {
            eprintln!();
        }
    }
}
