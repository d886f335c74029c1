//! Streams of orders' changes for clients.
//!
//! One connection per process receives what every replica has committed (LISTEN). While it is lost, and in
//! case a message is lost, the versions of the orders that have listeners are polled. A changed order is
//! loaded once for all its listeners. Each listener gets the newest state and works out what it has not sent
//! yet. So a slow listener holds up nobody and misses nothing.

mod store;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::Bytes;
use futures_util::FutureExt;
use order_core::ids::OrderId;
use service::Pulse;
use service::batch::{MAX_BATCH, linger};
use service::db::Pool;
use service::telemetry::observed;
use sqlx::Executor;
use sqlx::postgres::PgListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::order::{self, Order, Status, Viewer};

const CHANNEL: &str = "orders_changed";

/// Ids in one message: PostgreSQL takes 8,000 bytes.
/// <https://www.postgresql.org/docs/current/sql-notify.html>
const IDS: usize = 200;

/// Orders that wait to be announced. One more is dropped: polling finds it.
const ANNOUNCED: usize = 8192;

/// Orders loaded at once.
const LOAD: usize = 100;

/// Longest wait for the connection that receives the messages; polling waits with it.
const CONNECT: Duration = Duration::from_secs(2);
/// Longest wait for the answer that shows that the connection still leads to PostgreSQL. It is checked at
/// each poll.
const BEAT: Duration = Duration::from_secs(2);
/// Between two polls while there is no connection that listens.
const POLL_WITHOUT_LISTENER: Duration = Duration::from_secs(1);

/// A change of an order's status, as a Server-Sent Event.
#[derive(Debug)]
struct Change {
    version: i64,
    owner: Bytes,
    staff: Bytes,
}

/// All changes of an order so far.
#[derive(Debug, Default)]
pub struct Changes {
    changes: Vec<Change>,
    /// There will be no more.
    pub ended: bool,
}

impl Changes {
    pub fn of(order: &Order) -> Self {
        let change = |index: usize| {
            let version = order.history[index].version;
            let event = |viewer| {
                let view = order.as_of(index).view(viewer);
                let data = serde_json::to_string(&view).unwrap_or_default(); // one line, as JSON escapes
                Bytes::from(format!("id: {version}\nevent: status\ndata: {data}\n\n"))
            };
            Change { version, owner: event(Viewer::Owner), staff: event(Viewer::Staff) }
        };
        Self {
            changes: (0..order.history.len()).map(change).collect(),
            ended: matches!(order.status, Status::Delivered | Status::Cancelled),
        }
    }

    /// The version of the newest change.
    pub fn version(&self) -> i64 {
        self.changes.last().map_or(0, |change| change.version)
    }

    /// Versions and events after `seen`, oldest first.
    pub fn after(&self, seen: i64, viewer: Viewer) -> impl Iterator<Item = (i64, Bytes)> {
        self.changes.iter().filter(move |change| change.version > seen).map(move |change| {
            let event = if viewer == Viewer::Staff { &change.staff } else { &change.owner };
            (change.version, event.clone())
        })
    }
}

struct Watched {
    /// The order's version that was published last.
    version: i64,
    listeners: usize,
    newest: watch::Sender<Option<Arc<Changes>>>,
}

#[derive(Clone)]
pub struct OrderStream(Arc<Inner>);

struct Inner {
    pool: Pool,
    slots: Arc<Semaphore>,
    watched: Mutex<HashMap<OrderId, Watched>>,
    changed: mpsc::Sender<OrderId>,
    poll_every: Duration,
}

/// A place among an order's listeners; dropping it frees it.
pub struct Listener {
    stream: OrderStream,
    order: OrderId,
    newest: watch::Receiver<Option<Arc<Changes>>>,
    _slot: OwnedSemaphorePermit,
}

impl Listener {
    /// The newest state, once it differs from the last one seen.
    pub async fn changed(&mut self) -> Option<Arc<Changes>> {
        loop {
            self.newest.changed().await.ok()?;
            let newest = self.newest.borrow_and_update().clone();
            if newest.is_some() {
                return newest;
            }
        }
    }

