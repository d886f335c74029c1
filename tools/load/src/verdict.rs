//! What a run says: whether it is valid, whether limits were passed, and at which step the shop had enough.

use serde::Serialize;

use crate::generator::Outcome;
use crate::plan::Loop;
use crate::record::{Second, StageCount, quantile};

/// Of a hundred shoppers, how many the generator may leave out.
const LEFT_OUT: f64 = 1.0;
/// The share of what was asked for that has to be done in the same time.
const FOLLOWS: f64 = 0.95;
/// By how much more a further step in closed loop has to bring.
const GAINS: f64 = 1.05;

/// A stage, judged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    pub name: String,
    pub counts: bool,
    /// Shoppers who were due, a second.
    pub offered: f64,
    /// Requests that were answered, a second.
    pub requests: f64,
    /// Orders that read `confirmed` back, a second.
    pub confirmed: f64,
    /// Of a hundred requests.
    pub errors: f64,
    /// Seconds, of all requests.
    pub p50: f64,
    pub p99: f64,
    /// Seconds from when an order was due until it read `confirmed`.
    pub confirming_p50: f64,
    pub confirming_p99: f64,
    /// Seconds that the generator itself began late.
    pub lag_p99: f64,
    /// Why it was too much for the shop; empty when it was not.
    pub too_much: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Why the figures are not to be used; empty when they are.
    pub invalid: Vec<String>,
    /// Limits that were passed.
    pub over: Vec<String>,
    /// The last step before the first that was too much; None without steps, or when the first was already.
    pub knee: Option<String>,
    /// Whether there were steps to look for a knee.
    pub sought: bool,
}

impl Verdict {
    /// 0 when all is well, 1 when a limit was passed, 2 when the run is not valid.
    pub fn exit_code(&self) -> u8 {
        match (self.invalid.is_empty(), self.over.is_empty()) {
            (false, _) => 2,
            (true, false) => 1,
            (true, true) => 0,
        }
    }
}

