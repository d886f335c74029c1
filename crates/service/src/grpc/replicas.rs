//! The replicas of a service that calls go to in turn.

mod names;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt;

use super::connector::{self, Connector};
use super::{PING_EVERY, code_name, code_of, method};
use crate::back_off;
use crate::telemetry::Call;
use crate::tls::Identity;

const SERVER_ANSWERS_IN: Duration = Duration::from_secs(3);

/// A connection to each replica of a service. A name may stand for several replicas, as a headless Service's
/// does in Kubernetes: it is resolved again and again, and each of its addresses is a replica. Calls take
/// turns, and pass over a replica that has just failed one: its connection ended, it answered `UNAVAILABLE`,
/// as a replica without its database does, or it did not answer in the caller's time.
#[derive(Clone)]
pub struct Replicas(Arc<Turns>);

struct Turns {
    replicas: RwLock<Arc<[Arc<Replica>]>>,
    next: AtomicUsize,
    /// What `passed_over` counts from.
    start: Instant,
    /// A replica has failed: its name may stand for others by now.
    failed: Arc<Notify>,
    made: Call,
}

struct Replica {
    /// The place in the list of addresses that it is of.
    named: usize,
    /// The addresses of the name; `None` for one that was not resolved.
    at: Option<SocketAddr>,
    channel: Channel,
    /// Milliseconds; 0 while it does not fail.
    passed_over: AtomicU64,
    /// When that was set last, in the same milliseconds.
    failed_at: AtomicU64,
    /// When it was asked last although it is passed over, in the same milliseconds.
    asked_at: AtomicU64,
    /// Trials in a row that failed.
    failures: AtomicU32,
    /// It said nothing when it failed last.
    silent: AtomicBool,
}

impl Replica {
    fn new(named: usize, at: Option<SocketAddr>, channel: Channel) -> Self {
        let never = || AtomicU64::new(0);
        Self {
            named,
            at,
            channel,
            passed_over: never(),
            failed_at: never(),
            asked_at: never(),
            failures: AtomicU32::new(0),
            silent: AtomicBool::new(false),
        }
    }
}

/// How long a replica that failed a call is passed over; then one call tries it. Twice as long after each further
/// failure, as such a call may be a slow one.
const PASSED_OVER: Duration = Duration::from_secs(1);
const LONGEST_PASSED_OVER: Duration = Duration::from_secs(8);

/// A call that is cancelled before this says nothing about its replica: its caller may have gone away.
const PATIENCE: Duration = Duration::from_millis(1500);

impl Replicas {
    /// From one or more addresses, with commas; `https` ones are called with this `identity`.
    pub fn new(addresses: &str, identity: Option<&Identity>) -> anyhow::Result<Self> {
        let addresses: Vec<(Endpoint, Connector)> = addresses
            .split(',')
            .map(|address| endpoint(address.trim(), identity))
            .collect::<anyhow::Result<_>>()?;
        let one = |(named, (endpoint, connector)): (usize, &(Endpoint, Connector))| {
            Arc::new(Replica::new(named, None, endpoint.connect_with_connector_lazy(connector.clone())))
        };
        let replicas = RwLock::new(addresses.iter().enumerate().map(one).collect());
        let (next, start, failed) = (AtomicUsize::new(0), Instant::now(), Arc::default());
        let turns = Arc::new(Turns { replicas, next, start, failed, made: Call::made() });
        addresses
            .into_iter()
            .enumerate()
            .for_each(|(named, (endpoint, connector))| turns.follow(named, endpoint, connector));
        Ok(Self(turns))
    }
}

