//! What leaves for customers: whole orders and parts of them, numbers that are corrected, and what has arrived.
//! Decided and written under the order's lock, so that no unit leaves twice.

use std::collections::HashMap;

use audit::Entry;
use identity::User;
use messaging::Outbox;
use order_core::ids::{OrderId, ParcelId, ProductId};
use service::db::{Connection, Pool};
use uuid::Uuid;

use crate::erasure;
use crate::events::stream::OrderStream;
use crate::order::parcel_store;
use crate::order::reads::{ReadError, Reads};
use crate::order::store::load;
use crate::order::{Line, Lines, Order, Parcel, Sent, Status, Tracking, Unsent};
use crate::refunds;
use crate::saga::facts::{self, Outcome, Report};
use crate::saga::measured::{self, Happened};
use crate::saga::{Input, Refusal};
use crate::times::Times;

/// What staff report.
#[derive(Clone, Debug)]
pub struct Shipment {
    /// None: the customer fetched it in the shop.
    pub tracking: Option<Tracking>,
    /// Without them all that is left.
    pub lines: Option<Lines>,
    /// The parcel that had a wrong number.
    pub parcel: Option<ParcelId>,
    /// The Idempotency-Key of a report that may be repeated.
    pub key: Option<String>,
}

/// Why nothing is changed, or why the outcome is not known.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the order has no such parcel")]
    UnknownParcel,
    #[error("several parcels left: which one is meant is not said")]
    WhichParcel,
    #[error("another parcel of the order has this number")]
    NumberIsKnown,
    #[error("the key is of another report")]
    KeyReused,
    /// The line's place in the request, from 0, and how many are here.
    #[error("more would leave than is left")]
    TooMany { index: usize, left: i64 },
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

#[derive(Clone)]
pub struct Fulfilment {
    pool: Pool,
    outbox: Outbox,
    stream: OrderStream,
    reads: Reads,
    times: Times,
}

impl Fulfilment {
    pub fn new(pool: Pool, outbox: Outbox, stream: OrderStream, reads: Reads, times: Times) -> Self {
        Self { pool, outbox, stream, reads, times }
    }

    /// Returns the order as it is then. A repeated report changes nothing.
    pub async fn ship(&self, by: User, id: OrderId, shipment: Shipment) -> Result<Order, ShipError> {
        let mut transaction = service::db::begin(&self.pool).await?;
        let (order, restocked) = locked(&mut transaction, id).await?;
        let (actor, customer) = (by.id.into(), order.user_id);
        let (facts, entry) = match decide(&order, &restocked, shipment.clone())? {
            Decision::Known => return Ok(order),
            Decision::Ship { parcel, last } => {
                parcel_store::insert(&mut transaction, id, &parcel, shipment.key.as_deref(), actor).await?;
                let entry = Entry::new(by, "order.shipped", "order", id).field("parcel", (), parcel.id);
                let entry = entry.field("items", (), &parcel.lines);
                let entry = entry.personal(customer.into(), &(), &parcel.tracking);
                (vec![Input::Ship { parcel, last }], entry)
            }
            Decision::Correct { sent, tracking, newest } => {
                parcel_store::correct(&mut transaction, id, &sent, &tracking, actor).await?;
                let entry = Entry::new(by, "order.tracking_corrected", "order", id);
                let entry = entry.personal(customer.into(), &sent.parcel.tracking, &Some(&tracking));
                let parcel = Parcel { tracking: Some(tracking), ..sent.parcel };
                (vec![Input::Correct { parcel, newest }], entry)
            }
        };
        let (moved, happened) = self.apply(&mut transaction, id, facts).await?;
        erasure::record(&mut transaction, customer, entry).await?;
        transaction.commit().await?;
        measured::count(&happened);
        self.outbox.wake();
        self.stream.announce(&moved);
        Ok(self.reads.get(id).await?)
    }

    /// Reports that the sent goods have arrived. For an order that left in parts, only once nothing more will
    /// follow: the rest is in stock again, or nobody has paid for it any more.
    pub async fn deliver(&self, by: User, id: OrderId) -> Result<Order, ShipError> {
        let mut transaction = service::db::begin(&self.pool).await?;
        let (order, restocked) = locked(&mut transaction, id).await?;
        let more = !order.rest(&restocked.done).is_empty();
        let (moved, happened) = self.apply(&mut transaction, id, vec![Input::Deliver { more }]).await?;
        if order.status != Status::Delivered {
            let entry = Entry::new(by, "order.delivered", "order", id);
            let entry = entry.field("status", order.status, Status::Delivered);
            audit::record(&mut transaction, entry).await?;
        }
        transaction.commit().await?;
        measured::count(&happened);
        self.outbox.wake();
        self.stream.announce(&moved);
        Ok(self.reads.get(id).await?)
    }

    async fn apply(
        &self,
        connection: &mut Connection,
        id: OrderId,
        facts: Vec<Input>,
    ) -> Result<(Vec<OrderId>, Vec<Happened>), ShipError> {
        let report = Report { order: id, facts, lease: None };
        let mut applied = facts::apply(connection, &[report], &self.times).await?;
        match applied.outcomes.pop() {
            Some(Outcome::Applied(_)) => Ok((applied.moved, applied.happened)),
            Some(Outcome::Refused(refusal)) => Err(refusal.into()),
            Some(Outcome::UnknownOrder) | None => Err(ReadError::UnknownOrder.into()),
        }
    }
}

