//! Which fault of the cluster comes when: a pure function of the seed.

use std::fmt;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// SIGKILL of PostgreSQL's own process.
    Crash,
    /// SIGKILL of all processes of the machine, which is away for a while.
    Kill,
    /// SIGSTOP of all processes of the machine, and SIGCONT.
    Freeze,
    /// No packet from or to the machine, and no word about it.
    Blackhole,
    /// The primary with the second balancer, and so the second replicas, on one side, all else on the other.
    Split,
    /// An operator has a standby take over.
    Switchover,
    /// The same, back to where it was.
    Switchback,
    /// No space is left on the machine's disk.
    FullDisk,
    /// A replica with one more migration starts while a dump is under way.
    Backup,
    /// A newer schema is brought in, and each replica is restarted.
    Update,
    /// Commits wait for a standby that gets nothing, for longer than a statement may take; then the primary
    /// dies.
    Wait,
}

/// To whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Primary,
    /// The one that confirms commits.
    Standby,
    /// The member that leads.
    Etcd,
    /// By its number, from 0.
    Broker(usize),
    Balancer(usize),
    Shop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    pub harm: Harm,
    pub target: Target,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let harm = match self.harm {
            Harm::Crash => "crash",
            Harm::Kill => "kill",
            Harm::Freeze => "freeze",
            Harm::Blackhole => "blackhole",
            Harm::Split => "split",
            Harm::Switchover => return f.write_str("switchover"),
            Harm::Switchback => return f.write_str("switchback"),
            Harm::FullDisk => "full-disk",
            Harm::Backup => return f.write_str("backup-and-migration"),
            Harm::Update => return f.write_str("rolling-update"),
            Harm::Wait => return f.write_str("commits-wait"),
        };
        match self.target {
            Target::Primary => write!(f, "{harm}-primary"),
            Target::Standby => write!(f, "{harm}-standby"),
            Target::Etcd => write!(f, "{harm}-etcd"),
            Target::Broker(number) => write!(f, "{harm}-broker{}", number + 1),
            Target::Balancer(number) => write!(f, "{harm}-haproxy{}", number + 1),
            Target::Shop => f.write_str(harm),
        }
    }
}

impl Fault {
    pub fn parse(name: &str) -> Option<Fault> {
        Fault::all().into_iter().find(|fault| fault.to_string() == name)
    }

    pub fn all() -> Vec<Fault> {
        let fault = |harm, target| Fault { harm, target };
        let mut all = vec![
            fault(Harm::Crash, Target::Primary),
            fault(Harm::Crash, Target::Standby),
            fault(Harm::Split, Target::Primary),
            fault(Harm::Switchover, Target::Primary),
            fault(Harm::Switchback, Target::Primary),
            fault(Harm::FullDisk, Target::Standby),
            fault(Harm::Backup, Target::Shop),
            fault(Harm::Update, Target::Shop),
            fault(Harm::Wait, Target::Standby),
        ];
        let targets = [Target::Primary, Target::Standby, Target::Etcd]
            .into_iter()
            .chain((0..3).map(Target::Broker))
            .chain((0..2).map(Target::Balancer));
        for target in targets {
            all.extend([Harm::Kill, Harm::Freeze, Harm::Blackhole].map(|harm| fault(harm, target)));
        }
        all
    }

    /// Those of the short form, in their order.
    pub fn short() -> Vec<Fault> {
        vec![
            Fault { harm: Harm::Crash, target: Target::Primary },
            Fault { harm: Harm::Freeze, target: Target::Primary },
            Fault { harm: Harm::Kill, target: Target::Broker(0) },
            Fault { harm: Harm::Switchover, target: Target::Primary },
        ]
    }

    /// How long it lasts: one of the primary for longer than it is waited for.
    pub fn lasts(&self) -> Duration {
        Duration::from_secs(match (self.harm, self.target) {
            (Harm::Kill | Harm::Freeze | Harm::Blackhole | Harm::Split, Target::Primary) => 20,
            (Harm::Kill | Harm::Freeze | Harm::Blackhole, Target::Broker(_)) => 12,
            (Harm::Kill | Harm::Freeze | Harm::Blackhole, _) => 10,
            (Harm::FullDisk, _) => 10,
            (Harm::Backup, _) => 12,
            _ => 0,
        })
    }
}

/// `count` of these faults: each once before one comes again, and the next round in another order.
pub fn plan(seed: u64, faults: &[Fault], count: usize) -> Vec<Fault> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut plan: Vec<Fault> = Vec::new();
    while plan.len() < count && !faults.is_empty() {
        let mut round = faults.to_vec();
        round.shuffle(&mut rng);
        plan.extend(round);
    }
    plan.truncate(count);
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for fault in Fault::all() {
            assert_eq!(Fault::parse(&fault.to_string()), Some(fault), "{fault}");
        }
        assert_eq!(Fault::parse("freeze"), None);
    }

    #[test]
    fn a_seed_is_a_plan_with_each_fault_before_any_comes_again() {
        let all = Fault::all();
        assert_eq!(plan(3, &all, 40), plan(3, &all, 40));
        assert_ne!(plan(3, &all, 40), plan(4, &all, 40));
        let mut first = plan(3, &all, all.len());
        first.sort();
        let mut sorted = all.clone();
        sorted.sort();
        assert_eq!(first, sorted);
        assert!(plan(1, &[], 4).is_empty());
    }
}
