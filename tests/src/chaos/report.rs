//! What came of a run: as text, as JSON, and as one page of HTML with the run as it went.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::schedule::{Fault, Kind, Phases};
use super::watch::Sample;

/// One fault, as it went.
#[derive(Clone, Debug)]
pub struct Strike {
    pub fault: Fault,
    /// Since the plan's start.
    pub at: Duration,
    /// Why there was nothing to strike.
    pub missed: Option<String>,
    /// Its victim was struck again before it was over this one, which is then timed for both.
    pub again: bool,
    /// From the fault's end until its victim served again; None: it never did.
    pub serves: Option<Duration>,
    /// From the fault's end until an order placed after it was confirmed.
    pub sells: Option<Duration>,
}

impl Strike {
    fn is_timed(&self) -> bool {
        self.missed.is_none() && !self.again
    }

    /// From the fault's end until its victim served and orders came through.
    pub fn recovery(&self) -> Option<Duration> {
        Some(self.serves?.max(self.sells?))
    }
}

pub struct Outcome {
    pub seed: u64,
    pub clients: u64,
    /// Between the start of the samples' clock and that of the plan's.
    pub begun: Duration,
    pub phases: Phases,
    pub strikes: Vec<Strike>,
    pub samples: Vec<Sample>,
    /// Orders placed in each second.
    pub placed: Vec<u32>,
    pub wishes: usize,
    pub ordered: usize,
    /// From the last fault until nothing was under way.
    pub settled: Option<Duration>,
    /// Promises that were not kept.
    pub broken: Vec<String>,
}

/// A rest must see the shop as quick as before within this time.
const QUICK_AGAIN: usize = 10;
/// Seconds over which speed is measured.
const WINDOW: usize = 4;
const AS_QUICK: f64 = 0.9;
/// Seconds in which half of all kills are to be overcome, where there are many, and each of them.
const MEDIAN: f64 = 10.0;
const WORST: f64 = 30.0;
const MANY: usize = 30;

impl Outcome {
    fn second(&self, of_plan: Duration) -> usize {
        (self.begun + of_plan).as_secs_f64().ceil() as usize
    }

    fn mean(&self, from: usize, to: usize) -> f64 {
        let seconds = self.placed.get(from..to.min(self.placed.len())).unwrap_or_default();
        f64::from(seconds.iter().sum::<u32>()) / (seconds.len().max(1)) as f64
    }

    /// Orders a second before the first fault; the first seconds warm up.
    pub fn undisturbed(&self) -> f64 {
        self.mean(self.second(Duration::from_secs(3)), self.second(self.phases.warm_up))
    }

    /// The best window of each rest's first seconds.
    fn rests(&self) -> Vec<f64> {
        (0..self.phases.rounds)
            .map(|round| {
                let from = self.second(self.phases.start_of(round) + self.phases.round);
                (from..from + QUICK_AGAIN - WINDOW + 1)
                    .map(|start| self.mean(start, start + WINDOW))
                    .fold(0.0, f64::max)
            })
            .collect()
    }

    /// A shop that sells nothing keeps every promise: it also has to sell, and to go on after each fault.
    pub(super) fn judge_liveness(&mut self) {
        if self.undisturbed() == 0.0 {
            self.broken.push("nothing was sold before the first fault".to_owned());
        }
        for strike in self.strikes.iter().filter(|strike| strike.is_timed() && strike.recovery().is_none()) {
            self.broken.push(format!("never got over {}", name(&strike.fault)));
        }
    }

    /// Whether it went on as quickly as before. For a machine that does nothing else.
    pub fn judge_speed(&mut self) {
        let before = self.undisturbed();
        for (round, speed) in self.rests().into_iter().enumerate() {
            if speed < AS_QUICK * before {
                self.broken.push(format!(
                    "after round {} only {speed:.1} orders/s came back within {QUICK_AGAIN} s, of {before:.1} before",
                    round + 1
                ));
            }
        }
        let kills = self.recoveries(Some(Kind::Kill));
        // Of a handful, one server that is slow to start makes half.
        if kills.len() >= MANY && median(&kills) > MEDIAN {
            self.broken.push(format!("it took {:.1} s in the median to get over a kill", median(&kills)));
        }
        for slow in kills.iter().filter(|took| kills.len() >= MANY && **took > WORST) {
            self.broken.push(format!("it took {slow:.1} s to get over a kill"));
        }
    }

