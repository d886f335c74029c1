//! Refunds that staff ask for: counted and written under the order's lock, then
//! brought to the provider by the order's saga.

pub mod store;

use std::collections::HashMap;

use audit::Entry;
use identity::User;
use order_core::ids::{ProductId, RefundId};
use serde::Serialize;
use serde_json::json;
use service::Money;
use service::db::Connection;
use service::db::Pool;
use service::failpoint;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::erasure;
use crate::idempotency::{self, Key, KeyError, Lookup, Record, StoredAnswer};
use crate::order::{self, Line, Order, Sent, Status};
use crate::saga::facts::{self, Outcome, Report};
use crate::saga::refunds::RefundStatus;
use crate::saga::runner::Sagas;
use crate::saga::{self, Input};
use crate::times::Times;

pub const OPERATION: &str = "POST /api/v1/orders/{id}/refunds";

/// What staff ask for. Without an amount all that is left. As it is written here it is hashed with its key.
#[derive(Clone, Debug, Serialize)]
pub struct Request {
    pub amount: Option<Money>,
    pub reason: String,
    /// What goes back into stock: no more than was sold, each product once.
    pub restock: Vec<Line>,
    /// Whether these units had left and came back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub returned: Option<bool>,
}

/// A refund as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Refund)]
pub struct View {
    #[schema(inline)]
    pub id: RefundId,
    pub amount: Money,
    pub status: RefundStatus,
    pub reason: String,
    pub restock: Vec<Line>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
}

