//! What came of a run on a cluster, fault by fault: as text, as JSON, and as a page.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::plan::Fault;
use super::witness::Delay;
use crate::chaos::report::{STYLE, curve, escape};

/// Seconds until the first new order is confirmed, and until all accepted orders have ended, from when a primary could be written
/// to again; and until `/readyz` says what is true.
const FIRST: f64 = 5.0;
const ENDED: f64 = 30.0;
const READINESS_LIMIT: f64 = 3.0;

/// One fault, as it went. All in seconds.
#[derive(Clone, Debug)]
pub struct Strike {
    pub fault: Fault,
    pub victim: String,
    /// Since the start of the run.
    pub at: f64,
    pub lasted: f64,
    /// Why it could not be made.
    pub failed: Option<String>,
    /// From the fault until a primary could be written to again; 0: all the time. None: never.
    pub reachable: Option<f64>,
    /// From then until the first order that was placed after it was confirmed.
    pub first: Option<f64>,
    /// From then until all orders of before had ended.
    pub ended: Option<f64>,
    /// The longest time without a confirmed order since the fault.
    pub pause: Option<f64>,
    /// Until the slowest replica said that it can't write, and that it can; None: there was nothing to say.
    pub away: Option<Delay>,
    pub back: Option<Delay>,
    /// From the fault until all servers did their parts again.
    pub whole: Option<f64>,
    /// New timelines.
    pub promotions: i64,
    /// Orders that only the old primary had, when it could be asked.
    pub diverged: Option<usize>,
    pub notes: Vec<String>,
    pub wrong: Vec<String>,
}

impl Strike {
    pub fn new(fault: Fault, victim: String, at: f64) -> Self {
        Self {
            fault,
            victim,
            at,
            lasted: 0.0,
            failed: None,
            reachable: None,
            first: None,
            ended: None,
            pause: None,
            away: None,
            back: None,
            whole: None,
            promotions: 0,
            diverged: None,
            notes: Vec::new(),
            wrong: Vec::new(),
        }
    }

    fn name(&self) -> String {
        format!("{} {}", self.fault, self.victim).trim_end().to_owned()
    }

    /// What it broke; speeds count where they are `timed`.
    pub fn broken(&self, timed: bool) -> Vec<String> {
        let name = self.name();
        let mut broken: Vec<String> = self.wrong.iter().map(|what| format!("{name}: {what}")).collect();
        if let Some(why) = &self.failed {
            broken.push(format!("{name} could not be made: {why}"));
            return broken;
        }
        let mut limit = |what: &str, took: Option<f64>, most: f64| match took {
            None => broken.push(format!("{name}: {what}: never")),
            Some(took) if timed && took > most => {
                broken.push(format!("{name}: {what}: after {took:.1} s, not {most} s"));
            }
            Some(_) => {}
        };
        limit("a primary can be written to", self.reachable, f64::INFINITY);
        limit("the first new order is confirmed", self.first, FIRST);
        limit("all accepted orders have ended", self.ended, ENDED);
        for (what, delay) in [("away", self.away), ("back", self.back)] {
            match delay {
                None => {}
                Some(Delay::Never) if !timed && what == "away" => {}
                Some(Delay::Never) => {
                    limit(&format!("/readyz says that the database is {what}"), None, READINESS_LIMIT)
                }
                Some(Delay::After(took)) => {
                    let took = Some(took.as_secs_f64());
                    limit(&format!("/readyz says that the database is {what}"), took, READINESS_LIMIT);
                }
            }
        }
        broken
    }

    pub fn line(&self) -> String {
        if let Some(why) = &self.failed {
            return format!("{:>6.0} s  {:<28} could not be made: {why}", self.at, self.name());
        }
        let mut line = format!(
            "{:>6.0} s  {:<28} writable after {}, first order {}, all ended {}, no order for {}, readyz {} / {}, whole after {}",
            self.at,
            self.name(),
            seconds(self.reachable),
            seconds(self.first),
            seconds(self.ended),
            seconds(self.pause),
            delay(self.away),
            delay(self.back),
            seconds(self.whole),
        );
        if self.promotions > 0 {
            let _ = write!(line, ", {} new timeline(s)", self.promotions);
        }
        if let Some(diverged) = self.diverged {
            let _ = write!(line, ", {diverged} orders only on the old primary");
        }
        for note in &self.notes {
            let _ = write!(line, "\n            {note}");
        }
        line
    }