impl Turns {
    fn replicas(&self) -> Arc<[Arc<Replica>]> {
        self.replicas.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn until(&self, pause: Duration) -> u64 {
        u64::try_from((self.start.elapsed() + pause).as_millis()).unwrap_or(u64::MAX)
    }

    /// The place of the next replica; another than where the call was `tried` last, if there is another. When
    /// all are passed over, it is the one that has been left alone for longest: in a rolling restart that one
    /// is back, while the one that failed last is not.
    fn pick(&self, tried: Option<usize>) -> (usize, Arc<Replica>) {
        let replicas = self.replicas();
        let (turn, count) = (self.next.fetch_add(1, Ordering::Relaxed), replicas.len());
        let all = || (0..count).map(|skip| turn.wrapping_add(skip) % count);
        let others = || all().filter(|at| count == 1 || Some(*at) != tried);
        let now = self.until(Duration::ZERO);
        let usable = |at: &usize| {
            let passed_over = &replicas[*at].passed_over;
            let until = passed_over.load(Ordering::Relaxed);
            // Of the callers that find it due, one tries it.
            let (taken, order) = (self.until(PASSED_OVER), Ordering::Relaxed);
            until == 0 || until <= now && passed_over.compare_exchange(until, taken, order, order).is_ok()
        };
        let last = |at: &usize| {
            let Replica { failed_at, asked_at, .. } = &*replicas[*at];
            failed_at.load(Ordering::Relaxed).max(asked_at.load(Ordering::Relaxed))
        };
        let picked = others().find(usable).unwrap_or_else(|| {
            // One that hangs costs the call all of its time: the one that has just ended a connection may be better.
            let hangs = |at: &usize| replicas[*at].silent.load(Ordering::Relaxed);
            let spoke = || all().filter(|at| !hangs(at));
            let wanted = others().filter(|at| !hangs(at)).min_by_key(last);
            let wanted = wanted.or_else(|| spoke().min_by_key(last)).or_else(|| all().min_by_key(last));
            let picked = wanted.unwrap_or(0);
            replicas[picked].asked_at.store(now, Ordering::Relaxed);
            picked
        });
        (picked, replicas[picked].clone())
    }

    fn ended(&self, replica: &Replica, begun: u64, well: bool) {
        if well {
            replica.failures.store(0, Ordering::Relaxed);
            replica.passed_over.store(0, Ordering::Relaxed);
            return;
        }
        // Calls that were under way when it failed add nothing to that.
        if begun < replica.failed_at.load(Ordering::Relaxed) {
            return;
        }
        let failures = replica.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.failed.notify_one();
        let pause = back_off(PASSED_OVER, failures, LONGEST_PASSED_OVER);
        replica.failed_at.store(self.until(Duration::ZERO), Ordering::Relaxed);
        replica.passed_over.store(self.until(pause), Ordering::Relaxed);
    }
}

/// The replica that a call was tried at last, as its place in the list, which another may have by now. It is an extension
/// of the request, so that the same call goes to another replica when it is made again.
#[derive(Clone, Default)]
pub(super) struct Tried(Arc<AtomicUsize>);

impl Tried {
    /// What is stored is one more; 0: nowhere yet.
    fn place(&self) -> Option<usize> {
        self.0.load(Ordering::Relaxed).checked_sub(1)
    }
}

/// A call under way. When it is dropped, it was cancelled.
struct UnderWay<'a> {
    turns: &'a Turns,
    replica: Arc<Replica>,
    begun: Instant,
    method: String,
    answer: Option<Code>,
}

impl<'a> UnderWay<'a> {
    fn begin(turns: &'a Turns, path: &str, tried: Option<&Tried>) -> Self {
        let method = method(path).to_owned();
        let (place, replica) = turns.pick(tried.and_then(Tried::place));
        if let Some(tried) = tried {
            tried.0.store(place + 1, Ordering::Relaxed);
        }
        Self { turns, replica, begun: Instant::now(), method, answer: None }
    }

    /// `None`: there was no answer.
    fn end(mut self, answer: Option<Code>) {
        self.answer = Some(answer.unwrap_or(Code::Unavailable));
        self.replica.silent.store(false, Ordering::Relaxed);
        let well = answer.is_some_and(|code| code != Code::Unavailable);
        self.turns.ended(&self.replica, self.begun_at(), well);
    }

