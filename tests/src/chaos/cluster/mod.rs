//! Customers and faults against the shop on a cluster: one fault after the other, each given the time to be got over.
//!
//! [`plan`] draws the faults, [`machines`] and [`inject`] do the harm, [`witness`] writes to the servers beside the shop and knows when
//! they could be written to, [`timing`] reads how long the shop took, [`report`] writes it down.

pub mod inject;
pub mod machines;
pub mod plan;
pub mod report;
pub mod timing;
pub mod wait;
pub mod witness;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use tokio::task::JoinSet;
use uuid::Uuid;

use self::inject::Injector;
use self::machines::{Cluster, Roles};
use self::plan::Fault;
use self::report::{Outcome, Strike};
use self::witness::Witness;
use super::HEALING;
use super::load::{Customer, Goods, Journal};
use super::watch::Watch;
use crate::{Shop, oracle};

/// For the servers to be whole again after a fault.
const WHOLE: Duration = Duration::from_secs(120);

/// How long the shop is waited for, from when there was a writable primary again.
const LIMIT: Duration = Duration::from_secs(75);

/// Undisturbed, at first and between two faults.
const REST: Duration = Duration::from_secs(3);

/// A way that is closed for less needs no word from `/readyz`.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub faults: Vec<Fault>,
    /// No fault begins after that.
    pub lasts: Duration,
    pub clients: u64,
    /// Mean time between two visits of a customer.
    pub pause: Duration,
    /// Whether speeds are promised too, on a machine that does nothing else.
    pub timed: bool,
    pub folder: PathBuf,
}

/// Runs; `said` gets a line for each fault, and `progress` is called once a second.
pub async fn run(
    shop: Arc<Shop>,
    options: &Options,
    said: impl Fn(&str),
    progress: impl Fn(&Watch) + Send + 'static,
) -> anyhow::Result<Outcome> {
    std::fs::create_dir_all(&options.folder)?;
    let cluster = Arc::new(Cluster::load(Path::new(&shop.dir))?);
    let injector = Injector::new(&shop, &cluster);
    // About as many as are wanted while a fault lasts; what is left is sold at the end.
    let faults = u32::try_from(options.faults.len()).unwrap_or(u32::MAX);
    let goods = Goods::stock(&shop, 8 + 3 * faults.min(100)).await;
    let started = Instant::now();
    let journal = Arc::new(Journal::create(&options.folder.join("journal.jsonl"), started)?);
    let (witness, _writing) = Witness::begin(&shop, &cluster).await?;
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
    tokio::time::sleep(REST).await;

    let mut broken = Vec::new();
    let mut strikes: Vec<Strike> = Vec::new();
    let mut missed = BTreeSet::new();
    for fault in &options.faults {
        if started.elapsed() > options.lasts {
            break;
        }
        let roles = match cluster.whole(WHOLE).await {
            Ok(roles) => roles,
            Err(away) => {
                broken.push(format!("the servers are not whole {WHOLE:?} after a fault: {away}"));
                break;
            }
        };
        watch.struck();
        let strike = strike(&injector, &witness, *fault, &roles, started).await?;
        if let Some(took) = strike.first {
            watch.over_it(Duration::from_secs_f64(took));
        }
        broken.extend(strike.broken(options.timed));
        judged(&mut broken, "answered orders", lost(&shop, &journal, &mut missed).await);
        said(&strike.line());
        if strike.failed.is_none() && (strike.first.is_none() || strike.ended.is_none()) {
            // Each fault is to be tried on a shop that is well.
            start_again(&shop, &said).await?;
        }
        strikes.push(strike);
        tokio::time::sleep(REST).await;
    }
    if let Err(away) = cluster.whole(WHOLE).await {
        broken.push(format!("the servers are not whole in the end: {away}"));
    }
    stop.store(true, Ordering::Relaxed);
    watching.await?;
    while let Some(customer) = customers.join_next().await {
        customer?;
    }

    broken.extend(journal.wrongs());
    let settled = super::close(&shop, &journal, &goods, options.seed, HEALING, &mut broken).await?;
    let wishes = journal.wishes();
    let expected = oracle::ExpectedDeadLetters::default();
    let found = answer(async || oracle::broken(&shop, &goods, &wishes, &expected).await).await;
    judged(&mut broken, "the shop", found);
    judged(&mut broken, "events", answer(async || oracle::phantoms(&shop).await).await);
    judged(&mut broken, "confirmed writes", witness.missing(&shop).await);
    Ok(Outcome {
        seed: options.seed,
        clients: options.clients,
        seconds: started.elapsed().as_secs_f64(),
        strikes,
        placed: journal.placed(),
        wishes: wishes.len(),
        ordered: wishes.iter().filter(|wish| matches!(wish.outcome, Some(Ok(_)))).count(),
        witnessed: witness.confirmed(),
        settled,
        broken,
    })
}