    fn recoveries(&self, kind: Option<Kind>) -> Vec<f64> {
        let struck = self.strikes.iter().filter(|strike| strike.is_timed());
        let struck = struck.filter(|strike| kind.is_none_or(|kind| strike.fault.kind == kind));
        let mut all: Vec<f64> = struck.filter_map(Strike::recovery).map(|took| took.as_secs_f64()).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    pub fn struck(&self, kind: Kind) -> usize {
        self.strikes.iter().filter(|strike| strike.missed.is_none() && strike.fault.kind == kind).count()
    }

    /// Seconds that the longest-waiting order waited for its payment.
    fn longest_pending(&self) -> f64 {
        self.samples.iter().filter_map(|sample| sample.oldest).fold(0.0, f64::max)
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |what: String| {
            let _ = writeln!(text, "{what}");
        };
        line(format!(
            "seed {}, {} clients, {:.0} s",
            self.seed,
            self.clients,
            self.phases.total().as_secs_f64()
        ));
        line(format!(
            "{} of {} requests for an order were granted; {:.1} orders/s undisturbed",
            self.ordered,
            self.wishes,
            self.undisturbed()
        ));
        for kind in Kind::ALL {
            let took = self.recoveries(Some(kind));
            let struck = self.struck(kind);
            if struck > 0 {
                let (median, worst) = (median(&took), took.last().copied().unwrap_or(f64::NAN));
                line(format!(
                    "  {:<9} {struck:>4} times, over it after {median:.1} s in the median, {worst:.1} s at worst",
                    kind.name()
                ));
            }
        }
        let missed = self.strikes.iter().filter(|strike| strike.missed.is_some()).count();
        if missed > 0 {
            line(format!("  {missed} found nothing to strike: their victim was just being started again"));
        }
        let again = self.strikes.iter().filter(|strike| strike.again).count();
        if again > 0 {
            line(format!("  {again} struck what was not over the one before, and were timed in its place"));
        }
        let rests: Vec<String> = self.rests().iter().map(|speed| format!("{speed:.1}")).collect();
        line(format!("orders/s in the rests: {}", rests.join(" ")));
        line(format!("the longest wait for a payment: {:.1} s", self.longest_pending()));
        match self.settled {
            Some(took) => line(format!("at rest {:.1} s after the last request", took.as_secs_f64())),
            None => line("never came to rest".to_owned()),
        }
        if self.broken.is_empty() {
            line("every promise was kept".to_owned());
        } else {
            line(format!("{} BROKEN PROMISES", self.broken.len()));
            self.broken.iter().take(100).for_each(|what| line(format!("  {what}")));
        }
        text
    }

    pub fn json(&self) -> Value {
        let strikes = self.strikes.iter().map(|strike| {
            json!({
                "at": strike.at.as_secs_f64(),
                "kind": strike.fault.kind.name(),
                "victim": strike.fault.victim,
                "lasts": strike.fault.lasts.as_secs_f64(),
                "jump": strike.fault.jump,
                "missed": strike.missed,
                "struck_again": strike.again,
                "serves_after": strike.serves.map(|took| took.as_secs_f64()),
                "sells_after": strike.sells.map(|took| took.as_secs_f64()),
            })
        });
        let samples = self
            .samples
            .iter()
            .map(|s| json!({"at": s.at, "events": s.events, "pending": s.pending, "oldest": s.oldest}));
        json!({
            "seed": self.seed,
            "clients": self.clients,
            "seconds": self.phases.total().as_secs_f64(),
            "asked": self.wishes,
            "ordered": self.ordered,
            "orders_per_second": {"undisturbed": self.undisturbed(), "rests": self.rests()},
            "recovery_seconds": {"median": median(&self.recoveries(None)), "worst": self.recoveries(None).last()},
            "longest_pending_seconds": self.longest_pending(),
            "settled_seconds": self.settled.map(|took| took.as_secs_f64()),
            "broken": self.broken,
            "strikes": strikes.collect::<Vec<_>>(),
            "placed": self.placed,
            "samples": samples.collect::<Vec<_>>(),
        })
    }

    /// Writes `report.txt`, `report.json` and `report.html`.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::write(folder.join("report.txt"), self.text())?;
        std::fs::write(folder.join("report.json"), format!("{:#}\n", self.json()))?;
        std::fs::write(folder.join("report.html"), self.html())
    }

