//! The transaction that writes orders for requests.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use messaging::Outbox;
use service::batch::split;
use service::db::{Defect, Pool};
use service::failpoint;

use crate::cart;
use crate::events::publish;
use crate::idempotency::{self, Fence, Record, StoredAnswer};
use crate::order::{self, Placement};
use crate::saga::measured;
use crate::saga::runner::Slot;

/// An order to be written, under the record that allows it.
pub struct Job {
    pub record: Record,
    pub answer: StoredAnswer,
    pub placement: Placement,
    /// The cart that it was bought from.
    pub cart: bool,
    /// The slot of this process in which it is worked on once it is placed.
    pub slot: Mutex<Option<Slot>>,
}

/// What became of a [`Job`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    Yes,
    /// Another request took the record over, or it has its answer.
    RecordLost,
    /// The cart no longer holds what was read from it.
    CartChanged,
    /// The user was erased meanwhile.
    UserGone,
}

impl Job {
    /// The slot, once.
    pub fn take_slot(&self) -> Option<Slot> {
        lock(&self.slot).take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All orders in one transaction, or a bad one apart from the others.
pub async fn place(
    pool: &Pool,
    outbox: &Outbox,
    jobs: &[Job],
    begin: impl Fn(&Job),
) -> Vec<sqlx::Result<Placed>> {
    split(jobs.len(), |part| place_together(pool, outbox, &jobs[part], &begin)).await
}

async fn place_together(
    pool: &Pool,
    outbox: &Outbox,
    jobs: &[Job],
    begin: &impl Fn(&Job),
) -> sqlx::Result<Vec<Placed>> {
    let mut transaction = service::db::begin(pool).await?;
    let records: Vec<&Record> = jobs.iter().map(|job| &job.record).collect();
    let mut held = idempotency::store::lock_held(&mut transaction, &records).await?;
    let mut placed = vec![Placed::Yes; jobs.len()];
    let mut turns: Vec<usize> = (0..jobs.len()).collect();
    turns.sort_by_key(|turn| jobs[*turn].placement.user_id); // or two replicas deadlock on carts
    for turn in turns {
        let job = &jobs[turn];
        let (user, lines) = (job.placement.user_id, &job.record.lines);
        // Not by the order id alone: whoever took the record over has the same order id, and may be in this
        // batch.
        placed[turn] = match held.remove(&job.record.fence()) {
            None => Placed::RecordLost,
            Some(true) => Placed::UserGone,
            Some(false) if job.cart && !cart::store::take_out(&mut transaction, user, lines).await? => {
                Placed::CartChanged
            }
            Some(false) => Placed::Yes,
        };
    }
    // Their stock is released next, and that may take longer than the record's lease.
    let ended = jobs.iter().zip(&placed);
    let ended = ended.filter(|(_, placed)| matches!(placed, Placed::CartChanged | Placed::UserGone));
    let ended: Vec<Fence> = ended.map(|(job, _)| job.record.fence()).collect();
    if !ended.is_empty() {
        idempotency::store::sweep_next(&mut transaction, &ended).await?;
    }
    let mut accepted: Vec<&Job> =
        jobs.iter().zip(&placed).filter(|(_, placed)| **placed == Placed::Yes).map(|(job, _)| job).collect();
    accepted.sort_by_key(|job| job.placement.id); // or two replicas deadlock on unique keys
    let answers: Vec<(Record, StoredAnswer)> =
        accepted.iter().map(|job| (job.record.clone(), job.answer.clone())).collect();
    let answered: HashSet<Fence> =
        idempotency::store::answer(&mut transaction, &answers).await?.into_iter().collect();
    if accepted.iter().any(|job| !answered.contains(&job.record.fence())) {
        // An order without an answer must not be. The records are locked, so this is a defect; what was taken
        // out of carts is put back.
        return Err(Defect("a locked record did not take its answer").into());
    }
    let placements: Vec<Placement> = accepted.iter().map(|job| job.placement.clone()).collect();
    order::store::insert(&mut transaction, &placements).await?;
    publish::placed(&mut transaction, &placements).await?;
    failpoint::hit("order.place.written").await?;
    transaction.commit().await?;
    failpoint::hit("order.place.committed").await?;
    measured::accepted(accepted.len());
    outbox.wake();
    accepted.into_iter().for_each(begin);
    Ok(placed)
}

#[cfg(test)]
mod tests;
