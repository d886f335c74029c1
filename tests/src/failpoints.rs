//! Every failpoint of a running shop: a customer's way that leads to it, the fault
//! there, and what must hold all the same once everything has come to rest.
//!
//! The services list their failpoints, so that a new one without a way that leads to
//! it fails the walk. Meant for a shop of one replica each with short leases, as
//! `cargo dockside test system` starts it.

mod scene;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use self::scene::{Plot, Scenes};
use crate::{Shop, eventually};

const SERVICES: [&str; 3] = ["user", "product", "order"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Crash,
    /// Longer than the lease that is held there: others take over, and then it goes on.
    Stall,
    /// As when the database is away.
    Fail,
}

impl Fault {
    fn action(self, failpoint: &str) -> &'static str {
        match self {
            Self::Crash => "crash",
            // A claim's lease is of four seconds, a saga's of three.
            Self::Stall if failpoint.starts_with("order.place") || failpoint.starts_with("order.sweep") => {
                "stall 4500"
            }
            Self::Stall => "stall 3300",
            Self::Fail => "fail",
        }
    }
}

/// Has each of the faults happen at each failpoint, `rounds` times, and calls `progress` for each.
///
/// A way whose fault has happened ends while the next one begins, so later faults hit
/// earlier orders too. Panics when a failpoint is not reached, or something is lost,
/// doubled or stuck.
pub async fn walk(shop: &Arc<Shop>, faults: &[Fault], rounds: u32, progress: impl Fn(&str)) {
    for _ in 0..rounds {
        // Signed in anew: an access token lasts for minutes.
        let scenes = Arc::new(Scenes::open(shop.clone()).await);
        for fault in faults {
            let [user, product, order] = SERVICES.map(|service| lane(&scenes, service, *fault, &progress));
            let (user, product, order) = tokio::join!(user, product, order);
            for mut ending in [user, product, order] {
                while let Some(ended) = ending.join_next().await {
                    if let Err(panic) = ended {
                        std::panic::resume_unwind(panic.into_panic());
                    }
                }
            }
        }
    }
}

/// The failpoints of one service, one after the other; returns what is still coming to rest.
async fn lane(
    scenes: &Arc<Scenes>,
    service: &'static str,
    fault: Fault,
    progress: &impl Fn(&str),
) -> JoinSet<()> {
    let process = Process::of(scenes.shop.clone(), service);
    let mut ending = JoinSet::new();
    for name in process.failpoints().await {
        let started = Instant::now();
        let scene = scenes.prepare(Plot::leading_to(service, &name)).await;
        let pid = process.list().await["pid"].clone();
        process.arm(&name, fault.action(&name)).await;
        ending.spawn(scene.play(name.clone()));
        let reached = || async {
            let now = process.ask().await?;
            let hit = match fault {
                Fault::Crash => now["pid"] != pid,
                Fault::Stall | Fault::Fail => now["pid"] == pid && now["armed"].get(&name).is_none(),
            };
            hit.then_some(())
        };
        eventually(&format!("{service} to reach {name}"), Duration::from_secs(60), reached).await;
        progress(&format!("{fault:?} at {name} in {service}: {:.1} s", started.elapsed().as_secs_f64()));
    }
    ending
}

/// A service's admin port.
struct Process {
    shop: Arc<Shop>,
    service: &'static str,
    url: String,
}

impl Process {
    fn of(shop: Arc<Shop>, service: &'static str) -> Self {
        let url = format!("{}/failpoints", shop.admin(service));
        Self { shop, service, url }
    }

    /// Those in this service: its own, and those of every relay and consumer.
    async fn failpoints(&self) -> Vec<String> {
        let names = self.list().await["names"].clone();
        let names = names.as_array().into_iter().flatten().filter_map(Value::as_str);
        let here = [self.service, "relay", "consumer"];
        let here = names.filter(|name| name.split('.').next().is_some_and(|part| here.contains(&part)));
        here.map(str::to_owned).collect()
    }

    /// `None` while the process is being started again.
    async fn ask(&self) -> Option<Value> {
        self.shop.client.get(&self.url).send().await.ok()?.json().await.ok()
    }

    async fn list(&self) -> Value {
        let what = format!("{}'s failpoints (a release build has none)", self.service);
        eventually(&what, Duration::from_secs(30), || self.ask()).await
    }

    async fn arm(&self, name: &str, action: &'static str) {
        let armed = || async {
            let put = self.shop.client.put(format!("{}/{name}", self.url)).body(action);
            put.send().await.ok().filter(|answer| answer.status() == 204).map(drop)
        };
        eventually(&format!("{name} to be armed"), Duration::from_secs(30), armed).await;
    }
}