    fn json(&self) -> Value {
        let delay = |delay: Option<Delay>| match delay {
            None => Value::Null,
            Some(Delay::Never) => json!("never"),
            Some(Delay::After(took)) => json!(took.as_secs_f64()),
        };
        json!({
            "fault": self.fault.to_string(),
            "victim": self.victim,
            "at": self.at,
            "lasted": self.lasted,
            "failed": self.failed,
            "writable_after": self.reachable,
            "first_order_after": self.first,
            "all_ended_after": self.ended,
            "longest_without_an_order": self.pause,
            "readyz_away_after": delay(self.away),
            "readyz_back_after": delay(self.back),
            "whole_after": self.whole,
            "promotions": self.promotions,
            "only_on_the_old_primary": self.diverged,
            "notes": self.notes,
            "broken": self.wrong,
        })
    }
}

fn seconds(took: Option<f64>) -> String {
    took.map_or_else(|| "never".to_owned(), |took| format!("{took:.1} s"))
}

fn delay(delay: Option<Delay>) -> String {
    match delay {
        None => "-".to_owned(),
        Some(Delay::Never) => "never".to_owned(),
        Some(Delay::After(took)) => seconds(Some(took.as_secs_f64())),
    }
}

pub struct Outcome {
    pub seed: u64,
    pub clients: u64,
    pub seconds: f64,
    pub strikes: Vec<Strike>,
    /// Orders placed in each second.
    pub placed: Vec<u32>,
    pub wishes: usize,
    pub ordered: usize,
    /// Writes beside the shop that were confirmed.
    pub witnessed: usize,
    /// From the last fault until nothing was under way.
    pub settled: Option<Duration>,
    /// Promises that were not kept.
    pub broken: Vec<String>,
}

impl Outcome {
    /// By fault: how often, and the median and the worst of the time until it could be written, the first order, and all ended.
    fn table(&self) -> String {
        let mut by_fault: BTreeMap<Fault, Vec<&Strike>> = BTreeMap::new();
        for strike in self.strikes.iter().filter(|strike| strike.failed.is_none()) {
            by_fault.entry(strike.fault).or_default().push(strike);
        }
        let mut table = format!(
            "{:<24} {:>5}  {:>15} {:>15} {:>15} {:>15} {:>15}   (seconds: median / worst)\n",
            "fault", "times", "writable after", "first order", "all ended", "no order for", "readyz"
        );
        for (fault, strikes) in by_fault {
            let of = |value: fn(&Strike) -> Option<f64>| {
                let mut all: Vec<f64> =
                    strikes.iter().map(|strike| value(strike).unwrap_or(f64::INFINITY)).collect();
                all.sort_by(f64::total_cmp);
                pair(all[all.len() / 2], all[all.len() - 1])
            };
            let slower = |strike: &Strike| {
                let all = [strike.away, strike.back].into_iter().flatten().map(|delay| match delay {
                    Delay::After(took) => took.as_secs_f64(),
                    Delay::Never => f64::INFINITY,
                });
                Some(all.fold(0.0, f64::max))
            };
            let _ = writeln!(
                table,
                "{:<24} {:>5}  {:>15} {:>15} {:>15} {:>15} {:>15}",
                fault.to_string(),
                strikes.len(),
                of(|strike| strike.reachable),
                of(|strike| strike.first),
                of(|strike| strike.ended),
                of(|strike| strike.pause),
                of(slower),
            );
        }
        table
    }

    pub fn text(&self) -> String {
        let mut text = format!(
            "seed {}, {} clients, {} faults in {:.0} s\n{} of {} requests for an order were granted; {} writes beside the shop were confirmed\n\n",
            self.seed,
            self.clients,
            self.strikes.len(),
            self.seconds,
            self.ordered,
            self.wishes,
            self.witnessed,
        );
        text += &self.table();
        text.push('\n');
        for strike in &self.strikes {
            let _ = writeln!(text, "{}", strike.line());
        }
        let _ = match self.settled {
            Some(took) => writeln!(text, "\nat rest {:.1} s after the last request", took.as_secs_f64()),
            None => writeln!(text, "\nnever came to rest"),
        };
        if self.broken.is_empty() {
            text.push_str("every promise was kept\n");
        } else {
            let _ = writeln!(text, "{} BROKEN PROMISES", self.broken.len());
            for what in self.broken.iter().take(100) {
                let _ = writeln!(text, "  {what}");
            }
        }
        text
    }