/// What was found to be broken, or that nothing could be found out.
fn judged(broken: &mut Vec<String>, what: &str, found: anyhow::Result<Vec<String>>) {
    match found {
        Ok(found) => broken.extend(found),
        Err(error) => broken.push(format!("{what} could not be judged: {error:#}")),
    }
}

/// One fault, and how the shop got over it.
async fn strike(
    injector: &Injector,
    witness: &Witness,
    fault: Fault,
    roles: &Roles,
    started: Instant,
) -> anyhow::Result<Strike> {
    let (shop, cluster) = (&injector.shop, &injector.cluster);
    let victim = injector.victim(&fault, roles).await.context("nobody to strike")?;
    let (begun, clock) = (Instant::now(), SystemTime::now());
    let mut strike = Strike::new(fault, victim, (begun - started).as_secs_f64());
    let found = match injector.inject(fault, &strike.victim, roles).await {
        Ok(found) => found,
        Err(error) => {
            strike.failed = Some(format!("{error:#}"));
            cluster.undo();
            return Ok(strike);
        }
    };
    strike.lasted = begun.elapsed().as_secs_f64();
    strike.notes = found.notes;
    strike.wrong = found.broken;
    let deadline = Instant::now() + LIMIT;
    // Writes that were under way have failed by then, if they do.
    tokio::time::sleep(REST).await;
    loop {
        let reachable = witness.reachable(begun).map(|at| at - begun);
        strike.reachable = reachable.map(|since| since.as_secs_f64());
        if let Some(since) = reachable {
            let times = timing::read(shop, clock, clock + since).await;
            if let Some((first, ended)) = times {
                (strike.first, strike.ended) = (first, ended);
            }
            if strike.first.is_some() && strike.ended.is_some() {
                break;
            }
        }
        if Instant::now() > deadline {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    // Whether the replicas say so may come later than the first order.
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        (strike.away, strike.back) = witness.readiness_delay(begun, PATIENCE);
        if strike.back != Some(witness::Delay::Never) || Instant::now() > until {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    if let Ok(after) = cluster.whole(WHOLE).await {
        strike.whole = Some(begun.elapsed().as_secs_f64());
        strike.promotions = after.timeline - roles.timeline;
    }
    strike.pause = timing::pause(shop, clock).await;
    if let Some(old) = found.old {
        let ids: Vec<Uuid> = old.into_iter().collect();
        let there: sqlx::Result<Vec<Uuid>> =
            sqlx::query_scalar("SELECT id FROM orders.orders WHERE id = ANY($1)")
                .bind(&ids)
                .fetch_all(&shop.database)
                .await;
        strike.diverged = there.ok().map(|there| ids.len().saturating_sub(there.len()));
    }
    Ok(strike)
}

/// What the database answers to a question that is asked again for a while: a balancer that has just come back cuts some
/// connections off.
async fn answer<T, E: From<std::io::Error>>(ask: impl AsyncFn() -> Result<T, E>) -> Result<T, E> {
    let until = Instant::now() + WHOLE;
    let late = |_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
    loop {
        match tokio::time::timeout(WHOLE, ask()).await.unwrap_or_else(late) {
            Err(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(250)).await,
            answered => return answered,
        }
    }
}

/// Answered orders that the present primary does not have. `known` are those reported already.
async fn lost(shop: &Shop, journal: &Journal, known: &mut BTreeSet<Uuid>) -> anyhow::Result<Vec<String>> {
    let answered: BTreeSet<Uuid> =
        journal.wishes().into_iter().filter_map(|wish| wish.outcome?.ok()).collect();
    let ids: Vec<Uuid> = answered.iter().copied().collect();
    let query = || sqlx::query_scalar("SELECT id FROM orders.orders WHERE id = ANY($1)").bind(&ids);
    let there: Vec<Uuid> = answer(async || query().fetch_all(&shop.database).await).await?;
    let there: BTreeSet<Uuid> = there.into_iter().collect();
    let lost = answered.difference(&there).filter(|id| known.insert(**id));
    Ok(lost.map(|id| format!("order {id} was answered for and is not on the new primary")).collect())
}

/// Kills all replicas of a shop that never got over a fault, and waits until it sells.
async fn start_again(shop: &Shop, said: &impl Fn(&str)) -> anyhow::Result<()> {
    said("  the services are started again, so that the next fault finds them well");
    for service in ["user", "product", "order"] {
        shop.kill(service);
        shop.kill(&format!("{service}-2"));
    }
    let sells = shop.sells(Instant::now(), LIMIT).await;
    sells.map(drop).context("the shop does not sell even after all its services were started again")
}
