//! What happened in a run, counted as it happens: by kind of request, by stage, and by second.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use uuid::Uuid;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A page of the catalogue.
    List,
    Search,
    Product,
    /// A change of the cart.
    Cart,
    /// Placing an order: until it is accepted.
    Order,
    /// Following an order's events: until the stream begins.
    Events,
    /// Reading an order.
    Read,
}

impl Kind {
    pub const ALL: [Kind; 7] =
        [Kind::List, Kind::Search, Kind::Product, Kind::Cart, Kind::Order, Kind::Events, Kind::Read];

    pub fn name(self) -> &'static str {
        match self {
            Kind::List => "list",
            Kind::Search => "search",
            Kind::Product => "product",
            Kind::Cart => "cart",
            Kind::Order => "order",
            Kind::Events => "events",
            Kind::Read => "read",
        }
    }
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It read `confirmed` back.
    Confirmed,
    /// For this reason.
    Cancelled(String),
    /// It was neither in time.
    Unknown,
}

/// How often each name came.
pub type Names = BTreeMap<String, u64>;

/// Times in microseconds, to three digits.
pub type Times = Histogram<u64>;

/// What is known of one kind of request.
#[derive(Clone, Debug)]
pub struct KindCount {
    /// With an answer that succeeded.
    pub succeeded: u64,
    pub errors: Names,
    /// Of all that had an answer, and of those that timed out.
    pub times: Times,
}

/// What is known of a stage. Requests and orders are those of the shoppers who arrived in it.
#[derive(Clone, Debug)]
pub struct StageCount {
    /// Shoppers who were due.
    pub offered: u64,
    pub started: u64,
    /// Not started, by reason: all of them the generator's own fault, or for `in_flight` the shop's slowness too.
    pub dropped: Names,
    pub requests: u64,
    pub errors: u64,
    pub placed: u64,
    pub confirmed: u64,
    pub times: Times,
    pub confirming: Times,
    /// From when a shopper was due until it began.
    pub lag: Times,
}

/// One second of a run, whatever stage its events are of.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Second {
    /// The end of it, in seconds since the run began.
    pub at: f64,
    pub stage: usize,
    pub offered: u64,
    pub started: u64,
    /// Shoppers who went home.
    pub ended: u64,
    pub sent: u64,
    pub answered: u64,
    pub errors: u64,
    pub placed: u64,
    pub confirmed: u64,
    /// Orders that were placed and have not ended, at its end.
    pub backlog: u64,
    /// Shoppers under way at its end.
    pub in_flight: u64,
    /// Seconds; 0 when nothing was answered.
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

/// All that was counted.
#[derive(Clone, Debug)]
pub struct Counts {
    /// In the order of `Kind::ALL`, of the stages that count.
    pub kinds: Vec<KindCount>,
    pub stages: Vec<StageCount>,
    pub seconds: Vec<Second>,
    /// Refusals of orders by their codes, of the stages that count.
    pub refused: Names,
    /// Cancelled orders by reason, of the stages that count.
    pub cancelled: Names,
    /// Orders of the stages that count which were neither confirmed nor cancelled in time.
    pub unknown: u64,
    /// Journeys by errand that were begun in the stages that count.
    pub journeys: BTreeMap<&'static str, u64>,
    /// Every order that was placed and followed to its end, the warm-up's too.
    pub orders: Vec<(Uuid, End)>,
    /// Sign-ins that could not be renewed.
    pub sign_ins: Names,
}

struct Inner {
    counts: Counts,
    now: Second,
    times: Times,
    placed: u64,
    ended: u64,
    started: u64,
    gone: u64,
}

/// Counts from many tasks.
pub struct Recorder {
    /// Whether each stage counts.
    counting: Vec<bool>,
    start: Instant,
    inner: Mutex<Inner>,
}

fn times() -> Times {
    // Three digits are within what the type takes; it grows as it has to.
    Histogram::new(3).unwrap_or_else(|_| unreachable!("three digits are allowed"))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).clamp(1, 3_600_000_000)
}

/// A quantile in seconds; 0 when there is nothing.
pub fn quantile(times: &Times, q: f64) -> f64 {
    if times.is_empty() { 0.0 } else { times.value_at_quantile(q) as f64 / 1e6 }
}

/// It grows to hold what comes: `saturating_record` would cut it off instead.
fn record(times: &mut Times, micros: u64) {
    let _ = times.record(micros);
}

fn count(names: &mut Names, name: &str) {
    match names.get_mut(name) {
        Some(count) => *count += 1,
        None => drop(names.insert(name.to_owned(), 1)),
    }
}

