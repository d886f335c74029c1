//! Work in batches: what has queued up while the last batch was committing
//! goes into the next one. One item alone never waits. After a batch of several, or when more waits already, there is a
//! pause, so that under load fewer and larger batches are made: each costs about as much as another, however much is in it.
//! A machine that is slow makes longer pauses, and so less work for itself.

mod split;

use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry::metrics::Counter;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::Instrument;

pub use split::{BUDGET, split};

use crate::telemetry::{counter, label, observed};

/// Most items in one batch, so that one transaction stays short.
pub const MAX_BATCH: usize = 128;

/// Items waiting before more are refused.
const QUEUE: usize = 1024;

/// Hands items to a worker that processes them in batches and answers each.
pub struct Batcher<I, O> {
    queue: mpsc::Sender<(I, oneshot::Sender<O>)>,
    name: &'static str,
    refused: Counter<u64>,
}

impl<I, O> Clone for Batcher<I, O> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), name: self.name, refused: self.refused.clone() }
    }
}

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest time for one batch. One that takes longer is dropped, with the transaction that it is in.
const BATCH_DEADLINE: Duration = Duration::from_secs(60);

/// How long the next batch waits for this one, where batches may go on beside each other.
const IN_STEP: Duration = Duration::from_millis(250);

/// The pause after a batch while there is much to do: as long as the batch took, within these.
const LINGER: Duration = Duration::from_millis(5);
const LONGEST_LINGER: Duration = Duration::from_millis(20);

/// The pause after a batch that took this long, if there is much to do. Otherwise none, as even a zero pause
/// may take a millisecond.
pub async fn linger(busy: bool, took: Duration) {
    if busy {
        tokio::time::sleep(took.clamp(LINGER, LONGEST_LINGER)).await;
    }
}

/// Batches that go on beside each other, at most.
const BESIDE: usize = 8;

/// The queue is full, or no answer came in ten seconds. In the latter case the
/// work may be done all the same, if it had been begun.
#[derive(Debug, thiserror::Error)]
#[error("too much is waiting")]
pub struct Overloaded;

