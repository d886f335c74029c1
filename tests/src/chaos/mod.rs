//! A run of customers and faults against a shop, and what came of it.
//!
//! [`schedule`] draws the faults from a seed, [`load`] are the customers, [`inject`] does the harm, [`watch`]
//! measures, [`crate::oracle`] judges, [`report`] writes it down.

pub mod cluster;
pub mod inject;
pub mod load;
pub mod report;
pub mod schedule;
pub mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use self::inject::Injector;
use self::load::{Customer, Goods, Journal};
use self::report::{Outcome, Strike};
use self::schedule::{Fault, Kind, Phases, Targets, plan};
use self::watch::Watch;
use crate::{Shop, oracle};

/// Time to heal after the last fault, once all that was struck serves again.
pub const HEALING: Duration = Duration::from_secs(60);

/// A struck process that has not come back by then never will. A broker on a busy disk takes a minute and a half to start.
fn recovery_limit(victim: &str) -> Duration {
    Duration::from_secs(if victim == "rabbitmq" { 300 } else { 90 })
}

#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub lasts: Duration,
    pub kinds: Vec<Kind>,
    pub clients: u64,
    /// Mean time between two visits of a customer.
    pub pause: Duration,
    /// Mean time between two faults.
    pub pace: Duration,
    /// Only these processes are struck; all of them when empty.
    pub victims: Vec<String>,
    /// Where the journal and the report go.
    pub folder: PathBuf,
}

impl Options {
    /// A short run, for tests.
    pub fn brief(seed: u64, kinds: &[Kind], victims: &[&str]) -> Self {
        Self {
            seed,
            lasts: Duration::from_secs(27),
            kinds: kinds.to_vec(),
            clients: 6,
            pause: Duration::from_millis(250),
            pace: Duration::from_millis(1200),
            victims: victims.iter().map(|victim| (*victim).to_owned()).collect(),
            folder: std::env::temp_dir().join(format!("dockside-run-{}-{seed}", std::process::id())),
        }
    }
}