fn ms(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

fn percent(of: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { of as f64 * 100.0 / all as f64 }
}

/// Judges each stage.
pub fn steps(outcome: &Outcome) -> Vec<Step> {
    let mut before = None;
    let judged = outcome.plan.stages.iter().zip(&outcome.counts.stages).enumerate();
    judged
        .map(|(n, (stage, count))| {
            let end = outcome.plan.length().as_secs_f64() + 0.5;
            let all = &outcome.counts.seconds;
            let seconds: Vec<&Second> = all.iter().filter(|s| s.stage == n && s.at <= end).collect();
            let a_second = |of: fn(&Second) -> u64| {
                seconds.iter().map(|s| of(s)).sum::<u64>() as f64 / (seconds.len().max(1)) as f64
            };
            let mut step = Step {
                name: stage.name.clone(),
                counts: stage.counts,
                offered: a_second(|s| s.offered),
                requests: a_second(|s| s.answered),
                confirmed: a_second(|s| s.confirmed),
                errors: percent(count.errors, count.requests),
                p50: quantile(&count.times, 0.5),
                p99: quantile(&count.times, 0.99),
                confirming_p50: quantile(&count.confirming, 0.5),
                confirming_p99: quantile(&count.confirming, 0.99),
                lag_p99: quantile(&count.lag, 0.99),
                too_much: Vec::new(),
            };
            step.too_much = too_much(outcome, count, &seconds, &step);
            if outcome.plan.kind == Loop::Closed && stage.counts {
                if before.is_some_and(|before| step.requests < before * GAINS) {
                    step.too_much.push("it brought hardly more than the step before".to_owned());
                }
                before = Some(step.requests);
            }
            step
        })
        .collect()
}

/// Why a stage was too much for the shop.
fn too_much(outcome: &Outcome, count: &StageCount, seconds: &[&Second], step: &Step) -> Vec<String> {
    let limits = &outcome.plan.limits;
    let mut why = Vec::new();
    if step.p99 > limits.p99 {
        why.push(format!("p99 is {}, above {}", ms(step.p99), ms(limits.p99)));
    }
    if step.errors > limits.errors {
        why.push(format!("{:.1} % of the requests failed, more than {} %", step.errors, limits.errors));
    }
    if let Some(dropped) = count.dropped.get("in_flight") {
        why.push(format!("{dropped} shoppers found {} others under way", outcome.plan.in_flight));
    }
    let sum = |of: fn(&Second) -> u64| seconds.iter().map(|s| of(s)).sum::<u64>() as f64;
    let a_second = 1.0 / seconds.len().max(1) as f64;
    // What was sent in the last second may be answered in the next stage.
    let (sent, answered) = (sum(|s| s.sent), sum(|s| s.answered));
    if answered < FOLLOWS * sent * (1.0 - a_second) {
        why.push(format!(
            "{:.0} % of the requests were answered meanwhile",
            answered * 100.0 / sent.max(1.0)
        ));
    }
    if let (Some(first), Some(last)) = (seconds.first(), seconds.last()) {
        let (placed, grown) = (sum(|s| s.placed), last.backlog.saturating_sub(first.backlog) as f64);
        // As many as are placed in two seconds may just be under way, and a few always.
        if grown > (1.0 - FOLLOWS) * placed + 2.0 * placed * a_second + 3.0 {
            why.push(format!("{grown:.0} more orders waited at its end than at its begin"));
        }
    }
    why
}

/// Judges a run.
pub fn verdict(outcome: &Outcome, steps: &[Step]) -> Verdict {
    let (plan, counts) = (&outcome.plan, &outcome.counts);
    let counting: Vec<bool> = plan.stages.iter().map(|stage| stage.counts).collect();
    let sought = counting.iter().filter(|counts| **counts).count() > 1;
    let mut invalid = Vec::new();
    let offered = counts.sum(&counting, |stage| stage.offered);
    if offered == 0 {
        invalid.push("it ended before anything counted".to_owned());
    }
    let lag = quantile(&counts.merged(&counting, |stage| &stage.lag), 0.99);
    if lag > plan.limits.lag {
        invalid.push(format!(
            "the generator itself began shoppers {} late (p99), more than {}: this machine cannot produce the rate",
            ms(lag),
            ms(plan.limits.lag)
        ));
    }
    let dropped =
        |why: &str| counts.sum(&counting, |stage| stage.dropped.get(why).copied().unwrap_or_default());
    for (why, reason) in [
        ("generator", "the generator could not begin them: this machine cannot produce the rate"),
        ("no_account", "there is no account for them: --accounts makes some"),
        ("no_free_cart", "every account's cart was in use: --accounts makes more"),
    ] {
        let of_hundred = percent(dropped(why), offered);
        if of_hundred > LEFT_OUT {
            invalid.push(format!("{of_hundred:.1} % of the shoppers were left out, as {reason}"));
        }
    }
    // With steps that is a finding about the shop.
    if dropped("in_flight") > 0 && !sought {
        invalid.push(format!(
            "{} shoppers were left out, as {} were under way already: the shop is too slow for the rate; a lower rate or a higher \
             --in-flight would do",
            dropped("in_flight"),
            plan.in_flight
        ));
    }
    let broken: u64 = counts.stages.iter().filter_map(|stage| stage.dropped.get("broken")).sum();
    if broken > 0 {
        invalid.push(format!("{broken} shoppers broke: that is a fault of the generator"));
    }
    let good = |step: &&Step| step.too_much.is_empty();
    let counted = steps.iter().filter(|step| step.counts);
    let knee = counted.take_while(good).last().filter(|_| sought).map(|step| step.name.clone());
    Verdict { invalid, over: if sought { Vec::new() } else { over(outcome, &counting) }, knee, sought }
}

/// The limits that a run without steps has passed.
fn over(outcome: &Outcome, counting: &[bool]) -> Vec<String> {
    let (limits, counts) = (&outcome.plan.limits, &outcome.counts);
    let mut over = Vec::new();
    let requests = counts.sum(counting, |stage| stage.requests);
    let errors = percent(counts.sum(counting, |stage| stage.errors), requests);
    if errors > limits.errors {
        over.push(format!(
            "{errors:.1} % of the requests failed or were refused, more than {} %",
            limits.errors
        ));
    }
    let placed = counts.sum(counting, |stage| stage.placed);
    let unknown = percent(counts.unknown, placed);
    if unknown > limits.errors {
        over.push(format!("{unknown:.1} % of the orders neither confirmed nor cancelled in time"));
    }
    let p99 = quantile(&counts.all_times(), 0.99);
    if p99 > limits.p99 {
        over.push(format!("p99 is {}, above {}", ms(p99), ms(limits.p99)));
    }
    if counts.refused.contains_key("all_sold_out") {
        over.push("everything was sold out: --prepare makes products that last".to_owned());
    }
    over
}
