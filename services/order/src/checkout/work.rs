//! The steps after the claim: the stock is reserved, and the order placed or refused.

use std::collections::HashMap;
use std::sync::Mutex;

use order_core::ids::ProductId;
use service::Money;
use service::{failpoint, telemetry};
use time::OffsetDateTime;
use uuid::Uuid;

use super::request::Wanted;
use super::write::{Job, Placed};
use super::{Checkout, CheckoutError, Refusal};
use crate::clients::product::{Reserved, Unavailable};
use crate::idempotency::{self, Key, KeyError, Record, StoredAnswer};
use crate::order::{self, Items, OrderNumber, Placement, Viewer};

/// An order has to be paid or cancelled this many seconds before its reservation ends.
const MARGIN_SECONDS: f64 = 5.0;

/// Numbers that an order tries: one in 65,000 is taken once there are five million orders.
const MOST_NUMBERS: u32 = 4;

impl Checkout {
    pub(super) async fn work(
        &self,
        key: &Key,
        mut record: Record,
        wanted: Wanted,
        shown: &HashMap<ProductId, Money>,
    ) -> Result<StoredAnswer, CheckoutError> {
        failpoint::hit("order.place.claimed").await?;
        self.require_payer(key, &record).await?;
        if !wanted.expected_items.as_ref().is_none_or(|expected| expected.are(&record.lines)) {
            return self.refuse(&record, Refusal::CartChanged).await;
        }
        let mut reserved = if record.sweeping {
            // Now, and not when the sweeper comes: by then an order may have been placed on this stock.
            self.products.release(&[record.id.into()]).await.map_err(away)?;
            Reserved::Ended
        } else {
            self.reserve(&record).await?
        };
        if matches!(reserved, Reserved::Ended | Reserved::Conflict) {
            // An ended reservation never revives: the same lines under a new order id.
            let order_id = Uuid::now_v7();
            let mut connection = self.pool.acquire().await?;
            if !idempotency::store::renew(&mut connection, &record, order_id).await? {
                return Err(KeyError::InProgress.into());
            }
            drop(connection);
            record.id = order_id;
            reserved = self.reserve(&record).await?;
        }
        let (items, remaining_ms) = match reserved {
            Reserved::Held { items, remaining_ms } => (items, remaining_ms),
            Reserved::OutOfStock(short) => return self.refuse(&record, Refusal::OutOfStock(short)).await,
            Reserved::Unknown(ids) => return self.refuse(&record, Refusal::UnknownProducts(ids)).await,
            Reserved::Ended | Reserved::Conflict => return Err(CheckoutError::NotReserved),
        };
        failpoint::hit("order.place.reserved").await?;
        let items = match Items::new(items) {
            Ok(items) => items,
            Err(why) => {
                self.release(&record).await?;
                return self.refuse(&record, why.into()).await;
            }
        };
        if !is_agreed(&wanted, shown, &items) {
            self.release(&record).await?;
            return self.refuse(&record, Refusal::PriceChanged(items)).await;
        }
        self.place(key, &record, wanted, items, remaining_ms).await
    }

    async fn reserve(&self, record: &Record) -> Result<Reserved, CheckoutError> {
        self.products.reserve(record.id.into(), &record.lines).await.map_err(away)
    }

    /// Releases what is reserved under the record. Not once another request has the record, as that may have
    /// placed the order.
    async fn release(&self, record: &Record) -> Result<(), CheckoutError> {
        let mut connection = self.pool.acquire().await?;
        let held = idempotency::store::sweep_next(&mut connection, &[record.fence()]).await?;
        drop(connection);
        if held.is_empty() {
            return Err(KeyError::InProgress.into());
        }
        self.products.release(&[record.id.into()]).await.map_err(away)
    }

