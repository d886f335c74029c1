//! The figures of a run: as a table, as JSON, and as one page with plots.

mod html;
mod plot;
mod table;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::generator::Outcome;
use crate::noise::Noise;
use crate::plan::Plan;
use crate::processes::Process;
use crate::record::{Kind, Names, Second, Times, quantile};
use crate::verdict::{self, Step, Verdict};

/// All that is known of a run. Times are in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The shape of this document.
    pub version: u32,
    pub url: String,
    /// When it ended, in seconds since 1970.
    pub ended_at: u64,
    pub took: f64,
    pub interrupted: bool,
    pub plan: Plan,
    pub noise: Option<Noise>,
    pub verdict: Verdict,
    pub steps: Vec<Step>,
    pub requests: Vec<Requests>,
    pub orders: Orders,
    /// Shoppers by what they came for.
    pub journeys: BTreeMap<&'static str, u64>,
    pub generator: OwnWork,
    pub seconds: Vec<Second>,
    pub histogram: Vec<Bar>,
    /// None where there is no /proc.
    pub processes: Option<Vec<Process>>,
    /// Advice on errors that have a usual cause.
    pub hints: Vec<String>,
}

/// One kind of request, in the stages that count.
#[derive(Clone, Debug, Serialize)]
pub struct Requests {
    pub kind: &'static str,
    pub count: u64,
    /// Answered a second.
    pub rate: f64,
    pub errors: Names,
    #[serde(flatten)]
    pub times: Quantiles,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Quantiles {
    pub fn of(times: &Times) -> Self {
        let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|q| quantile(times, q));
        Self { p50, p90, p99, max }
    }
}

/// What became of orders in the stages that count.
#[derive(Clone, Debug, Serialize)]
pub struct Orders {
    pub placed: u64,
    /// Read `confirmed` back.
    pub confirmed: u64,
    pub cancelled: Names,
    pub refused: Names,
    /// Neither confirmed nor cancelled in time.
    pub unknown: u64,
    /// Read `confirmed` back while shoppers came, a second.
    pub confirmed_per_second: f64,
    /// From when an order was due until it read `confirmed`.
    pub confirming: Quantiles,
}

/// What the generator itself did.
#[derive(Clone, Debug, Serialize)]
pub struct OwnWork {
    pub offered: u64,
    pub started: u64,
    pub dropped: Names,
    /// How late it began shoppers.
    pub lag: Quantiles,
    /// Of one core; None where there is no /proc.
    pub cpu: Option<f64>,
    /// Sign-ins that could not be renewed.
    pub sign_ins: Names,
}

/// Requests that took up to so long, and longer than the bar before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bar {
    pub up_to: f64,
    pub count: u64,
}

