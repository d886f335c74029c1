//! Which fault strikes whom and when: a pure function of the seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

/// What can be done to a shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT after a while.
    Pause,
    /// SIGTERM: an orderly end, and a start.
    Restart,
    /// A link's connections are cut, and new ones refused for a while.
    Sever,
    /// Bytes stop flowing over a link for a while; its connections stay.
    Stall,
    /// Each read from a link is late for a while.
    Slow,
    /// Events of the last minute are published again, in any order, hundreds at once.
    Repeat,
    /// New events are held back for a while, each for another time: outboxes fill, and the newest may arrive
    /// first.
    Backlog,
    /// Messages that are no events.
    Poison,
    /// The provider's webhooks come again, late and out of order.
    Webhooks,
    /// A process's clock is ahead, or behind, for a while.
    Clock,
}

impl Kind {
    pub const ALL: [Self; 11] = [
        Self::Kill,
        Self::Pause,
        Self::Restart,
        Self::Sever,
        Self::Stall,
        Self::Slow,
        Self::Repeat,
        Self::Backlog,
        Self::Poison,
        Self::Webhooks,
        Self::Clock,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Restart => "restart",
            Self::Sever => "sever",
            Self::Stall => "stall",
            Self::Slow => "slow",
            Self::Repeat => "repeat",
            Self::Backlog => "backlog",
            Self::Poison => "poison",
            Self::Webhooks => "webhooks",
            Self::Clock => "clock",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// How often it is drawn.
    fn weight(self) -> u32 {
        match self {
            Self::Kill => 12,
            Self::Pause | Self::Sever | Self::Clock => 2,
            _ => 1,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Since the start of the run.
    pub at: Duration,
    pub kind: Kind,
    /// A process or a link; empty for faults of the whole shop.
    pub victim: String,
    /// How long it lasts.
    pub lasts: Duration,
    /// Seconds that a clock is ahead meanwhile.
    pub jump: i64,
}

/// What there is to be struck.
pub struct Targets {
    pub processes: Vec<String>,
    pub links: Vec<String>,
    /// Processes whose clocks can be made to jump.
    pub clocks: Vec<String>,
}

impl Targets {
    /// Of a kind of fault; `None` for one of the whole shop.
    fn of(&self, kind: Kind) -> Option<&[String]> {
        match kind {
            Kind::Kill | Kind::Pause | Kind::Restart => Some(&self.processes),
            Kind::Sever | Kind::Stall | Kind::Slow => Some(&self.links),
            Kind::Clock => Some(&self.clocks),
            Kind::Repeat | Kind::Backlog | Kind::Poison | Kind::Webhooks => None,
        }
    }
}

/// The phases of a run: undisturbed at first, then rounds of faults, each followed by a rest in which the shop
/// is to be as quick as it was.
#[derive(Clone, Copy, Debug)]
pub struct Phases {
    pub warm_up: Duration,
    pub round: Duration,
    pub rest: Duration,
    pub rounds: u32,
}

impl Phases {
    /// Fills `total`: a warm-up, then rounds of a minute, or one that takes what is there.
    pub fn within(total: Duration) -> Self {
        let warm_up = if total < Duration::from_secs(60) { 8 } else { 12 };
        let (warm_up, rest) = (Duration::from_secs(warm_up), Duration::from_secs(11));
        let left = total.saturating_sub(warm_up);
        let rounds = (left.as_secs() / 60).max(1) as u32;
        let round = (left / rounds).saturating_sub(rest).max(Duration::from_secs(5));
        Self { warm_up, round, rest, rounds }
    }

    pub fn start_of(&self, round: u32) -> Duration {
        self.warm_up + (self.round + self.rest) * round
    }

    pub fn total(&self) -> Duration {
        self.start_of(self.rounds)
    }
}

/// The faults of a whole run, in order of time. `pace` is the mean time between two.
pub fn plan(seed: u64, phases: &Phases, kinds: &[Kind], targets: &Targets, pace: Duration) -> Vec<Fault> {
    let mut rng = StdRng::seed_from_u64(seed);
    let usable = |kind: &Kind| targets.of(*kind).is_none_or(|victims| !victims.is_empty());
    let bag: Vec<Kind> = kinds
        .iter()
        .filter(|kind| usable(kind))
        .flat_map(|kind| std::iter::repeat_n(*kind, kind.weight() as usize))
        .collect();
    // Each kind once, before chance has its way.
    let mut owed: Vec<Kind> = kinds.iter().copied().filter(usable).collect();
    owed.shuffle(&mut rng);
    let mut faults = Vec::new();
    for round in 0..phases.rounds {
        let begin = phases.start_of(round);
        let mut at = begin;
        while let Some(kind) = owed.last().copied().or_else(|| bag.choose(&mut rng).copied()) {
            let victim = targets.of(kind).and_then(|victims| victims.choose(&mut rng).cloned());
            let victim = victim.unwrap_or_default();
            let lasts = match kind {
                Kind::Kill | Kind::Restart | Kind::Repeat | Kind::Poison | Kind::Webhooks => Duration::ZERO,
                _ => Duration::from_millis(rng.random_range(1000..=4000)),
            };
            if at + lasts > begin + phases.round {
                break;
            }
            owed.pop();
            let jump = if kind == Kind::Clock { jump(&victim, &mut rng) } else { 0 };
            faults.push(Fault { at, kind, victim, lasts, jump });
            at += pace.mul_f64(rng.random_range(0.5..1.5));
        }
    }
    faults
}

/// Up to an hour; the database's, by which leases and deadlines go, as far as the shop has to get over it in time.
fn jump(victim: &str, rng: &mut StdRng) -> i64 {
    let most = if victim == "postgres" { 20 } else { 3600 };
    let seconds = rng.random_range(5..=most);
    if rng.random() { seconds } else { -seconds }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(processes: &[&str], links: &[&str]) -> Targets {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Targets { processes: names(processes), links: names(links), clocks: names(&["order", "postgres"]) }
    }

    fn half_an_hour(seed: u64, links: &[&str]) -> Vec<Fault> {
        let phases = Phases::within(Duration::from_secs(1800));
        plan(seed, &phases, &Kind::ALL, &targets(&["order", "product"], links), Duration::from_secs(4))
    }

    #[test]
    fn a_seed_is_a_plan() {
        assert_eq!(half_an_hour(7, &["database"]), half_an_hour(7, &["database"]));
        assert_ne!(half_an_hour(7, &["database"]), half_an_hour(8, &["database"]));
    }

    #[test]
    fn every_kind_comes_up_and_ends_before_the_rest() {
        let phases = Phases::within(Duration::from_secs(1800));
        assert!(phases.total() <= Duration::from_secs(1800));
        let faults = half_an_hour(1, &["database"]);
        for kind in Kind::ALL {
            assert!(faults.iter().any(|fault| fault.kind == kind), "{kind:?}");
        }
        for fault in faults {
            let round = (0..phases.rounds).rfind(|round| phases.start_of(*round) <= fault.at).unwrap();
            assert!(fault.at + fault.lasts <= phases.start_of(round) + phases.round);
        }
    }

    #[test]
    fn a_short_run_has_each_kind_too() {
        let phases = Phases::within(Duration::from_secs(27));
        let kinds = [Kind::Kill, Kind::Pause, Kind::Webhooks];
        for seed in 0..50 {
            let faults = plan(seed, &phases, &kinds, &targets(&["order"], &[]), Duration::from_millis(1200));
            assert!(kinds.iter().all(|kind| faults.iter().any(|fault| fault.kind == *kind)), "{seed}");
        }
    }

    #[test]
    fn without_links_none_is_cut() {
        let of_links = [Kind::Sever, Kind::Stall, Kind::Slow];
        assert!(half_an_hour(3, &[]).iter().all(|fault| !of_links.contains(&fault.kind)));
    }

    #[test]
    fn only_clocks_jump_and_the_databases_by_seconds() {
        for fault in half_an_hour(5, &["database"]) {
            let most = if fault.victim == "postgres" { 20 } else { 3600 };
            let allowed = if fault.kind == Kind::Clock { 5..=most } else { 0..=0 };
            assert!(allowed.contains(&fault.jump.abs()), "{fault:?}");
        }
    }

    #[test]
    fn names_are_read_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.name()), Some(kind));
        }
        assert_eq!(Kind::parse("flood"), None);
    }
}