    async fn place(
        &self,
        key: &Key,
        record: &Record,
        wanted: Wanted,
        items: Items,
        remaining_ms: i64,
    ) -> Result<StoredAnswer, CheckoutError> {
        let address = record.address.clone().or(wanted.shipping_address);
        let left = remaining_ms as f64 / 1000.0 - MARGIN_SECONDS;
        let mut placement = Placement {
            id: record.id.into(),
            number: OrderNumber::new(rand::random()),
            user_id: key.user_id,
            items,
            shipping_address: address.ok_or(CheckoutError::NoAddress)?, // checked when the request came in
            payment_method: wanted.payment_method,
            deadline_seconds: self.times.payment_deadline.as_secs_f64().min(left).max(1.0),
            action_seconds: self.times.action_deadline.as_secs_f64().min(left).max(1.0),
            placed_at: now(),
            traceparent: telemetry::traceparent(),
            lease: None,
        };
        let cart = wanted.lines.is_none();
        let mut numbers = MOST_NUMBERS;
        let (placed, answer) = loop {
            let slot = self.sagas.slot();
            placement.lease = slot.as_ref().map(|_| self.times.saga_lease);
            let body = serde_json::to_string(&placement.order()?.view(Viewer::Owner))?;
            let answer = StoredAnswer { id: record.id, status: 201, body };
            let (record, placement_of, slot) = (record.clone(), placement.clone(), Mutex::new(slot));
            let job = Job { record, answer: answer.clone(), placement: placement_of, cart, slot };
            let placed = self.place.run(job).await?;
            numbers -= 1;
            if numbers == 0 || !placed.as_ref().is_err_and(order::store::is_number_taken) {
                break (placed, answer);
            }
            placement.number = OrderNumber::new(rand::random());
        };
        match placed {
            Ok(Placed::Yes) => Ok(answer),
            Ok(Placed::RecordLost) => {
                self.stored_answer(key).await?.ok_or_else(|| KeyError::InProgress.into())
            }
            Ok(Placed::UserGone) => {
                self.products.release(&[record.id.into()]).await.map_err(away)?;
                Err(KeyError::UserGone.into())
            }
            Ok(Placed::CartChanged) => {
                self.products.release(&[record.id.into()]).await.map_err(away)?;
                self.refuse(record, Refusal::CartChanged).await
            }
            Err(error) => self.stored_answer(key).await?.ok_or_else(|| error.into()),
        }
    }

    /// An error at COMMIT leaves open whether the order was placed, and the new owner of a lost record may
    /// have answered: the record says.
    async fn stored_answer(&self, key: &Key) -> sqlx::Result<Option<StoredAnswer>> {
        let mut connection = self.pool.acquire().await?;
        let stored = idempotency::store::read(&mut connection, key).await?;
        self.sagas.wake();
        Ok(stored.and_then(|stored| stored.answer))
    }

    /// Stores a refusal that is final: the same key gets it again.
    async fn refuse(&self, record: &Record, refusal: Refusal) -> Result<StoredAnswer, CheckoutError> {
        let answer = (self.answer_refusal)(record.id, &refusal, &record.lines)?;
        let mut connection = self.pool.acquire().await?;
        let stored = idempotency::store::answer(&mut connection, &[(record.clone(), answer.clone())]).await?;
        failpoint::hit("order.place.refused").await?;
        if stored.is_empty() {
            return Err(KeyError::InProgress.into());
        }
        self.refusals.add(1, &[telemetry::label("reason", refusal.as_str())]);
        Ok(answer)
    }
}

fn away(error: Unavailable) -> CheckoutError {
    tracing::warn!(%error, "place.product_away");
    CheckoutError::ProductAway
}

/// Whether the customer agreed to pay this: the total that they name, or the prices that their cart was last
/// shown at.
fn is_agreed(wanted: &Wanted, shown: &HashMap<ProductId, Money>, items: &Items) -> bool {
    match wanted.expected_total {
        Some(expected) => expected == items.total(),
        None => {
            items.iter().all(|item| shown.get(&item.product_id).is_none_or(|price| *price == item.unit_price))
        }
    }
}

/// In microseconds, as PostgreSQL stores it: the first answer shows the same time as any later one.
pub(super) fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_nanosecond(now.microsecond() * 1000).unwrap_or(now)
}