    /// One page without scripts: two curves over the run, and a mark for each fault.
    pub fn html(&self) -> String {
        let seconds = (self.placed.len().max(1)) as f64;
        let x = |second: f64| 50.0 + second / seconds * 1100.0;
        let top = f64::from(self.placed.iter().copied().max().unwrap_or(1).max(1));
        let speed = curve(
            self.placed.iter().enumerate().map(|(at, n)| (x(at as f64), 160.0 - f64::from(*n) / top * 140.0)),
        );
        let most = self.samples.iter().filter_map(|s| s.events).max().unwrap_or(1).max(1) as f64;
        let events =
            self.samples.iter().filter_map(|s| Some((x(s.at), 340.0 - s.events? as f64 / most * 140.0)));
        let pending = self.samples.iter().filter_map(|s| s.oldest.map(|oldest| (s.at, oldest)));
        let longest = self.longest_pending().max(1.0);
        let pending = curve(pending.map(|(at, oldest)| (x(at), 520.0 - oldest / longest * 140.0)));
        let mut marks = String::new();
        for strike in self.strikes.iter().filter(|strike| strike.missed.is_none()) {
            let at = x((self.begun + strike.at).as_secs_f64());
            let width = (strike.fault.lasts.as_secs_f64() / seconds * 1100.0).max(1.5);
            let over = match strike.recovery() {
                Some(took) => format!("over it after {:.1} s", took.as_secs_f64()),
                None if strike.again => "struck again before it was over it".to_owned(),
                None => "never over it".to_owned(),
            };
            let _ = write!(
                marks,
                "<rect class=\"{}\" x=\"{at:.1}\" y=\"10\" width=\"{width:.1}\" height=\"510\"><title>{} at {:.1} s, {over}</title></rect>",
                strike.fault.kind.name(),
                escape(&name(&strike.fault)),
                strike.at.as_secs_f64(),
            );
        }
        let mut rests = String::new();
        for round in 0..self.phases.rounds {
            let from = x((self.begun + self.phases.start_of(round) + self.phases.round).as_secs_f64());
            let width = self.phases.rest.as_secs_f64() / seconds * 1100.0;
            let _ = write!(
                rests,
                "<rect class=\"rest\" x=\"{from:.1}\" y=\"10\" width=\"{width:.1}\" height=\"510\"/>"
            );
        }
        let verdict = if self.broken.is_empty() { "Every promise was kept" } else { "Promises were broken" };
        format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Dockside: run {seed}</title><style>{STYLE}</style>\
             <h1>{verdict}</h1><pre>{text}</pre><svg viewBox=\"0 0 1180 560\" role=\"img\" aria-label=\"The run over time\">{rests}{marks}\
             <path class=\"speed\" d=\"{speed}\"/><path class=\"events\" d=\"{events}\"/><path class=\"wait\" d=\"{pending}\"/>\
             <text x=\"50\" y=\"175\">orders placed a second, up to {top}</text><text x=\"50\" y=\"355\">events waiting, up to {most}</text>\
             <text x=\"50\" y=\"535\">seconds that the oldest unpaid order waits, up to {longest:.1}; the run took {seconds:.0} s</text></svg>\
             <p><span class=\"key kill\"></span>kill <span class=\"key pause\"></span>pause <span class=\"key restart\"></span>restart \
             <span class=\"key sever\"></span>sever <span class=\"key stall\"></span>stall <span class=\"key slow\"></span>slow \
             <span class=\"key repeat\"></span>repeat, backlog, poison, webhooks <span class=\"key clock\"></span>clock <span class=\"key rest\"></span>rest</p></html>\n",
            seed = self.seed,
            text = escape(&self.text()),
            events = curve(events),
        )
    }
}

