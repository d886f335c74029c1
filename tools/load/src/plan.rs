//! What a run is to do: how many shoppers come when, what they do, and what is too slow.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

/// A part of a run with one rate, or one that changes evenly.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    pub name: String,
    /// Arrivals a second, or shoppers at the same time, when it begins.
    pub from: f64,
    /// And when it ends.
    pub to: f64,
    #[serde(serialize_with = "seconds")]
    pub length: Duration,
    /// Whether it counts: the warm-up does not.
    pub counts: bool,
}

fn seconds<S: serde::Serializer>(length: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(length.as_secs_f64())
}

/// Who decides when the next shopper comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Loop {
    /// They come on their own, as many a second as the stages say, however slow the shop is.
    Open,
    /// As many as the stages say shop all the time: one begins again when it is done.
    Closed,
}

/// How an order is followed until it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Follow {
    /// By its events, on a connection of its own.
    Sse,
    /// By asking, after 50 ms and then ever less often.
    Poll,
    /// Not at all: whether it is confirmed is not known then.
    None,
}

/// What a shopper comes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Errand {
    /// Looks at a list and at up to three products.
    Browse,
    /// Searches for a word and looks at a product that was found.
    Search,
    /// Looks at a product, puts it into the cart, and buys the cart.
    Cart,
    /// Buys a product at once.
    Order,
}

impl Errand {
    pub const ALL: [Errand; 4] = [Errand::Browse, Errand::Search, Errand::Cart, Errand::Order];

    pub fn name(self) -> &'static str {
        match self {
            Errand::Browse => "browse",
            Errand::Search => "search",
            Errand::Cart => "cart",
            Errand::Order => "order",
        }
    }
}

/// How many in how many come for what. Read from `browse=60,order=40`; what is left out nobody comes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    weights: [u32; 4],
}

impl Default for Mix {
    fn default() -> Self {
        Self { weights: [60, 20, 10, 10] }
    }
}

impl Mix {
    /// Everybody comes for the same.
    pub fn only(errand: Errand) -> Self {
        Self { weights: Errand::ALL.map(|other| u32::from(other == errand)) }
    }

    pub fn weight(&self, errand: Errand) -> u32 {
        self.weights[errand as usize]
    }

    pub fn total(&self) -> u32 {
        self.weights.iter().sum()
    }

    /// The errand of a number below `total`.
    pub fn nth(&self, mut n: u32) -> Errand {
        for errand in Errand::ALL {
            match n.checked_sub(self.weight(errand)) {
                Some(rest) => n = rest,
                None => return errand,
            }
        }
        Errand::Browse
    }

    /// Whether anybody buys.
    pub fn buys(&self) -> bool {
        self.weight(Errand::Cart) + self.weight(Errand::Order) > 0
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut weights = [None; 4];
        for part in text.split(',') {
            let (name, weight) =
                part.split_once('=').ok_or_else(|| format!("{part:?} is not NAME=WEIGHT"))?;
            let errand = Errand::ALL.into_iter().find(|errand| errand.name() == name.trim());
            let errand =
                errand.ok_or_else(|| format!("{name:?} is not one of browse, search, cart, order"))?;
            let weight = weight.trim().parse::<u32>().ok().filter(|weight| *weight <= 1_000_000);
            let weight =
                weight.ok_or_else(|| format!("the weight of {name} is not a whole number up to 1000000"))?;
            if weights[errand as usize].replace(weight).is_some() {
                return Err(format!("{name} stands there twice"));
            }
        }
        let mix = Self { weights: weights.map(Option::unwrap_or_default) };
        if mix.total() == 0 { Err("no weight is above 0".to_owned()) } else { Ok(mix) }
    }
}

impl Serialize for Mix {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(Errand::ALL.map(|errand| (errand.name(), self.weight(errand))))
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = Errand::ALL.map(|errand| format!("{}={}", errand.name(), self.weight(errand)));
        f.write_str(&parts.join(","))
    }
}

/// A run.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    #[serde(rename = "loop")]
    pub kind: Loop,
    pub stages: Vec<Stage>,
    pub mix: Mix,
    /// Mean time that a shopper thinks between two requests, drawn from the exponential distribution.
    #[serde(serialize_with = "seconds")]
    pub think: Duration,
    pub seed: u64,
    pub follow: Follow,
    pub payment_method: String,
    /// Shoppers under way at once, at most.
    pub in_flight: usize,
    /// For an order, from its placing until it reads `confirmed`.
    #[serde(serialize_with = "seconds")]
    pub confirm_within: Duration,
    pub limits: Limits,
}

/// What a run has to keep to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// Seconds, for requests.
    pub p99: f64,
    /// Of a hundred requests.
    pub errors: f64,
    /// Seconds that the generator itself may begin late (p99).
    pub lag: f64,
}