    /// The state that the listener read at the start need not be loaded again.
    pub fn knows(&self, version: i64) {
        // The other listeners may not have it yet, and would never get it if polling took it for published.
        if let Some(watched) = self.stream.watched().get_mut(&self.order)
            && watched.listeners == 1
        {
            watched.version = watched.version.max(version);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut all = self.stream.watched();
        if let Some(watched) = all.get_mut(&self.order) {
            watched.listeners -= 1;
            if watched.listeners == 0 {
                all.remove(&self.order);
            }
        }
    }
}

impl OrderStream {
    /// With places for `most` listeners, and the other end of [`OrderStream::announce`]. Every `poll_every`
    /// it looks for changes that were not announced.
    pub fn new(pool: Pool, most: usize, poll_every: Duration) -> (Self, mpsc::Receiver<OrderId>) {
        let (changed, announced) = mpsc::channel(ANNOUNCED);
        let slots = Arc::new(Semaphore::new(most));
        let (free, description) = (slots.clone(), "Streams of an order's events that are open.");
        observed("order.stream.listeners", "{listener}", description, &[], move || {
            Some(most.saturating_sub(free.available_permits()))
        });
        let description = "Most streams that may be open.";
        observed("order.stream.listeners.limit", "{listener}", description, &[], move || Some(most));
        (Self(Arc::new(Inner { pool, slots, watched: Mutex::default(), changed, poll_every })), announced)
    }

    /// A place among the order's listeners; `None` when all are taken. Read the
    /// order after this, so that no change falls between.
    pub fn listen(&self, order: OrderId) -> Option<Listener> {
        let slot = self.0.slots.clone().try_acquire_owned().ok()?;
        let mut all = self.watched();
        let new = || Watched { version: 0, listeners: 0, newest: watch::channel(None).0 };
        let watched = all.entry(order).or_insert_with(new);
        watched.listeners += 1;
        let newest = watched.newest.subscribe();
        drop(all);
        Some(Listener { stream: self.clone(), order, newest, _slot: slot })
    }

    /// Announces to every replica that these orders have changed. Call it after the commit.
    pub fn announce(&self, orders: &[OrderId]) {
        for order in orders {
            let _ = self.0.changed.try_send(*order);
        }
    }

    /// Sends what is announced. NOTIFY is a statement of its own: inside the transactions it would queue all
    /// their commits behind one lock.
    pub async fn send(self, mut announced: mpsc::Receiver<OrderId>, stop: CancellationToken, pulse: Pulse) {
        let mut orders = Vec::with_capacity(IDS);
        while pulse.rest(stop.run_until_cancelled(announced.recv_many(&mut orders, IDS))).await.is_some() {
            let begun = Instant::now();
            let ids: Vec<String> = orders.drain(..).map(|id| id.to_string()).collect();
            if let Err(error) = store::notify(&self.0.pool, CHANNEL, &ids.join(",")).await {
                tracing::warn!(%error, "live.notify_failed"); // they are found by polling
            }
            linger(ids.len() > 1, begun.elapsed()).await;
        }
    }

