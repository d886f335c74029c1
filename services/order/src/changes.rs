//! What customers and staff change about an order that is placed.

use std::time::Duration;

use identity::User;
use order_core::ids::OrderId;
use service::db::Pool;
use tokio::time::{Instant, sleep};

use crate::address::Address;
use crate::events::stream::OrderStream;
use crate::order::reads::{ReadError, Reads};
use crate::order::{CancelReason, Order, Status, store};
use crate::saga::applier::NotApplied;
use crate::saga::runner::Sagas;
use crate::saga::{Input, Refusal};

/// How long a cancellation waits for the answer of a capture under way.
const CANCEL_WAIT: Duration = Duration::from_secs(3);

/// Why an order is not changed, or why it is not known what came of it.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error(transparent)]
    NotRead(#[from] ReadError),
    #[error(transparent)]
    NotApplied(#[from] NotApplied),
}

/// Why an order does not go elsewhere, or why it is not known whether it does.
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
    stream: OrderStream,
    reads: Reads,
    sagas: Sagas,
}

impl Changes {
    pub fn new(pool: Pool, stream: OrderStream, reads: Reads, sagas: Sagas) -> Self {
        Self { pool, stream, reads, sagas }
    }

    /// Has an order go elsewhere, and returns it as it is then.
    pub async fn readdress(&self, id: OrderId, address: &Address) -> Result<Order, ReaddressError> {
        if !store::readdress(&mut *self.pool.acquire().await?, id, address).await? {
            return Err(ReaddressError::NotChangeable);
        }
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
        self.sagas.apply(id, Input::Cancel(reason)).await?;
        // At once, unless the money is being captured right now: then the answer comes first.
        let deadline = Instant::now() + CANCEL_WAIT;
        loop {
            let order = self.reads.get(id).await?;
            if order.status == Status::Cancelled || Instant::now() > deadline {
                return Ok(order);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}
