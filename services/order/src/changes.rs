//! What customers and staff change about an order that is placed.

use std::time::Duration;

use audit::Entry;
use identity::User;
use messaging::Outbox;
use order_core::ids::OrderId;
use service::db::Pool;
use tokio::time::{Instant, sleep};

use crate::address::Address;
use crate::erasure;
use crate::events::stream::OrderStream;
use crate::order::reads::{ReadError, Reads};
use crate::order::{CancelReason, Order, Status, store};
use crate::refunds;
use crate::saga::applier::NotApplied;
use crate::saga::facts::{self, Outcome, Report};
use crate::saga::runner::Sagas;
use crate::saga::{Input, Refusal, State, fact_store, measured};
use crate::times::Times;

/// How long a cancellation waits for the answer of a capture under way.
const CANCEL_WAIT: Duration = Duration::from_secs(3);

/// Why an order is not changed, or why the outcome is not known.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error(transparent)]
    NotRead(#[from] ReadError),
    #[error(transparent)]
    NotApplied(#[from] NotApplied),
}

/// Why an order gets no other address, or why the outcome is not known.
#[derive(Debug, thiserror::Error)]
pub enum ReaddressError {
    #[error("a part of the order has left, it has ended, or its customer is forgotten")]
    NotChangeable,
    #[error(transparent)]
    NotRead(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

#[derive(Clone)]
pub struct Changes {
    pool: Pool,
    outbox: Outbox,
    stream: OrderStream,
    reads: Reads,
    sagas: Sagas,
    times: Times,
}

impl Changes {
    pub fn new(
        pool: Pool,
        outbox: Outbox,
        stream: OrderStream,
        reads: Reads,
        sagas: Sagas,
        times: Times,
    ) -> Self {
        Self { pool, outbox, stream, reads, sagas, times }
    }

    /// Gives an order another address, and returns it as it is then.
    pub async fn readdress(&self, by: User, id: OrderId, address: &Address) -> Result<Order, ReaddressError> {
        let mut transaction = service::db::begin(&self.pool).await?;
        refunds::store::lock(&mut transaction, id).await?;
        let order = store::load(&mut transaction, &[id]).await?.pop();
        let changed = store::readdress(&mut transaction, id, address).await?;
        let order = order.filter(|_| changed).ok_or(ReaddressError::NotChangeable)?;
        let entry = Entry::new(by, "order.sent_elsewhere", "order", id);
        let entry = entry.personal(order.user_id.into(), &order.shipping_address, address);
        erasure::record(&mut transaction, order.user_id, entry).await?;
        transaction.commit().await?;
        self.stream.announce(&[id]);
        Ok(self.reads.get(id).await?)
    }

    /// Cancels an order that the caller can see, and returns it as it is then. While its money is being captured it may
    /// still be pending.
    pub async fn cancel(&self, user: User, id: OrderId) -> Result<Order, ChangeError> {
        let order = self.reads.visible(user, id).await?;
        let reason =
            if order.user_id == user.id.into() { CancelReason::Customer } else { CancelReason::Staff };
        let asked = [Some(CancelReason::Customer), Some(CancelReason::Staff)];
        if order.status == Status::Cancelled && !asked.contains(&order.cancel_reason) {
            return Err(NotApplied::Refused(Refusal::NotCancellable).into());
        }
        match reason {
            CancelReason::Staff => self.cancel_as_staff(user, id).await?,
            _ => drop(self.sagas.apply(id, Input::Cancel(reason)).await?),
        }
        // At once, unless the money is being captured at this moment: then the answer comes first.
        let deadline = Instant::now() + CANCEL_WAIT;
        loop {
            let order = self.reads.get(id).await?;
            if order.status == Status::Cancelled || Instant::now() > deadline {
                return Ok(order);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// In a transaction of its own, with its audit record, which has only the changes of this request.
    async fn cancel_as_staff(&self, by: User, id: OrderId) -> Result<(), NotApplied> {
        let mut transaction = service::db::begin(&self.pool).await?;
        // Locked, so that nobody changes it between what was and what is.
        let before = fact_store::lock(&mut transaction, &[id]).await?.remove(&id);
        let before = before.ok_or(NotApplied::UnknownOrder)?.state;
        let facts = vec![Input::Cancel(CancelReason::Staff)];
        let report = Report { order: id, facts, lease: None };
        let mut applied = facts::apply(&mut transaction, &[report], &self.times).await?;
        let after = match applied.outcomes.pop() {
            Some(Outcome::Applied(reported)) => reported.state,
            Some(Outcome::Refused(refusal)) => return Err(refusal.into()),
            Some(Outcome::UnknownOrder) | None => return Err(NotApplied::UnknownOrder),
        };
        let of = |state: &State| (state.status, state.pending_cancel);
        if of(&before) != of(&after) {
            // One that waits for the answer of a capture is asked for, and recorded, once.
            let entry = Entry::new(by, "order.cancelled", "order", id);
            let entry = entry.field("status", before.status, Status::Cancelled);
            audit::record(&mut transaction, entry).await?;
        }
        transaction.commit().await?;
        measured::count(&applied.happened);
        self.outbox.wake();
        self.stream.announce(&applied.moved);
        self.sagas.wake();
        Ok(())
    }
}