impl Recorder {
    /// `counting` says of each stage whether it counts.
    pub fn new(counting: Vec<bool>, start: Instant) -> Self {
        let stage = || StageCount {
            offered: 0,
            started: 0,
            dropped: Names::new(),
            requests: 0,
            errors: 0,
            placed: 0,
            confirmed: 0,
            times: times(),
            confirming: times(),
            lag: times(),
        };
        let kind = || KindCount { succeeded: 0, errors: Names::new(), times: times() };
        let counts = Counts {
            kinds: Kind::ALL.iter().map(|_| kind()).collect(),
            stages: counting.iter().map(|_| stage()).collect(),
            seconds: Vec::new(),
            refused: Names::new(),
            cancelled: Names::new(),
            unknown: 0,
            journeys: BTreeMap::new(),
            orders: Vec::new(),
            sign_ins: Names::new(),
        };
        let inner = Inner {
            counts,
            now: Second::default(),
            times: times(),
            placed: 0,
            ended: 0,
            started: 0,
            gone: 0,
        };
        Self { counting, start, inner: Mutex::new(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self, stage: usize) -> bool {
        self.counting.get(stage).copied().unwrap_or_default()
    }

    /// So many shoppers were due.
    pub fn offered(&self, stage: usize, how_many: u64) {
        let mut inner = self.inner();
        inner.counts.stages[stage].offered += how_many;
        inner.now.offered += how_many;
    }

    /// One of them was not begun.
    pub fn dropped(&self, stage: usize, why: &'static str) {
        count(&mut self.inner().counts.stages[stage].dropped, why);
    }

    /// One of them began, so late.
    pub fn started(&self, stage: usize, lag: Duration) {
        let mut inner = self.inner();
        let of = &mut inner.counts.stages[stage];
        of.started += 1;
        record(&mut of.lag, micros(lag));
        inner.now.started += 1;
        inner.started += 1;
    }

    /// What it came for.
    pub fn came_for(&self, stage: usize, errand: &'static str) {
        if self.counts(stage) {
            *self.inner().counts.journeys.entry(errand).or_default() += 1;
        }
    }

    /// It went home.
    pub fn went(&self) {
        let mut inner = self.inner();
        inner.now.ended += 1;
        inner.gone += 1;
    }

    pub fn sent(&self) {
        self.inner().now.sent += 1;
    }

    /// A request had its answer, or none, after so long from when it was due.
    pub fn answered(&self, stage: usize, kind: Kind, took: Duration, error: Option<&str>) {
        let counts = self.counts(stage);
        let took = micros(took);
        let mut inner = self.inner();
        inner.now.answered += 1;
        inner.now.errors += u64::from(error.is_some());
        record(&mut inner.times, took);
        let of = &mut inner.counts.stages[stage];
        of.requests += 1;
        of.errors += u64::from(error.is_some());
        record(&mut of.times, took);
        if counts {
            let of = &mut inner.counts.kinds[kind as usize];
            record(&mut of.times, took);
            match error {
                Some(name) => count(&mut of.errors, name),
                None => of.succeeded += 1,
            }
        }
    }

    /// A stream broke off after its answer had begun.
    pub fn broke(&self, stage: usize, kind: Kind, name: &'static str) {
        let counts = self.counts(stage);
        let mut inner = self.inner();
        inner.now.errors += 1;
        inner.counts.stages[stage].errors += 1;
        if counts {
            count(&mut inner.counts.kinds[kind as usize].errors, name);
        }
    }

    /// An order was accepted; `followed` when its end will be reported.
    pub fn placed(&self, stage: usize, followed: bool) {
        let mut inner = self.inner();
        inner.counts.stages[stage].placed += 1;
        inner.now.placed += 1;
        inner.placed += u64::from(followed);
    }

    /// An order was not accepted.
    pub fn refused(&self, stage: usize, name: &str) {
        if self.counts(stage) {
            count(&mut self.inner().counts.refused, name);
        }
    }

    /// An accepted order ended, so long after it was due to be placed.
    pub fn ended(&self, stage: usize, order: Uuid, end: End, took: Duration) {
        let counts = self.counts(stage);
        let mut inner = self.inner();
        inner.ended += 1;
        match &end {
            End::Confirmed => {
                inner.now.confirmed += 1;
                let of = &mut inner.counts.stages[stage];
                of.confirmed += 1;
                record(&mut of.confirming, micros(took));
            }
            End::Cancelled(why) if counts => count(&mut inner.counts.cancelled, why),
            End::Unknown if counts => inner.counts.unknown += 1,
            End::Cancelled(_) | End::Unknown => {}
        }
        inner.counts.orders.push((order, end));
    }

    /// A sign-in could not be renewed.
    pub fn not_renewed(&self, name: &str) {
        count(&mut self.inner().counts.sign_ins, name);
    }

    /// Closes the second that is under way, in this stage, and returns it.
    pub fn tick(&self, stage: usize) -> Second {
        let at = self.start.elapsed().as_secs_f64();
        let mut inner = self.inner();
        let second = Second {
            at,
            stage,
            backlog: inner.placed.saturating_sub(inner.ended),
            in_flight: inner.started.saturating_sub(inner.gone),
            p50: quantile(&inner.times, 0.5),
            p90: quantile(&inner.times, 0.9),
            p99: quantile(&inner.times, 0.99),
            max: quantile(&inner.times, 1.0),
            ..std::mem::take(&mut inner.now)
        };
        inner.times.reset();
        inner.counts.seconds.push(second.clone());
        second
    }

    /// Shoppers under way.
    pub fn in_flight(&self) -> u64 {
        let inner = self.inner();
        inner.started.saturating_sub(inner.gone)
    }

    /// All that was counted so far.
    pub fn snapshot(&self) -> Counts {
        self.inner().counts.clone()
    }
}

impl Counts {
    /// The times of all requests of the stages that count.
    pub fn all_times(&self) -> Times {
        let mut all = times();
        for kind in &self.kinds {
            // Both have three digits and grow.
            let _ = all.add(&kind.times);
        }
        all
    }

    /// The sum over the stages that count of something that a stage has counted.
    pub fn sum(&self, counting: &[bool], of: impl Fn(&StageCount) -> u64) -> u64 {
        self.stages.iter().zip(counting).filter(|(_, counts)| **counts).map(|(stage, _)| of(stage)).sum()
    }

    /// The times from due to `confirmed`, or whatever a stage has, over the stages that count.
    pub fn merged(&self, counting: &[bool], of: impl Fn(&StageCount) -> &Times) -> Times {
        let mut all = times();
        for (stage, _) in self.stages.iter().zip(counting).filter(|(_, counts)| **counts) {
            let _ = all.add(of(stage));
        }
        all
    }
}