/// Why a request has made no refund. Nothing is stored, so that it may be sent again.
#[derive(Debug, thiserror::Error)]
pub enum RefundError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("there is no such order")]
    UnknownOrder,
    #[error(transparent)]
    Encode(#[from] serde_json::Error),
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

/// Why there is no refund, for good: the key has this answer from now on.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("more would go back into stock than was sold")]
    RestockExceedsSold(Vec<Excess>),
    #[error("some of these units have left and some have not")]
    ReturnedOrNot,
    #[error(transparent)]
    Rule(#[from] saga::Refusal),
}

/// A line of which too many are to go back.
#[derive(Debug)]
pub struct Excess {
    /// Its place in the request, from 0.
    pub index: usize,
    pub wanted: u32,
    /// Sold and not back yet.
    pub left: i64,
}

/// How a refusal is answered.
pub type AnswerRefusal = fn(Uuid, &Refusal) -> serde_json::Result<StoredAnswer>;

#[derive(Clone)]
pub struct Refunds {
    pool: Pool,
    sagas: Sagas,
    times: Times,
    answer_refusal: AnswerRefusal,
}

impl Refunds {
    pub fn new(pool: Pool, sagas: Sagas, times: Times, answer_refusal: AnswerRefusal) -> Self {
        Self { pool, sagas, times, answer_refusal }
    }

    /// The answer to the request, and whether it is an earlier one's.
    pub async fn answer(
        &self,
        by: User,
        key: String,
        order: &Order,
        request: &Request,
    ) -> Result<(StoredAnswer, bool), RefundError> {
        let key = Key::new(by.id.into(), OPERATION, key, &(order.id, request))?;
        let record = {
            let mut connection = self.pool.acquire().await?;
            match idempotency::find_or_take_over(&mut connection, &key, &self.times).await? {
                Lookup::TakenOver(record) => *record,
                Lookup::Answered(answer) => return Ok((answer, true)),
                Lookup::None => {
                    idempotency::make(&mut connection, &key, vec![], None, self.times.claim_lease).await?
                }
            }
        };
        match self.open(&key, &record, by, order, request).await {
            Ok(answer) => Ok((answer, false)),
            Err(error) => {
                let mut connection = self.pool.acquire().await?;
                idempotency::store::let_go(&mut connection, &key, &record).await?;
                Err(error)
            }
        }
    }

    async fn open(
        &self,
        key: &Key,
        record: &Record,
        by: User,
        order: &Order,
        request: &Request,
    ) -> Result<StoredAnswer, RefundError> {
        let written = async {
            let mut transaction = service::db::begin(&self.pool).await?;
            if idempotency::store::lock_held(&mut transaction, &[record]).await?.is_empty() {
                return Ok(None);
            }
            let decided = decide(&mut transaction, &self.times, record.id.into(), by, order, request).await?;
            let answer = match decided {
                Decision::Made(refund) => {
                    let body = serde_json::to_string(&refund)?;
                    StoredAnswer { id: record.id, status: 201, body }
                }
                Decision::Refused(refusal) => (self.answer_refusal)(record.id, &refusal)?,
            };
            if idempotency::store::answer(&mut transaction, &[(record.clone(), answer.clone())])
                .await?
                .is_empty()
            {
                return Ok(None); // and no refund without its answer
            }
            failpoint::hit("order.refund.written").await?;
            transaction.commit().await?;
            failpoint::hit("order.refund.committed").await?;
            Ok::<_, RefundError>(Some(answer))
        };
        let written = written.await;
        self.sagas.wake();
        match written {
            Ok(Some(answer)) => Ok(answer),
            // The record was lost, or there was an error at COMMIT, which leaves open whether it happened.
            lost => {
                let stored = idempotency::store::read(&mut *self.pool.acquire().await?, key).await?;
                let stored = stored.and_then(|stored| stored.answer);
                stored.ok_or_else(|| lost.err().unwrap_or(KeyError::InProgress.into()))
            }
        }
    }
}

/// The outcome of a request; either is stored with the key.
enum Decision {
    Made(View),
    Refused(Refusal),
}

/// Makes the refund under the claim's id, unless there can't be one.
async fn decide(
    connection: &mut Connection,
    times: &Times,
    id: RefundId,
    by: User,
    order: &Order,
    request: &Request,
) -> Result<Decision, RefundError> {
    store::lock(connection, order.id).await?;
    let restocked = store::restocked(connection, order.id).await?;
    let too_many = too_many(order, &restocked, &request.restock);
    if !too_many.is_empty() {
        return Ok(Decision::Refused(Refusal::RestockExceedsSold(too_many)));
    }
    // As it is under the lock.
    let sent =
        order::parcel_store::read(connection, &[order.id]).await?.remove(&order.id).unwrap_or_default();
    let Some(returned) = have_left(order, &sent, request) else {
        return Ok(Decision::Refused(Refusal::ReturnedOrNot));
    };
    let wanted = Input::Refund(id, request.amount);
    let report = Report { order: order.id, facts: vec![wanted], lease: None };
    match facts::apply(connection, &[report], times).await?.outcomes.pop() {
        Some(Outcome::Applied(_)) => {}
        Some(Outcome::Refused(refusal)) => return Ok(Decision::Refused(refusal.into())),
        Some(Outcome::UnknownOrder) | None => return Err(RefundError::UnknownOrder),
    }
    let actor = by.id.into();
    let refund = store::describe(connection, id, request, returned, actor, order.total.currency).await?;
    let entry = Entry::new(by, "order.refunded", "order", order.id).field("refund", (), id);
    let entry = entry.field("amount", (), refund.amount).field("restock", json!([]), &request.restock);
    let entry = entry.personal(order.user_id.into(), &(), &json!({"reason": request.reason}));
    erasure::record(connection, order.user_id, entry).await?;
    saga::store::reschedule(connection, order.id).await?;
    Ok(Decision::Made(refund))
}

/// Whether the units to restock had left; `None` where that is neither said nor clear.
fn have_left(order: &Order, sent: &[Sent], request: &Request) -> Option<bool> {
    if request.returned.is_some() || request.restock.is_empty() {
        return Some(request.returned.unwrap_or(false));
    }
    let whole_left = matches!(order.status, Status::Shipped | Status::Delivered);
    let units = |product: ProductId| -> i64 {
        let lines = sent.iter().flat_map(|sent| &sent.parcel.lines);
        lines.filter(|line| line.product_id == product).map(|line| i64::from(line.quantity)).sum()
    };
    let mut left = request.restock.iter().map(|line| {
        let sold: i64 = order
            .items
            .iter()
            .filter(|item| item.product_id == line.product_id)
            .map(|item| i64::from(item.quantity))
            .sum();
        match units(line.product_id) {
            0 => Some(whole_left),
            units if units >= sold => Some(true),
            _ => None,
        }
    });
    let first = left.next()??;
    left.all(|other| other == Some(first)).then_some(first)
}

fn too_many(order: &Order, restocked: &HashMap<ProductId, i64>, wanted: &[Line]) -> Vec<Excess> {
    let sold = |product: ProductId| -> i64 {
        let items = order.items.iter().filter(|item| item.product_id == product);
        items.map(|item| i64::from(item.quantity)).sum()
    };
    let left = |product: ProductId| sold(product) - restocked.get(&product).copied().unwrap_or(0);
    let excess = |(index, line): (usize, &Line)| {
        let left = left(line.product_id).max(0);
        (i64::from(line.quantity) > left).then_some(Excess { index, wanted: line.quantity.into(), left })
    };
    wanted.iter().enumerate().filter_map(excess).collect()
}