impl Report {
    pub fn new(url: &str, outcome: Outcome, noise: Option<Noise>, processes: Option<Vec<Process>>) -> Self {
        let steps = verdict::steps(&outcome);
        let verdict = verdict::verdict(&outcome, &steps);
        let hints = hints(&outcome);
        let Outcome { plan, counts, took, interrupted, .. } = outcome;
        let counting: Vec<bool> = plan.stages.iter().map(|stage| stage.counts).collect();
        let end = plan.length().as_secs_f64() + 0.5;
        let counted = || counts.seconds.iter().filter(|s| counting[s.stage] && s.at <= end);
        let time = (counted().count() as f64).max(1.0);
        let requests = Kind::ALL.iter().zip(&counts.kinds).filter(|(_, of)| !of.times.is_empty());
        let requests = requests.map(|(kind, of)| Requests {
            kind: kind.name(),
            count: of.times.len(),
            rate: of.times.len() as f64 / time,
            errors: of.errors.clone(),
            times: Quantiles::of(&of.times),
        });
        let mut dropped = Names::new();
        for (stage, _) in counts.stages.iter().zip(&counting).filter(|(_, counts)| **counts) {
            for (why, many) in &stage.dropped {
                *dropped.entry(why.clone()).or_default() += many;
            }
        }
        let own = processes.iter().flatten().find(|process| process.name == "load");
        let cpu = own
            .filter(|own| !own.samples.is_empty())
            .map(|own| own.samples.iter().map(|sample| sample.cpu).sum::<f64>() / own.samples.len() as f64);
        Self {
            version: 1,
            url: url.to_owned(),
            ended_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            took: took.as_secs_f64(),
            interrupted,
            noise,
            verdict,
            steps,
            requests: requests.collect(),
            orders: Orders {
                placed: counts.sum(&counting, |stage| stage.placed),
                confirmed: counts.sum(&counting, |stage| stage.confirmed),
                cancelled: counts.cancelled.clone(),
                refused: counts.refused.clone(),
                unknown: counts.unknown,
                confirmed_per_second: counted().map(|s| s.confirmed).sum::<u64>() as f64 / time,
                confirming: Quantiles::of(&counts.merged(&counting, |stage| &stage.confirming)),
            },
            journeys: counts.journeys.clone(),
            generator: OwnWork {
                offered: counts.sum(&counting, |stage| stage.offered),
                started: counts.sum(&counting, |stage| stage.started),
                dropped,
                lag: Quantiles::of(&counts.merged(&counting, |stage| &stage.lag)),
                cpu,
                sign_ins: counts.sign_ins.clone(),
            },
            histogram: bars(&counts.all_times()),
            seconds: counts.seconds,
            processes,
            hints,
            plan,
        }
    }

    /// Makes the folder of a report, and checks that it can be written: better before the run than after.
    ///
    /// # Errors
    /// when it cannot be made or written.
    pub fn make_folder(folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let probe = folder.join(".writable");
        std::fs::write(&probe, b"x")?;
        std::fs::remove_file(probe)
    }

    /// Writes `load.json` and `load.html` into a folder that is there.
    ///
    /// # Errors
    /// when the folder cannot be written.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        std::fs::write(folder.join("load.json"), json)?;
        std::fs::write(folder.join("load.html"), self.html())
    }
}

/// Bars of which each is a quarter longer in time than the one before.
fn bars(times: &Times) -> Vec<Bar> {
    if times.is_empty() {
        return Vec::new();
    }
    let mut bars: Vec<Bar> = Vec::new();
    let mut up_to = 100.0_f64;
    while up_to < times.min() as f64 {
        up_to *= 1.25;
    }
    let mut from = 0;
    while from < times.max() && bars.len() < 100 {
        let to = up_to as u64;
        bars.push(Bar { up_to: up_to / 1e6, count: times.count_between(from + 1, to) });
        (from, up_to) = (to, up_to * 1.25);
    }
    bars
}

/// What to do about errors that have a usual cause.
fn hints(outcome: &Outcome) -> Vec<String> {
    let counts = &outcome.counts;
    let errors = |name: &str| counts.kinds.iter().filter_map(|kind| kind.errors.get(name)).sum::<u64>();
    let mut hints = Vec::new();
    if errors("rate_limited") > 0 {
        hints.push(
            "rate_limited: the edge takes EDGE_RATE requests a second from one address (2,000 when it is not set, with EDGE_BURST \
             on top), and 1,000 at the same time. Set them in the environment of `cargo dockside up`"
                .to_owned(),
        );
    }
    if counts.sign_ins.contains_key("rate_limited") {
        hints.push("sign-ins could not be renewed in time: raise EDGE_AUTH_RATE in the environment of `cargo dockside up`".to_owned());
    }
    if errors("service_unavailable") > 0 {
        hints.push(
            "service_unavailable: the shop refuses what it could not serve in time, as when 128 orders wait to be paid".to_owned(),
        );
    }
    let sold_out = counts.refused.get("out_of_stock").copied().unwrap_or_default();
    if sold_out > 0 {
        hints.push(format!(
            "out_of_stock: products ran out, and {} are left to buy; `--prepare 50` makes some that last",
            outcome.on_sale
        ));
    }
    hints
}