    /// Receives changes and passes them on, until `stop`. A round ends within the poll's pause and the limits of what
    /// it waits for.
    pub async fn receive(self, stop: CancellationToken, pulse: Pulse) {
        let mut listener: Option<PgListener> = None;
        let mut polled = Instant::now();
        loop {
            pulse.beat();
            let listened = listener.is_some();
            if !listened {
                listener = tokio::select! {
                    () = stop.cancelled() => return,
                    listener = listen(&self.0.pool) => listener,
                };
            }
            // At most so long, however many messages arrive: a change may still have been missed.
            let due = match (listened, listener.is_some()) {
                (true, true) => polled + self.0.poll_every,
                // Changes from before it listened were announced to nobody.
                (false, true) => Instant::now(),
                _ => polled + POLL_WITHOUT_LISTENER,
            };
            let received = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(due) => None,
                received = next_change(&mut listener) => received,
            };
            let changed = match received {
                Some(orders) => Ok(orders),
                // Something may have been missed.
                None => {
                    if listened {
                        beat(&mut listener).await;
                    }
                    polled = Instant::now();
                    self.poll().await
                }
            };
            let begun = Instant::now();
            let loaded = match changed {
                Ok(orders) => self.publish(&orders).await.map(|()| orders.len() > 1),
                Err(error) => Err(error),
            };
            match loaded {
                // Changes that come meanwhile are loaded together.
                Ok(busy) => linger(busy, begun.elapsed()).await,
                Err(error) => tracing::warn!(%error, "live.load_failed"),
            }
        }
    }

    /// Those of the orders with listeners that have another version than the published one.
    async fn poll(&self) -> sqlx::Result<Vec<OrderId>> {
        let known: Vec<(OrderId, i64)> =
            self.watched().iter().map(|(id, watched)| (*id, watched.version)).collect();
        if known.is_empty() {
            return Ok(Vec::new());
        }
        let (ids, versions): (Vec<OrderId>, Vec<i64>) = known.into_iter().unzip();
        store::changed(&self.0.pool, &ids, &versions).await
    }

    /// Loads the orders that have listeners, each once.
    async fn publish(&self, orders: &[OrderId]) -> sqlx::Result<()> {
        let wanted: HashSet<OrderId> = {
            let watched = self.watched();
            orders.iter().copied().filter(|order| watched.contains_key(order)).collect()
        };
        let wanted: Vec<OrderId> = wanted.into_iter().collect();
        for some in wanted.chunks(LOAD) {
            let loaded = order::store::load(&mut *self.0.pool.acquire().await?, some).await?;
            for order in loaded {
                let changes = Arc::new(Changes::of(&order));
                if let Some(watched) = self.watched().get_mut(&order.id) {
                    watched.version = order.version;
                    watched.newest.send_replace(Some(changes));
                }
            }
        }
        Ok(())
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<OrderId, Watched>> {
        self.0.watched.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

async fn listen(pool: &Pool) -> Option<PgListener> {
    let connect = async {
        let mut listener = pool.listener().await?;
        listener.listen(CHANNEL).await?;
        Ok::<_, sqlx::Error>(listener)
    };
    match timeout(CONNECT, connect).await {
        Ok(Ok(listener)) => Some(listener),
        Ok(Err(error)) => {
            tracing::warn!(%error, "live.not_listening");
            None
        }
        Err(late) => {
            tracing::warn!(error = %late, "live.not_listening");
            None
        }
    }
}

/// Drops a connection that does not answer. One whose other end has vanished or hangs is as silent as one
/// without messages.
async fn beat(listener: &mut Option<PgListener>) {
    let Some(connection) = listener else { return };
    let error = match timeout(BEAT, connection.execute("SELECT 1")).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(late) => late.to_string(),
    };
    tracing::warn!(error, "live.connection_lost");
    *listener = None;
}

/// The orders of all messages that have arrived; `None` when the connection was lost.
async fn next_change(listener: &mut Option<PgListener>) -> Option<Vec<OrderId>> {
    let Some(connection) = listener else { return std::future::pending().await };
    match connection.try_recv().await {
        Ok(Some(first)) => {
            let mut messages = vec![first];
            while messages.len() < MAX_BATCH
                && let Some(Ok(Some(next))) = connection.try_recv().now_or_never()
            {
                messages.push(next);
            }
            Some(
                messages
                    .iter()
                    .flat_map(|message| message.payload().split(','))
                    .filter_map(|id| id.parse().ok())
                    .collect(),
            )
        }
        lost => {
            if let Err(error) = lost {
                tracing::warn!(%error, "live.connection_lost");
            }
            *listener = None;
            None
        }
    }
}

#[cfg(test)]
mod tests;