    fn begun_at(&self) -> u64 {
        self.turns.until(Duration::ZERO).saturating_sub(self.begun.elapsed().as_millis() as u64)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        self.turns.made.record(
            &self.method,
            code_name(self.answer.unwrap_or(Code::Cancelled)),
            took.as_secs_f64(),
        );
        if self.answer.is_none() && took >= PATIENCE {
            self.replica.silent.store(true, Ordering::Relaxed);
            self.turns.ended(&self.replica, self.begun_at(), false);
        }
    }
}

type Answered = Result<axum::http::Response<tonic::body::Body>, tonic::transport::Error>;

impl tower::Service<axum::http::Request<tonic::body::Body>> for Replicas {
    type Response = axum::http::Response<tonic::body::Body>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Answered> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: axum::http::Request<tonic::body::Body>) -> Self::Future {
        let turns = self.0.clone();
        Box::pin(async move {
            let tried = request.extensions().get::<Tried>();
            let call = UnderWay::begin(&turns, request.uri().path(), tried);
            let answered = call.replica.channel.clone().oneshot(request).await;
            call.end(answered.as_ref().ok().map(|answer| code_of(answer.headers())));
            answered
        })
    }
}

/// A channel that connects when first used, and again after every loss.
pub fn channel(address: &str) -> anyhow::Result<Channel> {
    let (endpoint, connector) = endpoint(address, None)?;
    Ok(endpoint.connect_with_connector_lazy(connector))
}

fn endpoint(address: &str, identity: Option<&Identity>) -> anyhow::Result<(Endpoint, Connector)> {
    let (endpoint, connector) = connector::endpoint(address, identity)?;
    Ok((kept_alive(endpoint), connector))
}

