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
    /// Why it was too much for the generator; empty when it was not.
    pub generator: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Why the figures are not to be used; empty when they are.
    pub invalid: Vec<String>,
    /// Limits that were passed; with steps, by the first already.
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
                generator: generator(count, outcome.plan.limits.lag),
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

/// Why a stage was too much for the generator.
fn generator(count: &StageCount, limit: f64) -> Vec<String> {
    let mut why = Vec::new();
    let lag = quantile(&count.lag, 0.99);
    if lag > limit {
        why.push(format!(
            "the generator itself began shoppers {} late (p99), more than {}: this machine cannot produce the rate",
            ms(lag),
            ms(limit)
        ));
    }
    for (name, reason) in [
        ("generator", "the generator could not begin them: this machine cannot produce the rate"),
        ("no_account", "there is no account for them: --accounts makes some"),
        ("no_free_cart", "every account's cart was in use: --accounts makes more"),
    ] {
        let left_out = percent(count.dropped.get(name).copied().unwrap_or_default(), count.offered);
        if left_out > LEFT_OUT {
            why.push(format!("{left_out:.1} % of the shoppers were left out, as {reason}"));
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
    if counts.sum(&counting, |stage| stage.offered) == 0 {
        invalid.push("it ended before anything counted".to_owned());
    }
    // Beyond the knee the generator may be slow too, when it shares a machine with the shop.
    for step in steps.iter().filter(|step| step.counts && (!sought || step.too_much.is_empty())) {
        let at = if sought { format!("at {}: ", step.name) } else { String::new() };
        invalid.extend(step.generator.iter().map(|why| format!("{at}{why}")));
    }
    // With steps that is a finding about the shop.
    let in_flight = |stage: &StageCount| stage.dropped.get("in_flight").copied().unwrap_or_default();
    let left_out = counts.sum(&counting, in_flight);
    if left_out > 0 && !sought {
        invalid.push(format!(
            "{left_out} shoppers were left out, as {} were under way already: the shop is too slow for the rate; a lower rate or a \
             higher --in-flight would do",
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
    let over = match sought {
        // That a further step is too much is what steps are for.
        true if knee.is_some() => Vec::new(),
        true => vec!["the first step was too much already: the knee is below it".to_owned()],
        false => over(outcome, &counting),
    };
    Verdict { invalid, over, knee, sought }
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::plan::{Follow, Limits, Mix, Plan, Stage};
    use crate::record::Recorder;

    /// Steps of ten seconds: each offers, answers so much of that, so slowly, and leaves so many orders waiting.
    fn outcome(kind: Loop, steps: &[(f64, f64, u64, u64)]) -> Outcome {
        let stages: Vec<Stage> = steps
            .iter()
            .map(|(level, ..)| Stage {
                name: level.to_string(),
                from: *level,
                to: *level,
                length: Duration::from_secs(10),
                counts: true,
            })
            .collect();
        let mut counts = Recorder::new(vec![true; steps.len()], Instant::now()).snapshot();
        for (n, (level, done, millis, backlog)) in steps.iter().enumerate() {
            let (sent, answered) = (*level as u64, (level * done) as u64);
            let stage = &mut counts.stages[n];
            (stage.offered, stage.requests) = (sent * 10, answered * 10);
            stage.times.record_n(millis * 1000, answered * 10).unwrap();
            for second in 1..=10 {
                counts.seconds.push(Second {
                    at: (n * 10 + second) as f64,
                    stage: n,
                    offered: sent,
                    sent,
                    answered,
                    placed: sent,
                    backlog: backlog * second as u64 / 10,
                    ..Second::default()
                });
            }
        }
        Outcome {
            plan: Plan {
                kind,
                stages,
                mix: Mix::default(),
                think: Duration::ZERO,
                seed: 1,
                follow: Follow::Sse,
                payment_method: String::new(),
                in_flight: 100,
                confirm_within: Duration::ZERO,
                limits: Limits { p99: 0.5, errors: 1.0, lag: 0.02 },
            },
            counts,
            took: Duration::from_secs(10),
            interrupted: false,
            on_sale: 1,
        }
    }

    fn knee(kind: Loop, steps: &[(f64, f64, u64, u64)]) -> Option<String> {
        let outcome = outcome(kind, steps);
        verdict(&outcome, &super::steps(&outcome)).knee
    }

    #[test]
    fn the_knee_is_the_last_step_before_one_that_is_too_much() {
        let good = |level| (level, 1.0, 20, 0);
        let open = |last| knee(Loop::Open, &[good(100.0), good(200.0), last, good(800.0)]);
        assert_eq!(open(good(400.0)).as_deref(), Some("800"));
        for (why, last) in [
            ("slow", (400.0, 1.0, 900, 0)),
            ("not answered", (400.0, 0.7, 20, 0)),
            ("orders wait", (400.0, 1.0, 20, 2000)),
        ] {
            assert_eq!(open(last).as_deref(), Some("200"), "{why}");
        }
        let first = outcome(Loop::Open, &[(100.0, 1.0, 900, 0), good(200.0)]);
        let verdict = verdict(&first, &super::steps(&first));
        assert_eq!((&verdict.knee, verdict.exit_code()), (&None, 1), "{verdict:?}");
        assert_eq!(knee(Loop::Open, &[good(100.0)]), None, "a single step has no knee");
    }

    #[test]
    fn errors_and_shoppers_who_found_no_place_are_too_much() {
        let good = |level| (level, 1.0, 20, 0);
        let mut outcome = outcome(Loop::Open, &[good(100.0), good(200.0), good(300.0)]);
        outcome.counts.stages[2].errors = 100;
        let judged = steps(&outcome);
        assert_eq!(verdict(&outcome, &judged).knee.as_deref(), Some("200"));
        assert!(judged[2].too_much[0].contains("3.3 %"), "{judged:?}");
        outcome.counts.stages[1].dropped.insert("in_flight".to_owned(), 7);
        let verdict = verdict(&outcome, &steps(&outcome));
        assert_eq!((verdict.knee.as_deref(), verdict.exit_code()), (Some("100"), 0), "{verdict:?}");
    }

    #[test]
    fn in_closed_loop_a_step_has_to_bring_more() {
        let steps = [(8.0, 1.0, 20, 0), (16.0, 1.0, 20, 0), (32.0, 0.5, 40, 0)];
        assert_eq!(knee(Loop::Closed, &steps).as_deref(), Some("16"));
    }

    #[test]
    fn a_generator_that_was_late_or_left_shoppers_out_makes_a_run_invalid() {
        let mut one = outcome(Loop::Open, &[(100.0, 1.0, 20, 0)]);
        let judge = |outcome: &Outcome| verdict(outcome, &steps(outcome));
        assert_eq!(judge(&one).exit_code(), 0, "{:?}", judge(&one));
        one.counts.stages[0].dropped.insert("generator".to_owned(), 9);
        assert_eq!(judge(&one).exit_code(), 0, "less than one of a hundred");
        one.counts.stages[0].dropped.insert("generator".to_owned(), 11);
        assert!(judge(&one).invalid[0].contains("1.1 %"), "{:?}", judge(&one));
        one.counts.stages[0].dropped.clear();
        one.counts.stages[0].lag.record_n(30_000, 1000).unwrap();
        assert!(judge(&one).invalid[0].contains("30.0 ms late"), "{:?}", judge(&one));
    }

    #[test]
    fn beyond_the_knee_the_generator_may_be_late() {
        let mut both = outcome(Loop::Open, &[(100.0, 1.0, 20, 0), (200.0, 1.0, 900, 0)]);
        both.counts.stages[1].lag.record_n(30_000, 1000).unwrap();
        let judge = |outcome: &Outcome| verdict(outcome, &steps(outcome));
        assert_eq!((judge(&both).knee.as_deref(), judge(&both).exit_code()), (Some("100"), 0));
        both.counts.stages[0].lag.record_n(30_000, 1000).unwrap();
        assert!(judge(&both).invalid[0].starts_with("at 100: the generator"), "{:?}", judge(&both));
    }
}