    pub fn json(&self) -> Value {
        json!({
            "seed": self.seed,
            "clients": self.clients,
            "seconds": self.seconds,
            "asked": self.wishes,
            "ordered": self.ordered,
            "witnessed": self.witnessed,
            "settled_seconds": self.settled.map(|took| took.as_secs_f64()),
            "broken": self.broken,
            "strikes": self.strikes.iter().map(Strike::json).collect::<Vec<_>>(),
            "placed": self.placed,
        })
    }

    /// Writes `report.txt`, `report.json` and `report.html`.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::write(folder.join("report.txt"), self.text())?;
        std::fs::write(folder.join("report.json"), format!("{:#}\n", self.json()))?;
        std::fs::write(folder.join("report.html"), self.html())
    }

    /// One page without scripts: orders over time, and each fault as long as it lasted.
    pub fn html(&self) -> String {
        let length = self.placed.len().max(1) as f64;
        let x = |second: f64| 50.0 + second / length * 1100.0;
        let top = f64::from(self.placed.iter().copied().max().unwrap_or(1).max(1));
        let speed = curve(
            self.placed.iter().enumerate().map(|(at, n)| (x(at as f64), 260.0 - f64::from(*n) / top * 240.0)),
        );
        let mut marks = String::new();
        for strike in &self.strikes {
            let width = (strike.lasted / length * 1100.0).max(1.5);
            let _ = write!(
                marks,
                "<rect class=\"kill\" x=\"{:.1}\" y=\"10\" width=\"{width:.1}\" height=\"250\"><title>{}</title></rect>",
                x(strike.at),
                escape(&strike.line()),
            );
        }
        let verdict = if self.broken.is_empty() { "Every promise was kept" } else { "Promises were broken" };
        format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Dockside on a cluster: run {}</title><style>{STYLE}</style>\
             <h1>{verdict}</h1><svg viewBox=\"0 0 1180 300\" role=\"img\" aria-label=\"The run over time\">{marks}\
             <path class=\"speed\" d=\"{speed}\"/><text x=\"50\" y=\"280\">orders placed a second, up to {top}; the run took {length:.0} s; \
             a bar for each fault</text></svg><pre>{}</pre></html>\n",
            self.seed,
            escape(&self.text()),
        )
    }
}

fn pair(median: f64, worst: f64) -> String {
    let number = |value: f64| if value.is_finite() { format!("{value:.1}") } else { "never".to_owned() };
    format!("{} / {}", number(median), number(worst))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strike() -> Strike {
        let fault = Fault::parse("freeze-primary").unwrap();
        Strike {
            reachable: Some(11.0),
            first: Some(1.0),
            ended: Some(4.0),
            pause: Some(13.0),
            away: Some(Delay::After(Duration::from_secs(2))),
            whole: Some(30.0),
            ..Strike::new(fault, "db1".to_owned(), 5.0)
        }
    }

    fn outcome(strike: Strike) -> Outcome {
        Outcome {
            seed: 1,
            clients: 2,
            seconds: 60.0,
            broken: strike.broken(true),
            strikes: vec![strike],
            placed: vec![1, 0, 2],
            wishes: 3,
            ordered: 3,
            witnessed: 9,
            settled: None,
        }
    }

    #[test]
    fn a_shop_that_never_sold_again_breaks_a_promise_and_a_slow_one_where_speeds_are_promised() {
        assert!(strike().broken(true).is_empty());
        let slow = Strike { first: Some(6.0), ..strike() };
        assert!(slow.broken(false).is_empty() && slow.broken(true)[0].contains("after 6.0 s, not 5 s"));
        let never = Strike { ended: None, ..strike() };
        assert!(never.broken(false)[0].contains("never"), "{:?}", never.broken(false));
        let blind = Strike { away: Some(Delay::Never), ..strike() };
        assert!(blind.broken(false).is_empty() && blind.broken(true)[0].contains("away: never"));
    }

    #[test]
    fn each_fault_has_its_row_and_its_line() {
        let outcome = outcome(strike());
        let text = outcome.text();
        assert!(text.contains("freeze-primary               1      11.0 / 11.0       1.0 / 1.0"), "{text}");
        assert!(text.contains("freeze-primary db1") && text.contains("every promise was kept"));
        assert!(outcome.html().contains("freeze-primary db1"));
        assert_eq!(outcome.json()["strikes"][0]["first_order_after"], 1.0);
    }
}