fn kept_alive(endpoint: Endpoint) -> Endpoint {
    endpoint
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(SERVER_ANSWERS_IN)
        .keep_alive_while_idle(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_take_turns_and_one_at_a_time_tries_a_replica_that_failed() {
        let Replicas(turns) =
            Replicas::new("http://127.0.0.1:1, http://127.0.0.1:2,http://127.0.0.1:3", None).unwrap();
        let picked = || turns.pick(None).0;
        let mut three = [picked(), picked(), picked()];
        three.sort_unstable();
        assert_eq!(three, [0, 1, 2]);
        let later = |replica: &Arc<Replica>| {
            replica.passed_over.store(turns.until(Duration::from_secs(60)), Ordering::Relaxed);
        };
        later(&turns.replicas()[0]);
        assert!((0..9).all(|_| picked() != 0));
        turns.replicas()[0].passed_over.store(1, Ordering::Relaxed);
        while turns.until(Duration::ZERO) <= 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!((0..9).filter(|_| picked() == 0).count(), 1);
        turns.replicas().iter().for_each(later);
        assert_eq!((0..9).filter(|_| picked() == 0).count(), 3);
    }

    /// In a rolling restart: the first is back, and not used again yet, when the second goes.
    #[tokio::test]
    async fn when_all_have_failed_the_one_that_was_left_alone_for_longest_is_tried() {
        let Replicas(turns) = Replicas::new("http://127.0.0.1:1,http://127.0.0.1:2", None).unwrap();
        for (at, replica) in turns.replicas().iter().enumerate() {
            replica.passed_over.store(turns.until(Duration::from_secs(60)), Ordering::Relaxed);
            replica.failed_at.store(at as u64 + 1, Ordering::Relaxed);
        }
        while turns.until(Duration::ZERO) <= 2 {
            tokio::task::yield_now().await;
        }
        let picked = || turns.pick(None).0;
        // And then each in its turn: it may hang, and the other may only have been busy.
        assert_eq!([picked(), picked(), picked(), picked()], [0, 1, 0, 1]);
        turns.replicas()[1].failed_at.store(turns.until(Duration::from_secs(1)), Ordering::Relaxed);
        assert_eq!(picked(), 0);
    }

    /// In a rolling restart of many calls: none of them meets twice the replica that is gone.
    #[tokio::test]
    async fn a_call_that_is_made_again_goes_to_another_replica() {
        let Replicas(turns) = Replicas::new("http://127.0.0.1:1,http://127.0.0.1:2", None).unwrap();
        let later = turns.until(Duration::from_secs(60));
        turns.replicas().iter().for_each(|replica| replica.passed_over.store(later, Ordering::Relaxed));
        for _ in 0..9 {
            let tried = Tried::default();
            let mut places = Vec::new();
            for _ in 0..3 {
                drop(UnderWay::begin(&turns, "/a.B/C", Some(&tried)));
                places.extend(tried.place());
                // Others ask in between.
                turns.pick(None);
            }
            assert!(places.len() == 3 && places[0] != places[1] && places[1] != places[2], "{places:?}");
        }
        let Replicas(alone) = Replicas::new("http://127.0.0.1:1", None).unwrap();
        assert_eq!((alone.pick(None).0, alone.pick(Some(0)).0), (0, 0));
    }

    #[tokio::test]
    async fn a_replica_that_says_nothing_is_passed_over_for_longer_and_longer() {
        let Replicas(turns) = Replicas::new("http://127.0.0.1:1,http://127.0.0.1:2", None).unwrap();
        let passed_over = |at: usize| turns.replicas()[at].passed_over.load(Ordering::Relaxed);
        let at = |call: &UnderWay<'_>| usize::from(Arc::ptr_eq(&call.replica, &turns.replicas()[1]));
        let cancelled = UnderWay::begin(&turns, "/a.B/C", None);
        let first = at(&cancelled);
        drop(cancelled);
        assert_eq!(passed_over(first), 0, "its caller had gone");
        let mut pause = PASSED_OVER;
        for _ in 0..6 {
            let mut call = UnderWay::begin(&turns, "/a.B/C", None);
            while at(&call) != first {
                call.end(Some(Code::Ok));
                call = UnderWay::begin(&turns, "/a.B/C", None);
            }
            // As if it had begun this long ago, and had been cancelled for the first time.
            turns.replicas()[first].failed_at.store(0, Ordering::Relaxed);
            call.begun -= PATIENCE;
            drop(call);
            let wait = u128::from(passed_over(first)) - turns.start.elapsed().as_millis();
            assert!(wait <= pause.as_millis() && wait > pause.as_millis() / 2, "{wait} ms, not {pause:?}");
            // One that was under way when it failed says nothing new.
            let failures = turns.replicas()[first].failures.load(Ordering::Relaxed);
            turns.replicas()[first].failed_at.store(u64::MAX, Ordering::Relaxed);
            let begun = Instant::now() - PATIENCE;
            let (method, answer) = (String::new(), None);
            drop(UnderWay { turns: &turns, replica: turns.replicas()[first].clone(), begun, method, answer });
            assert_eq!(turns.replicas()[first].failures.load(Ordering::Relaxed), failures);
            turns.replicas()[first].passed_over.store(1, Ordering::Relaxed);
            pause = (pause * 2).min(LONGEST_PASSED_OVER);
        }
        let mut call = UnderWay::begin(&turns, "/a.B/C", None);
        while at(&call) != first {
            call = UnderWay::begin(&turns, "/a.B/C", None);
        }
        call.end(Some(Code::Ok));
        assert_eq!((passed_over(first), turns.replicas()[first].failures.load(Ordering::Relaxed)), (0, 0));
    }

    #[tokio::test]
    async fn what_is_no_address_is_refused() {
        assert!(Replicas::new("", None).is_err() && Replicas::new("http://a:1,", None).is_err());
        let error = Replicas::new("https://a:1", None).err().unwrap();
        assert!(error.to_string().contains("TLS_DIR"), "{error}");
    }
}
