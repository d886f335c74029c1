//! Sends shoppers to the shop: when they are due (open loop), or as many as shop all the time (closed loop).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Interval, MissedTickBehavior, interval, interval_at};
use uuid::Uuid;

use crate::accounts::Accounts;
use crate::arrivals::{Arrival, Arrivals};
use crate::goods::Goods;
use crate::http::Client;
use crate::journey::Shopper;
use crate::plan::{Loop, Plan};
use crate::record::{Counts, Recorder, Second};

/// Shoppers who are due and not begun; more mean that the generator is too slow.
const QUEUE: usize = 10_000;
/// How often the pacer checks whether it has to stop.
const CHECK_EVERY: Duration = Duration::from_millis(50);
/// For those under way when nobody comes any more, on top of what an order may take.
const LAST_ONES: Duration = Duration::from_secs(30);
/// For those under way when the run is ended early.
const HURRY: Duration = Duration::from_secs(2);
/// A shopper in closed loop for whom something went wrong comes back after this, so that a dead shop is not hammered.
const AGAIN: Duration = Duration::from_millis(100);

/// A run under way, shared by its shoppers.
pub(crate) struct Run {
    pub(crate) plan: Plan,
    pub(crate) client: Arc<Client>,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) goods: Arc<Goods>,
    pub(crate) recorder: Recorder,
    /// Begins every Idempotency-Key of it.
    pub(crate) id: String,
    start: Instant,
}

/// Everything a run needs. Accounts and goods may serve for several runs, one after the other.
pub struct Generator {
    pub client: Arc<Client>,
    pub accounts: Arc<Accounts>,
    pub goods: Arc<Goods>,
    pub plan: Plan,
}

/// What a run brought.
pub struct Outcome {
    pub plan: Plan,
    pub counts: Counts,
    /// With the time until the last shopper went home.
    pub took: Duration,
    /// It was ended early.
    pub interrupted: bool,
    /// Products that could still be bought at the end.
    pub on_sale: usize,
}

impl Generator {
    /// Runs until everybody has gone home, or `stop` is ready; then those under way have two seconds. `on_second` is
    /// called each second.
    pub async fn run(self, stop: impl Future<Output = ()>, on_second: impl FnMut(&Second)) -> Outcome {
        tokio::pin!(stop);
        let start = Instant::now();
        let counting = self.plan.stages.iter().map(|stage| stage.counts).collect();
        let run = Arc::new(Run {
            recorder: Recorder::new(counting, start),
            id: Uuid::now_v7().simple().to_string(),
            start,
            client: self.client,
            accounts: self.accounts,
            goods: self.goods,
            plan: self.plan,
        });
        let renewing = tokio::spawn(renew(run.clone()));
        let halt = Arc::new(AtomicBool::new(false));
        let mut seconds = Seconds::new(&run, on_second);
        let interrupted = match run.plan.kind {
            Loop::Open => open(&run, &halt, stop, &mut seconds).await,
            Loop::Closed => closed(&run, &halt, stop, &mut seconds).await,
        };
        renewing.abort();
        let (stage, _) = run.plan.stage_at(start.elapsed());
        let last = run.recorder.tick(stage);
        let mut counts = run.recorder.snapshot();
        counts.unknown += last.backlog;
        Outcome {
            counts,
            took: start.elapsed(),
            interrupted,
            on_sale: run.goods.on_sale(),
            plan: run.plan.clone(),
        }
    }
}

/// Shoppers come when they are due; true when it was ended early.
async fn open<S: Future<Output = ()>, F: FnMut(&Second)>(
    run: &Arc<Run>,
    halt: &Arc<AtomicBool>,
    mut stop: Pin<&mut S>,
    seconds: &mut Seconds<F>,
) -> bool {
    let (sender, mut due) = mpsc::channel(QUEUE);
    let pacer = {
        let (run, halt) = (run.clone(), halt.clone());
        std::thread::Builder::new().name("pacer".to_owned()).spawn(move || pace(&run, &sender, &halt))
    };
    let mut shoppers = JoinSet::new();
    let coming = async {
        while let Some(arrival) = due.recv().await {
            while let Some(gone) = shoppers.try_join_next() {
                went(run, &gone);
            }
            if shoppers.len() >= run.plan.in_flight {
                run.recorder.dropped(arrival.stage, "in_flight");
            } else {
                shoppers.spawn(arrive(run.clone(), arrival));
            }
        }
    };
    let interrupted = tokio::select! {
        () = coming => false,
        () = seconds.pass() => false,
        () = stop.as_mut() => true,
    };
    halt.store(true, Ordering::Relaxed);
    let interrupted = drain(run, shoppers, seconds, stop, interrupted).await;
    drop(due);
    if let Ok(pacer) = pacer {
        // It ends by itself; what it recorded is kept whatever it says.
        let _ = pacer.join();
    }
    interrupted
}

