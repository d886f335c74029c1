//! When shoppers arrive in open loop: a Poisson process whose rate follows the stages, drawn from a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::plan::Stage;

/// A shopper who is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// Since the run began.
    pub at: Duration,
    pub stage: usize,
    pub number: u64,
}

/// All of a run, in order of time.
pub struct Arrivals {
    stages: Vec<Stage>,
    rng: StdRng,
    stage: usize,
    /// Seconds since the stage began.
    within: f64,
    /// Seconds from the run's begin until the stage's.
    begun: f64,
    number: u64,
}

impl Arrivals {
    pub fn new(stages: &[Stage], seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self { stages: stages.to_vec(), rng, stage: 0, within: 0.0, begun: 0.0, number: 0 }
    }
}

impl Iterator for Arrivals {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        let mut left = exponential(&mut self.rng);
        loop {
            let stage = self.stages.get(self.stage)?;
            let length = stage.length.as_secs_f64();
            let slope = if length > 0.0 { (stage.to - stage.from) / length } else { 0.0 };
            // How many are still expected in this stage.
            let rate = stage.from + slope * self.within;
            let rest = length - self.within;
            let expected = rest * (rate + slope * rest / 2.0);
            if left <= expected && left > 0.0 {
                // The time by which as many are expected as were drawn.
                let gap = 2.0 * left / (rate + (rate * rate + 2.0 * slope * left).max(0.0).sqrt());
                self.within = (self.within + gap).min(length);
                let at = Duration::from_secs_f64(self.begun + self.within);
                self.number += 1;
                return Some(Arrival { at, stage: self.stage, number: self.number - 1 });
            }
            // The process has no memory: what is left of the gap is of the next stage.
            left -= expected;
            self.begun += length;
            self.within = 0.0;
            self.stage += 1;
        }
    }
}

/// Of mean 1.
pub fn exponential(rng: &mut StdRng) -> f64 {
    // In (0, 1]: never the logarithm of 0.
    -(1.0 - rng.random::<f64>()).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(from: f64, to: f64, seconds: u64) -> Stage {
        Stage { name: String::new(), from, to, length: Duration::from_secs(seconds), counts: true }
    }

    #[test]
    fn a_seed_draws_the_same_again_and_another_seed_does_not() {
        let drawn = |seed| Arrivals::new(&[stage(50.0, 50.0, 10)], seed).collect::<Vec<_>>();
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
    }

    #[test]
    fn gaps_are_exponential_with_the_mean_of_the_rate() {
        let at: Vec<f64> =
            Arrivals::new(&[stage(100.0, 100.0, 1000)], 1).map(|arrival| arrival.at.as_secs_f64()).collect();
        // 100,000 are expected, with a deviation of 316.
        assert!((98_500..101_500).contains(&at.len()), "{}", at.len());
        let gaps: Vec<f64> = at.windows(2).map(|two| two[1] - two[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Exponential: the deviation is as large as the mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{} {mean}", variance.sqrt());
        assert!(gaps.iter().all(|gap| *gap >= 0.0));
    }

    #[test]
    fn a_ramp_brings_ever_more_and_stages_follow_each_other() {
        let stages = [stage(10.0, 10.0, 100), stage(10.0, 110.0, 100), stage(0.0, 100.0, 10)];
        let all: Vec<Arrival> = Arrivals::new(&stages, 3).collect();
        let of = |n| all.iter().filter(move |arrival| arrival.stage == n);
        assert!((850..1150).contains(&of(0).count()), "{}", of(0).count());
        assert!((5600..6400).contains(&of(1).count()), "{}", of(1).count());
        assert!((400..600).contains(&of(2).count()), "{}", of(2).count());
        assert!(of(1).all(|arrival| (100.0..=200.0).contains(&arrival.at.as_secs_f64())));
        // A quarter comes in the first half of time: 1,750 of 6,000, with 10 a second at its begin.
        let early = of(1).filter(|arrival| arrival.at.as_secs_f64() < 150.0).count();
        assert!((1600..1900).contains(&early), "{early}");
        assert!(all.windows(2).all(|two| two[0].at <= two[1].at));
    }
}