impl<I: Send + 'static, O: Send + 'static> Batcher<I, O> {
    /// `process` gets 1..=[`MAX_BATCH`] items and returns an answer for each,
    /// in order. The worker ends when the last `Batcher` is dropped. Metrics have it by `name`.
    pub fn spawn<F, Fut>(name: &'static str, process: F) -> Self
    where
        F: Fn(Arc<Vec<I>>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<O>> + Send + 'static,
        I: Sync,
    {
        Self::with(name, BATCH_DEADLINE, 1, true, process)
    }

    /// The same, but a slow batch goes on beside the next ones, up to eight: for calls, some of which may
    /// meet a peer that does not answer.
    pub fn spawn_beside<F, Fut>(name: &'static str, process: F) -> Self
    where
        F: Fn(Arc<Vec<I>>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<O>> + Send + 'static,
        I: Sync,
    {
        Self::with(name, BATCH_DEADLINE, BESIDE, true, process)
    }

    /// The same without a pause between batches: for reads, which cost little and have callers that wait.
    pub fn spawn_reads<F, Fut>(name: &'static str, process: F) -> Self
    where
        F: Fn(Arc<Vec<I>>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<O>> + Send + 'static,
        I: Sync,
    {
        Self::with(name, BATCH_DEADLINE, BESIDE, false, process)
    }

    fn with<F, Fut>(name: &'static str, deadline: Duration, beside: usize, pauses: bool, process: F) -> Self
    where
        F: Fn(Arc<Vec<I>>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<O>> + Send + 'static,
        I: Sync,
    {
        let (queue, mut items) = mpsc::channel::<(I, oneshot::Sender<O>)>(QUEUE);
        let worker = async move {
            let mut waiting = Vec::with_capacity(MAX_BATCH);
            let mut under_way = JoinSet::new();
            while items.recv_many(&mut waiting, MAX_BATCH).await > 0 {
                // Their callers have timed out, and may ask again meanwhile.
                waiting.retain(|(_, answer)| !answer.is_closed());
                if waiting.is_empty() {
                    continue;
                }
                let (batch, answers): (Vec<I>, Vec<_>) = waiting.drain(..).unzip();
                let (size, begun) = (batch.len(), Instant::now());
                let work = process(Arc::new(batch)).in_current_span();
                // A task of its own, so that a panic fails one batch and not the worker.
                under_way.spawn(async move {
                    let Ok(outcomes) = tokio::time::timeout(deadline, work).await else {
                        return tracing::error!("batch.given_up");
                    };
                    for (answer, outcome) in answers.into_iter().zip(outcomes) {
                        // The caller may have gone; the work is done all the same.
                        let _ = answer.send(outcome);
                    }
                });
                if beside > 1 {
                    // The last one first: it is mostly done in a moment.
                    let _ = tokio::time::timeout(IN_STEP, under_way.join_next()).await;
                    while under_way.try_join_next().is_some() {}
                }
                while under_way.len() >= beside {
                    under_way.join_next().await;
                }
                if pauses {
                    linger(size > 1 || !items.is_empty(), begun.elapsed()).await;
                }
            }
        };
        tokio::spawn(worker);
        Self { refused: measure(name, &queue), queue, name }
    }

    /// The answer for one item. Does not wait for a place in the queue. An item whose caller
    /// stops waiting before its batch has begun is dropped.
    pub async fn run(&self, item: I) -> Result<O, Overloaded> {
        let (answer, outcome) = oneshot::channel();
        if self.queue.try_send((item, answer)).is_ok()
            && let Ok(Ok(outcome)) = tokio::time::timeout(PATIENCE, outcome).await
        {
            return Ok(outcome);
        }
        self.refused.add(1, &[label("batch", self.name)]);
        Err(Overloaded)
    }
}

/// Measures how much is queued, and counts refusals.
fn measure<T: Send + 'static>(name: &'static str, queue: &mpsc::Sender<T>) -> Counter<u64> {
    let (queue, labels) = (queue.downgrade(), [label("batch", name)]);
    observed("batch.queue.length", "{item}", "Items that wait for the next batch.", &labels, move || {
        let queue = queue.upgrade()?;
        Some(queue.max_capacity() - queue.capacity())
    });
    observed("batch.queue.limit", "{item}", "Most items that may wait.", &labels, || Some(QUEUE));
    let description = "Items refused, as too many waited, or timed out after ten seconds.";
    let refused = counter("batch.refused", "{item}", description);
    refused.add(0, &labels);
    refused
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn after_several_there_is_a_pause_and_after_one_alone_none() {
        assert!(linger(false, LONGEST_LINGER).now_or_never().is_some());
        assert!(linger(true, Duration::ZERO).now_or_never().is_none());
        let batcher = Batcher::spawn("test", |batch: Arc<Vec<u32>>| async move {
            vec![(batch.len(), std::time::Instant::now()); batch.len()]
        });
        let both = futures_util::future::join(batcher.run(1), batcher.run(2)).await;
        let (size, begun) = both.0.unwrap();
        assert_eq!((size, both.1.unwrap().0), (2, 2));
        assert!(batcher.run(3).await.unwrap().1 - begun >= LINGER);
    }

    #[tokio::test]
    async fn what_queues_up_during_a_batch_makes_the_next_one() {
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let held = gate.clone();
        let batcher = Batcher::spawn("test", move |batch: Arc<Vec<u32>>| {
            let held = held.clone();
            async move {
                held.acquire().await.unwrap().forget();
                let size = batch.len();
                batch.iter().map(|n| (*n, size)).collect()
            }
        });
        let asked: Vec<_> = (0..5u32)
            .map(|n| {
                let batcher = batcher.clone();
                tokio::spawn(async move { batcher.run(n).await.unwrap() })
            })
            .collect();
        gate.add_permits(5);
        for (n, task) in asked.into_iter().enumerate() {
            let (answered, size) = task.await.unwrap();
            assert_eq!(answered as usize, n);
            assert!((1..=5).contains(&size));
        }
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_begun() {
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let begun = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (held, seen) = (gate.clone(), begun.clone());
        let batcher = Batcher::spawn("test", move |batch: Arc<Vec<u32>>| {
            let held = held.clone();
            seen.lock().unwrap().extend(batch.iter().copied());
            async move {
                held.acquire().await.unwrap().forget();
                batch.to_vec()
            }
        });
        let ask = |n| {
            let batcher = batcher.clone();
            tokio::spawn(async move { batcher.run(n).await.unwrap() })
        };
        let first = ask(1);
        while begun.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let (gone, second) = (ask(2), ask(3));
        tokio::task::yield_now().await; // on one thread, so both are in the queue now
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        gate.add_permits(9);
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (1, 3));
        assert_eq!(*begun.lock().unwrap(), [1, 3]);
    }

    #[tokio::test]
    async fn a_batch_that_never_ends_does_not_hold_up_the_next() {
        let deadline = Duration::from_millis(50);
        let batcher = Batcher::with("test", deadline, 1, true, |batch: Arc<Vec<u32>>| async move {
            if batch.contains(&0) {
                std::future::pending::<()>().await;
            }
            batch.to_vec()
        });
        assert!(batcher.run(0).await.is_err());
        assert_eq!(batcher.run(1).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_call_that_is_not_answered_does_not_hold_up_the_next() {
        let begun = Arc::new(tokio::sync::Semaphore::new(0));
        let stuck = begun.clone();
        let batcher = Batcher::spawn_beside("test", move |batch: Arc<Vec<u32>>| {
            let stuck = stuck.clone();
            async move {
                if batch.contains(&0) {
                    stuck.add_permits(1);
                    std::future::pending::<()>().await;
                }
                batch.to_vec()
            }
        });
        for _ in 1..BESIDE {
            let waiting = batcher.clone();
            tokio::spawn(async move { waiting.run(0).await });
            // A batch of its own: it has begun before the next is asked for.
            begun.acquire().await.unwrap().forget();
        }
        assert_eq!(batcher.run(1).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_panic_fails_its_batch_only() {
        let batcher = Batcher::spawn("test", |batch: Arc<Vec<u32>>| async move {
            assert!(!batch.contains(&0), "zero");
            batch.to_vec()
        });
        assert!(batcher.run(0).await.is_err());
        assert_eq!(batcher.run(1).await.unwrap(), 1);
    }
}
