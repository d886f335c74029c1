//! The figures as text.

use std::fmt::Write;

use super::{Quantiles, Report};
use crate::record::Names;

/// `17`, `1.2 ms`, `3.41 s`.
pub(super) fn time(seconds: f64) -> String {
    match seconds {
        s if s <= 0.0 => "-".to_owned(),
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

pub(super) fn names(names: &Names) -> String {
    let parts: Vec<String> = names.iter().map(|(name, many)| format!("{many} {name}")).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

fn row(text: &mut String, name: &str, count: u64, rate: f64, times: &Quantiles, errors: &str) {
    let [p50, p90, p99, max] = [times.p50, times.p90, times.p99, times.max].map(time);
    let _ = writeln!(text, "{name:<10} {count:>8} {rate:>8.1} {p50:>9} {p90:>9} {p99:>9} {max:>9}  {errors}");
}

impl Report {
    /// As a table, a few lines, and the verdict.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{:<10} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9}  errors",
            "request", "count", "a second", "p50", "p90", "p99", "max"
        );
        for of in &self.requests {
            let errors = if of.errors.is_empty() { String::new() } else { names(&of.errors) };
            row(&mut text, of.kind, of.count, of.rate, &of.times, &errors);
        }
        let orders = &self.orders;
        let confirming = &orders.confirming;
        row(&mut text, "confirmed", orders.confirmed, orders.confirmed_per_second, confirming, "");
        let _ = writeln!(
            text,
            "\norders: {} placed, {} confirmed, {} in time neither confirmed nor cancelled; cancelled: {}; refused: {}",
            orders.placed,
            orders.confirmed,
            orders.unknown,
            names(&orders.cancelled),
            names(&orders.refused),
        );
        let own = &self.generator;
        let cpu = own.cpu.map_or_else(String::new, |cpu| format!(", {:.0} % of a core", cpu * 100.0));
        let _ = writeln!(
            text,
            "generator: {} shoppers due, {} begun, {} late (p99){cpu}; left out: {}; seed {}",
            own.offered,
            own.started,
            time(own.lag.p99),
            names(&own.dropped),
            self.plan.seed
        );
        if let Some(noise) = &self.noise {
            let _ = writeln!(text, "noise before: {}", noise.text());
        }
        if self.verdict.sought {
            text.push('\n');
            self.steps_text(&mut text);
        }
        for hint in &self.hints {
            let _ = writeln!(text, "hint: {hint}");
        }
        for line in self.verdict_lines() {
            let _ = writeln!(text, "{line}");
        }
        text
    }

    fn steps_text(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "{:<16} {:>9} {:>9} {:>9} {:>8} {:>9} {:>9}  too much?",
            "step", "offered/s", "request/s", "confirm/s", "errors", "p50", "p99"
        );
        for step in self.steps.iter().filter(|step| step.counts) {
            let _ = writeln!(
                text,
                "{:<16} {:>9.1} {:>9.1} {:>9.1} {:>6.1} % {:>9} {:>9}  {}",
                step.name,
                step.offered,
                step.requests,
                step.confirmed,
                step.errors,
                time(step.p50),
                time(step.p99),
                step.too_much.join("; ")
            );
        }
    }

    /// What it comes to, in a few sentences.
    pub(super) fn verdict_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.interrupted {
            lines.push("it was ended early".to_owned());
        }
        if self.noise.as_ref().is_some_and(|noise| noise.judge().is_err()) {
            lines
                .push("the machine was too busy to measure on: take the figures for a rough idea".to_owned());
        }
        if let Some(knee) = &self.verdict.knee {
            let unit = match self.plan.kind {
                crate::plan::Loop::Open => "arrivals a second",
                crate::plan::Loop::Closed => "shoppers at once",
            };
            lines.push(match self.steps.last().is_some_and(|last| last.name == *knee) {
                true => format!("no knee up to {knee} {unit}: the shop could take more"),
                false => format!("the knee is at {knee} {unit}"),
            });
        }
        lines.extend(self.verdict.over.iter().map(|why| format!("over a limit: {why}")));
        lines.extend(self.verdict.invalid.iter().map(|why| format!("NOT VALID: {why}")));
        if self.verdict.exit_code() == 0 {
            let limits = if self.verdict.sought { "" } else { ", and within its limits" };
            lines.push(format!("the run is valid{limits}"));
        }
        lines
    }
}