pub(super) const STYLE: &str = "body{font:15px/1.4 system-ui,sans-serif;max-width:1200px;margin:2em auto;padding:0 1em;color:#222}\
    svg{width:100%}path{fill:none;stroke-width:1.5}.speed{stroke:#0a58ca}.events{stroke:#b35900}.wait{stroke:#6f42c1}\
    text{font-size:13px;fill:#444}rect{opacity:.35}.kill{fill:#d00;background:#d00}.pause{fill:#e80;background:#e80}\
    .restart{fill:#fb0;background:#fb0}.sever{fill:#a0a;background:#a0a}.stall{fill:#66c;background:#66c}.slow{fill:#6ac;background:#6ac}\
    .repeat,.backlog,.poison,.webhooks{fill:#393;background:#393}.clock{fill:#840;background:#840}.rest{fill:#cfc;background:#cfc}\
    .key{display:inline-block;width:1em;height:1em;margin:0 .3em 0 1em;opacity:.6;vertical-align:-2px}";

fn name(fault: &Fault) -> String {
    match fault.kind {
        Kind::Clock => format!("clock {} {:+} s", fault.victim, fault.jump),
        kind => format!("{} {}", kind.name(), fault.victim).trim_end().to_owned(),
    }
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

pub(super) fn curve(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut path = String::new();
    for (n, (x, y)) in points.enumerate() {
        let _ = write!(path, "{}{x:.1} {y:.1}", if n == 0 { "M" } else { "L" });
    }
    path
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten orders a second, but none while faults strike, and `after` in the rest.
    fn outcome(after: u32) -> Outcome {
        let phases = Phases::within(Duration::from_secs(72));
        let placed = (0..phases.total().as_secs())
            .map(|second| {
                let second = Duration::from_secs(second);
                if second < phases.warm_up {
                    10
                } else if second < phases.start_of(0) + phases.round {
                    0
                } else {
                    after
                }
            })
            .collect();
        let fault = Fault {
            at: Duration::from_secs(13),
            kind: Kind::Kill,
            victim: "order".to_owned(),
            lasts: Duration::ZERO,
            jump: 0,
        };
        let strike = Strike {
            at: fault.at,
            fault,
            missed: None,
            again: false,
            serves: Some(Duration::from_secs(1)),
            sells: Some(Duration::from_secs(2)),
        };
        let mut outcome = Outcome {
            seed: 1,
            clients: 1,
            begun: Duration::ZERO,
            phases,
            strikes: vec![strike],
            samples: vec![Sample { at: 1.0, events: Some(3), pending: Some(1), oldest: Some(0.5) }],
            placed,
            wishes: 1,
            ordered: 1,
            settled: Some(Duration::from_secs(1)),
            broken: vec![],
        };
        outcome.judge_liveness();
        outcome
    }

    #[test]
    fn a_shop_that_is_not_as_quick_again_breaks_a_promise_where_speed_is_judged() {
        assert!(outcome(1).broken.is_empty(), "{:?}", outcome(1).broken);
        let judged = |after| {
            let mut outcome = outcome(after);
            outcome.judge_speed();
            outcome.broken
        };
        assert_eq!([judged(10), judged(9)].concat(), Vec::<String>::new());
        assert!(judged(8)[0].contains("8.0 orders/s"));
    }

    #[test]
    fn a_fault_that_nobody_got_over_breaks_a_promise() {
        let mut outcome = outcome(10);
        outcome.strikes[0].sells = None;
        outcome.judge_liveness();
        assert_eq!(outcome.broken, ["never got over kill order"]);
    }

    #[test]
    fn who_is_struck_again_is_timed_by_the_last_fault() {
        let mut outcome = outcome(10);
        let mut first = outcome.strikes[0].clone();
        (first.again, first.serves, first.sells) = (true, None, None);
        outcome.strikes.push(first);
        outcome.judge_liveness();
        assert!(outcome.broken.is_empty(), "{:?}", outcome.broken);
        assert!(outcome.text().contains("kill         2 times, over it after 2.0 s"), "{}", outcome.text());
        assert!(outcome.text().contains("1 struck what was not over"), "{}", outcome.text());
    }

    #[test]
    fn the_report_says_what_was_broken_and_quotes_it_safely() {
        let mut outcome = outcome(10);
        assert!(outcome.text().contains("kill         1 times, over it after 2.0 s"), "{}", outcome.text());
        assert!(
            outcome.html().contains("Every promise was kept") && outcome.html().contains("class=\"kill\"")
        );
        outcome.broken.push("<b>".to_owned());
        assert!(outcome.html().contains("&lt;b&gt;") && !outcome.html().contains("<b>"));
        assert_eq!(outcome.json()["broken"][0], "<b>");
    }
}