/// Runs; `progress` is called once a second. How quickly it went is not judged: see [`Outcome::judge_speed`].
pub async fn run(
    shop: Arc<Shop>,
    options: &Options,
    progress: impl Fn(&Watch) + Send + 'static,
) -> anyhow::Result<Outcome> {
    std::fs::create_dir_all(&options.folder)?;
    let injector = Arc::new(Injector::new(&shop)?);
    let phases = Phases::within(options.lasts);
    let chosen = |name: &String| options.victims.is_empty() || options.victims.contains(name);
    let processes: Vec<String> = injector.victims().into_iter().filter(chosen).collect();
    let clocks = processes.iter().filter(|name| injector.clock(name).is_file()).cloned().collect();
    let targets = Targets { processes, links: injector.links().await, clocks };
    let faults = plan(options.seed, &phases, &options.kinds, &targets, options.pace);

    // Left by whoever was here before.
    let old = oracle::found_dead(&shop).await?;
    let minutes = u32::try_from(options.lasts.as_secs() / 60).unwrap_or(u32::MAX);
    let goods = Goods::stock(&shop, 8 + 20 * minutes).await;
    let started = Instant::now();
    let journal = Arc::new(Journal::create(&options.folder.join("journal.jsonl"), started)?);
    let stop = Arc::new(AtomicBool::new(false));
    let mut customers = JoinSet::new();
    for number in 0..options.clients {
        let customer = Customer::join(&shop, &journal, &goods, number, options.seed).await;
        customers.spawn(customer.shop(stop.clone(), options.pause));
    }
    let watch = Watch::new(&shop, journal.clone(), started);
    let watching = tokio::spawn({
        let (watch, stop) = (watch.clone(), stop.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                watch.measure().await;
                progress(&watch);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    });

    // Joining takes longer than nothing: the plan's clock starts here.
    let begun = Instant::now();
    let offset = begun - started;
    let mut strikes = JoinSet::new();
    for fault in faults {
        tokio::time::sleep_until((begun + fault.at).into()).await;
        strikes.spawn(strike(shop.clone(), injector.clone(), watch.clone(), fault, begun));
    }
    tokio::time::sleep_until((begun + phases.total()).into()).await;
    let mut struck = strikes.join_all().await;
    struck.sort_by_key(|strike| strike.at);
    let healed =
        struck.iter().map(|strike| strike.at + strike.fault.lasts + strike.serves.unwrap_or_default());
    let healed = healed.max().unwrap_or_default();
    stop.store(true, Ordering::Relaxed);
    watching.await?;
    while let Some(customer) = customers.join_next().await {
        customer?;
    }

    if options.kinds.contains(&Kind::Backlog) {
        injector.let_through().await?;
    }

    let mut broken = journal.wrongs();
    let limit = HEALING.saturating_sub(begun.elapsed().saturating_sub(healed));
    let settled = close(&shop, &journal, &goods, options.seed, limit, &mut broken).await?;
    let (must, mut may) = injector.poisoned();
    may.extend(old);
    let expected = oracle::ExpectedDeadLetters { must, may };
    let wishes = journal.wishes();
    broken.extend(oracle::broken(&shop, &goods, &wishes, &expected).await?);
    let mut outcome = Outcome {
        seed: options.seed,
        clients: options.clients,
        begun: offset,
        phases,
        strikes: struck,
        samples: watch.samples(),
        placed: journal.placed(),
        wishes: wishes.len(),
        ordered: wishes.iter().filter(|wish| matches!(wish.outcome, Some(Ok(_)))).count(),
        settled,
        broken,
    };
    outcome.judge_liveness();
    Ok(outcome)
}

/// Lets a shop come to rest after the last fault, and sells what is left of what is scarce. How long the first took.
async fn close(
    shop: &Arc<Shop>,
    journal: &Arc<Journal>,
    goods: &Goods,
    seed: u64,
    limit: Duration,
    broken: &mut Vec<String>,
) -> anyhow::Result<Option<Duration>> {
    let settled = settle(shop, limit, broken).await;
    if settled.is_none() {
        return Ok(None);
    }
    // Whoever still wants what is scarce gets it, until there is none: a unit that is left over is a sale refused.
    let mut buyers = JoinSet::new();
    for product in goods.scarce.clone() {
        let buyer = Customer::join(shop, journal, goods, 1000, seed).await;
        buyers.spawn(buyer.buy_up(product, goods.few));
    }
    while let Some(bought) = buyers.join_next().await {
        bought?;
    }
    settle(shop, HEALING, broken).await;
    for product in &goods.scarce {
        let (on_hand, _) = shop.stock(*product).await;
        if on_hand != 0 {
            broken.push(format!(
                "product {product}: {on_hand} of {} left although somebody wanted them",
                goods.few
            ));
        }
    }
    Ok(settled)
}

async fn settle(shop: &Shop, limit: Duration, broken: &mut Vec<String>) -> Option<Duration> {
    match oracle::at_rest(shop, limit).await {
        Ok(took) => Some(took),
        Err(left) => {
            broken.extend(left.into_iter().map(|what| format!("{what} {HEALING:?} after all served again")));
            None
        }
    }
}

/// One fault, and how long the shop took to get over it: until the process serves again, and an order placed after
/// the fault is confirmed. Of a process that is struck again before that, the last fault alone is timed.
async fn strike(
    shop: Arc<Shop>,
    injector: Arc<Injector>,
    watch: Watch,
    fault: Fault,
    begun: Instant,
) -> Strike {
    let of_process = matches!(fault.kind, Kind::Kill | Kind::Restart | Kind::Pause);
    let at = begun.elapsed();
    let dead = injector.pid_of(&fault.victim).filter(|_| fault.kind != Kind::Pause);
    let mut strike = Strike { fault, at, missed: None, again: false, serves: None, sells: None };
    if let Err(error) = injector.inject(&strike.fault).await {
        strike.missed = Some(format!("{error:#}"));
        return strike;
    }
    watch.struck();
    let (blow, since) = (injector.blow(&strike.fault.victim), begun + at + strike.fault.lasts);
    let limit = recovery_limit(&strike.fault.victim);
    let over_it = async {
        let serves = if of_process {
            injector.recovered(&strike.fault.victim, dead, since, limit).await
        } else {
            Some(Duration::ZERO)
        };
        (serves, shop.sells(since, limit).await)
    };
    tokio::select! {
        (serves, sells) = over_it => (strike.serves, strike.sells) = (serves, sells),
        () = injector.struck_again(&strike.fault.victim, blow), if of_process => strike.again = true,
    }
    if let Some(took) = strike.recovery() {
        watch.over_it(took);
    }
    strike
}