impl Plan {
    /// How long shoppers come.
    pub fn length(&self) -> Duration {
        self.stages.iter().map(|stage| stage.length).sum()
    }

    /// Which stage is under way then, and since when; the last one when all have ended.
    pub fn stage_at(&self, at: Duration) -> (usize, Duration) {
        let mut begun = Duration::ZERO;
        for (n, stage) in self.stages.iter().enumerate() {
            if at < begun + stage.length || n + 1 == self.stages.len() {
                return (n, at.saturating_sub(begun));
            }
            begun += stage.length;
        }
        (0, at)
    }
}

impl Stage {
    /// What holds at a time since it began.
    pub fn level(&self, at: Duration) -> f64 {
        if self.length.is_zero() {
            return self.to;
        }
        self.from + (self.to - self.from) * (at.as_secs_f64() / self.length.as_secs_f64()).min(1.0)
    }
}

/// `20:200`, as two positive numbers.
///
/// # Errors
/// a sentence.
pub fn ramp(text: &str) -> Result<(f64, f64), String> {
    let (from, to) = text.split_once(':').ok_or_else(|| "a ramp is FROM:TO, as 20:200".to_owned())?;
    Ok((level(from)?, level(to)?))
}

/// `50,100,200`, as at least two positive numbers that rise.
///
/// # Errors
/// a sentence.
pub fn steps(text: &str) -> Result<Vec<f64>, String> {
    let steps = text.split(',').map(level).collect::<Result<Vec<f64>, String>>()?;
    if steps.len() < 2 || steps.len() > 100 {
        return Err("steps are two to a hundred numbers, as 50,100,200".to_owned());
    }
    if steps.windows(2).any(|two| two[0] >= two[1]) {
        return Err("each step has to be above the one before".to_owned());
    }
    Ok(steps)
}

/// Arrivals a second, or shoppers: more than none, and not absurdly many.
///
/// # Errors
/// a sentence.
pub fn level(text: &str) -> Result<f64, String> {
    let number = text.trim().parse::<f64>().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.01..=50_000.0).contains(&number) {
        Ok(number)
    } else {
        Err(format!("{text} is not between 0.01 and 50000"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_read_and_written() {
        let mix: Mix = "order=1,browse=3".parse().unwrap();
        assert_eq!(mix.to_string(), "browse=3,search=0,cart=0,order=1");
        let drawn: Vec<Errand> = (0..mix.total()).map(|n| mix.nth(n)).collect();
        assert_eq!(drawn, [Errand::Browse, Errand::Browse, Errand::Browse, Errand::Order]);
        assert_eq!(mix.to_string().parse::<Mix>().unwrap(), mix);
        assert!(mix.buys() && !Mix::only(Errand::Search).buys());
    }

    #[test]
    fn a_wrong_mix_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "is not NAME=WEIGHT"),
            ("browse", "is not NAME=WEIGHT"),
            ("steal=1", "is not one of"),
            ("browse=-1", "not a whole number"),
            ("browse=x", "not a whole number"),
            ("browse=1,browse=2", "twice"),
            ("browse=0,order=0", "no weight"),
        ] {
            let error = text.parse::<Mix>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn steps_rise_and_ramps_have_two_ends() {
        assert_eq!(steps("50,100,200.5").unwrap(), [50.0, 100.0, 200.5]);
        assert_eq!(ramp("20:200").unwrap(), (20.0, 200.0));
        for wrong in ["50", "100,50", "50,50", "a,b", "0,1", "1,NaN", "1,inf", "1,-2", ""] {
            assert!(steps(wrong).is_err(), "{wrong}");
        }
        for wrong in ["5", "5:", ":5", "0:5", "1:x", "1:60000"] {
            assert!(ramp(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_moment_belongs_to_a_stage() {
        let stage = |from, to, seconds| Stage {
            name: String::new(),
            from,
            to,
            length: Duration::from_secs(seconds),
            counts: true,
        };
        let plan = Plan {
            kind: Loop::Open,
            stages: vec![stage(1.0, 1.0, 10), stage(10.0, 20.0, 10)],
            mix: Mix::default(),
            think: Duration::ZERO,
            seed: 1,
            follow: Follow::None,
            payment_method: String::new(),
            in_flight: 1,
            confirm_within: Duration::ZERO,
            limits: Limits { p99: 1.0, errors: 1.0, lag: 1.0 },
        };
        assert_eq!(plan.stage_at(Duration::from_secs(9)), (0, Duration::from_secs(9)));
        assert_eq!(plan.stage_at(Duration::from_secs(15)), (1, Duration::from_secs(5)));
        assert_eq!(plan.stage_at(Duration::from_secs(30)).0, 1);
        assert_eq!(plan.stages[1].level(Duration::from_secs(5)), 15.0);
    }
}