/// The locked order, and which of its units went back into stock without having left.
async fn locked(connection: &mut Connection, id: OrderId) -> Result<(Order, Unsent), ShipError> {
    refunds::store::lock(connection, id).await?;
    let order = load(connection, &[id]).await?.pop().ok_or(ReadError::UnknownOrder)?;
    let restocked = parcel_store::restocked_unsent(connection, &[id]).await?.remove(&id).unwrap_or_default();
    Ok((order, restocked))
}

enum Decision {
    /// Reported before.
    Known,
    Ship {
        parcel: Parcel,
        last: bool,
    },
    Correct {
        sent: Sent,
        tracking: Tracking,
        newest: bool,
    },
}

fn decide(order: &Order, restocked: &Unsent, shipment: Shipment) -> Result<Decision, ShipError> {
    let Shipment { tracking, lines, parcel, key } = shipment;
    if let Some(sent) = order.parcels.iter().find(|sent| key.is_some() && sent.key == key) {
        let same = sent.was(tracking.as_ref())
            && lines.as_ref().is_none_or(|lines| units(lines) == units(&sent.parcel.lines));
        return if same { Ok(Decision::Known) } else { Err(ShipError::KeyReused) };
    }
    let all_left = matches!(order.status, Status::Shipped | Status::Delivered);
    if let Some(id) = parcel {
        let sent = order.parcels.iter().find(|sent| sent.parcel.id == id).ok_or(ShipError::UnknownParcel)?;
        return correct(order, sent, tracking);
    }
    // A repeated report may name the number from before the correction.
    let known = |sent: &&Sent| tracking.is_some() && sent.was(tracking.as_ref());
    if let Some(sent) = order.parcels.iter().find(known) {
        let same = match &lines {
            Some(lines) => units(lines) == units(&sent.parcel.lines),
            None => all_left,
        };
        return if same { Ok(Decision::Known) } else { Err(ShipError::NumberIsKnown) };
    }
    if all_left {
        return match &order.parcels[..] {
            _ if lines.is_some() => Err(Refusal::NotShippable.into()),
            [sent] if sent.collected && tracking.is_none() => Ok(Decision::Known),
            [sent] if order.is_all_in(sent) => correct(order, sent, tracking),
            _ => Err(ShipError::WhichParcel),
        };
    }
    let lines = lines.map_or_else(|| order.rest(&restocked.all), Vec::from);
    if lines.is_empty() {
        return Err(Refusal::NotShippable.into());
    }
    let (left, leaves) = (order.not_sent(), units(&lines));
    for (index, line) in lines.iter().enumerate() {
        let left = left.get(&line.product_id).copied().unwrap_or(0);
        if i64::from(line.quantity) > left {
            return Err(ShipError::TooMany { index, left });
        }
    }
    let count = |of: &HashMap<ProductId, i64>, product: &ProductId| of.get(product).copied().unwrap_or(0);
    let stays = |product: &ProductId| count(&restocked.done, product);
    let last = left.iter().all(|(product, left)| left - count(&leaves, product) - stays(product) <= 0);
    let parcel = Parcel { id: Uuid::now_v7().into(), tracking, lines };
    Ok(Decision::Ship { parcel, last })
}

/// Only a parcel of a carrier can be corrected: fetched goods have no number, and an erased one is gone.
fn correct(order: &Order, sent: &Sent, tracking: Option<Tracking>) -> Result<Decision, ShipError> {
    let tracking = tracking.filter(|_| sent.parcel.tracking.is_some()).ok_or(Refusal::NotShippable)?;
    if sent.parcel.tracking.as_ref() == Some(&tracking) {
        return Ok(Decision::Known);
    }
    let newest = order.parcels.iter().rev().find(|sent| sent.parcel.tracking.is_some());
    let newest = newest.is_some_and(|newest| newest.parcel.id == sent.parcel.id);
    Ok(Decision::Correct { sent: sent.clone(), tracking, newest })
}

fn units(lines: &[Line]) -> HashMap<ProductId, i64> {
    lines.iter().map(|line| (line.product_id, i64::from(line.quantity))).collect()
}

impl Sent {
    /// Whether this is its carrier and number, now or before a correction.
    fn was(&self, tracking: Option<&Tracking>) -> bool {
        let former = |tracking: &Tracking| {
            self.former.iter().any(|former| {
                former.carrier == tracking.carrier && former.tracking_number == tracking.tracking_number
            })
        };
        self.parcel.tracking.as_ref() == tracking || tracking.is_some_and(former)
    }
}

impl Order {
    fn is_all_in(&self, sent: &Sent) -> bool {
        let items = self.items.iter();
        let all: HashMap<ProductId, i64> =
            items.map(|item| (item.product_id, i64::from(item.quantity))).collect();
        all == units(&sent.parcel.lines)
    }
}