async fn arrive(run: Arc<Run>, arrival: Arrival) {
    let due = run.start + arrival.at;
    run.recorder.started(arrival.stage, due.elapsed());
    Shopper::new(run, arrival.number, arrival.stage, due).shop().await;
}

/// Hands over each shopper when it is due. A thread of its own, as it sleeps to some 50 microseconds, and the runtime's
/// timers to a millisecond.
#[expect(clippy::disallowed_methods, reason = "a thread that does nothing else")]
fn pace(run: &Run, sender: &mpsc::Sender<Arrival>, halt: &AtomicBool) {
    for arrival in Arrivals::new(&run.plan.stages, run.plan.seed) {
        let due = run.start + arrival.at;
        loop {
            if halt.load(Ordering::Relaxed) {
                return;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(CHECK_EVERY));
        }
        run.recorder.offered(arrival.stage, 1);
        if sender.try_send(arrival).is_err() {
            run.recorder.dropped(arrival.stage, "generator");
        }
    }
}

/// As many as the stages say shop all the time; true when it was ended early.
async fn closed<S: Future<Output = ()>, F: FnMut(&Second)>(
    run: &Arc<Run>,
    halt: &Arc<AtomicBool>,
    mut stop: Pin<&mut S>,
    seconds: &mut Seconds<F>,
) -> bool {
    let most = run.plan.stages.iter().map(|stage| stage.from.max(stage.to)).fold(0.0, f64::max);
    let mut shoppers = JoinSet::new();
    for user in 0..(most.ceil() as u64) {
        shoppers.spawn(user_loop(run.clone(), halt.clone(), user));
    }
    let interrupted = tokio::select! {
        () = tokio::time::sleep(run.plan.length()) => false,
        () = seconds.pass() => false,
        () = stop.as_mut() => true,
    };
    halt.store(true, Ordering::Relaxed);
    drain(run, shoppers, seconds, stop, interrupted).await
}

/// One who begins again when done.
async fn user_loop(run: Arc<Run>, halt: Arc<AtomicBool>, user: u64) {
    let mut journeys = 0;
    while !halt.load(Ordering::Relaxed) {
        let now = Instant::now();
        let (stage, within) = run.plan.stage_at(now - run.start);
        if user as f64 >= run.plan.stages[stage].level(within).round() {
            tokio::time::sleep(CHECK_EVERY).await;
            continue;
        }
        run.recorder.offered(stage, 1);
        run.recorder.started(stage, Duration::ZERO);
        let mut shopper = Shopper::new(run.clone(), (user << 32) + journeys, stage, now);
        journeys += 1;
        let went_well = shopper.shop().await;
        if went_well {
            shopper.think().await;
        } else {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Waits for those under way, within bounds; true when it was ended early.
async fn drain<S: Future<Output = ()>, F: FnMut(&Second)>(
    run: &Run,
    mut shoppers: JoinSet<()>,
    seconds: &mut Seconds<F>,
    stop: Pin<&mut S>,
    interrupted: bool,
) -> bool {
    let limit = if interrupted { HURRY } else { run.plan.confirm_within + LAST_ONES };
    let all = async {
        while let Some(gone) = shoppers.join_next().await {
            went(run, &gone);
        }
    };
    let now = tokio::select! {
        () = all => false,
        () = seconds.pass() => false,
        () = tokio::time::sleep(limit) => false,
        () = stop, if !interrupted => true,
    };
    shoppers.shutdown().await;
    interrupted || now
}

/// A shopper that broke did not count itself out.
fn went(run: &Run, gone: &Result<(), JoinError>) {
    if gone.is_err() {
        run.recorder.went();
        run.recorder.dropped(0, "broken");
    }
}

async fn renew(run: Arc<Run>) {
    let mut each = interval(Duration::from_secs(1));
    each.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        each.tick().await;
        for error in run.accounts.renew(&run.client).await {
            run.recorder.not_renewed(&error.name);
        }
    }
}

/// Closes each second of a run.
struct Seconds<F> {
    run: Arc<Run>,
    each: Interval,
    on_second: F,
}

impl<F: FnMut(&Second)> Seconds<F> {
    fn new(run: &Arc<Run>, on_second: F) -> Self {
        let second = Duration::from_secs(1);
        let mut each = interval_at(tokio::time::Instant::from_std(run.start + second), second);
        each.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { run: run.clone(), each, on_second }
    }

    /// Does so for ever.
    async fn pass(&mut self) {
        loop {
            self.each.tick().await;
            // The second that ends now, whatever begins.
            let at = self.run.start.elapsed().saturating_sub(Duration::from_millis(500));
            let second = self.run.recorder.tick(self.run.plan.stage_at(at).0);
            (self.on_second)(&second);
        }
    }
}
