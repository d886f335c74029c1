//! Checkout: claim the Idempotency-Key, reserve the stock, place the order. Safe to repeat from any point.

pub mod request;
pub mod sweeper;
mod write;

use std::ops::{Deref, Range};
use std::sync::{Arc, Mutex};

use messaging::Outbox;
use opentelemetry::metrics::Counter;
use order_core::ids::{AddressId, OrderId, UserId};
use service::batch::{Batcher, split};
use service::db::Pool;
use service::{FieldError, Problem, failpoint, telemetry};
use time::OffsetDateTime;
use uuid::Uuid;

use self::request::Request;
use self::write::{Job, Placed};
use crate::address::Address;
use crate::clients::product::{Products, Reserved};
use crate::clients::user::Users;
use crate::idempotency::{self, Key, Lookup, Record, StoredAnswer};
use crate::order::{self, Item, Line, MAX_LINES, NoTotal, Placement, Viewer};
use crate::saga::runner::Sagas;
use crate::times::Times;
use crate::{cart, erasure};

pub const OPERATION: &str = "POST /api/v1/orders";

/// Seconds before a reservation's end by which its order is paid or cancelled.
const MARGIN_SECONDS: f64 = 5.0;

/// A key after a request has asked for it.
enum Claimed {
    /// This request works on it.
    Mine(Record),
    Answered(StoredAnswer),
}

/// Cheap to clone, as each request does.
#[derive(Clone)]
pub struct Checkout(Arc<Inner>);

pub struct Inner {
    pool: Pool,
    products: Products,
    users: Users,
    sagas: Sagas,
    times: Times,
    claims: Batcher<(Key, Record), sqlx::Result<bool>>,
    place: Batcher<Job, sqlx::Result<Placed>>,
    refused: Counter<u64>,
}

impl Deref for Checkout {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Checkout {
    pub fn new(
        pool: Pool,
        outbox: Outbox,
        products: Products,
        users: Users,
        sagas: Sagas,
        times: Times,
    ) -> Self {
        let claim_pool = pool.clone();
        let claims = Batcher::spawn(move |batch: Arc<Vec<(Key, Record)>>| {
            let pool = claim_pool.clone();
            async move {
                let (pool, batch) = (&pool, &batch);
                let make = |part: Range<usize>| async move {
                    idempotency::store::insert(&mut *pool.acquire().await?, &batch[part], times.claim_lease)
                        .await
                };
                split(batch.len(), make).await
            }
        });
        let (place_pool, begin) = (pool.clone(), sagas.clone());
        let place = Batcher::spawn(move |batch: Arc<Vec<Job>>| {
            let (pool, outbox, sagas) = (place_pool.clone(), outbox.clone(), begin.clone());
            async move {
                // Whoever asked may have gone by then.
                let begin = |job: &Job| match job.take_slot() {
                    Some(slot) => sagas.begin(&job.placement, slot),
                    None => sagas.wake(),
                };
                write::place(&pool, &outbox, &batch, begin).await
            }
        });
        let refused = telemetry::counter("orders.refused");
        Self(Arc::new(Inner { pool, products, users, sagas, times, claims, place, refused }))
    }

    /// 503 while orders wait longer and longer to be paid: more of them would be cancelled unpaid in the end.
    pub fn admit(&self) -> Result<(), Problem> {
        if !self.sagas.has_backlog() {
            return Ok(());
        }
        self.refused.add(1, &[]);
        Err(Problem::unavailable("Too many orders wait for their payment; try again."))
    }

    /// The answer to the request, and whether it is an earlier one's.
    pub async fn place_order(
        &self,
        user: UserId,
        key: String,
        request: Request,
    ) -> Result<(StoredAnswer, bool), Problem> {
        let key = Key::new(user, OPERATION, key, &request)?;
        let record = match self.claim(&key, &request).await? {
            Claimed::Mine(record) => record,
            Claimed::Answered(answer) => return Ok((answer, true)),
        };
        match self.work(&key, record.clone(), request).await {
            Ok(answer) => Ok((answer, false)),
            Err(problem) => {
                // No answer is stored for a failure that may pass; a retry starts at once.
                let mut connection = self.pool.acquire().await?;
                idempotency::store::let_go(&mut connection, &key, &record).await?;
                Err(problem)
            }
        }
    }

    /// The key's record, or the answer that it already has.
    async fn claim(&self, key: &Key, request: &Request) -> Result<Claimed, Problem> {
        // Most keys are new. With an address to be asked for, the key is looked up first.
        if request.address_id.is_none()
            && let Ok(lines) = self.lines(key, request).await?
            && let Some(record) = self.claim_new(key, lines, None).await?
        {
            return Ok(Claimed::Mine(record));
        }
        let existing = {
            let mut connection = self.pool.acquire().await?;
            idempotency::find_or_take_over(&mut connection, key, &self.times).await?
        };
        match existing {
            Lookup::TakenOver(record) => {
                failpoint::hit("order.place.taken_over").await?;
                return Ok(Claimed::Mine(record));
            }
            Lookup::Answered(answer) => return Ok(Claimed::Answered(answer)),
            Lookup::None => {}
        }
        // With no connection held: this asks another service.
        let address = match request.address_id {
            Some(id) => Some(self.address(key.user_id, id).await?),
            None => None,
        };
        let lines = self.lines(key, request).await??;
        match self.claim_new(key, lines, address).await? {
            Some(record) => Ok(Claimed::Mine(record)),
            None => Err(idempotency::taken(&mut *self.pool.acquire().await?, key).await?),
        }
    }

    /// What is to be bought, or why it can't be.
    async fn lines(&self, key: &Key, request: &Request) -> sqlx::Result<Result<Vec<Line>, Problem>> {
        let lines = match &request.items {
            Some(items) => items.clone(),
            None => cart::store::lines(&mut *self.pool.acquire().await?, key.user_id).await?,
        };
        Ok(match lines.len() {
            0 => Err(Problem::unprocessable("cart_empty", "There is nothing in the cart to buy.")),
            1..=MAX_LINES => Ok(lines),
            _ => {
                let detail = format!("An order has at most {MAX_LINES} different products.");
                Err(Problem::unprocessable("too_many_items", detail))
            }
        })
    }

    /// A record of a new key; `None` when it is not new, or its user was erased.
    async fn claim_new(
        &self,
        key: &Key,
        lines: Vec<Line>,
        address: Option<Address>,
    ) -> Result<Option<Record>, Problem> {
        let record = Record::new(lines, address);
        let made = self.claims.run((key.clone(), record.clone())).await;
        let made = made.map_err(|_| Problem::unavailable("Too many orders at once; try again."))??;
        Ok(made.then_some(record))
    }

    async fn address(&self, user: UserId, id: AddressId) -> Result<Address, Problem> {
        match self.users.address(user, id).await {
            Ok(Some(address)) => Ok(address),
            Ok(None) => {
                let error = FieldError::new("/address_id", "unknown_address", "You have no such address.");
                let problem = Problem::unprocessable("unknown_address", "The address does not exist.");
                Err(problem.with_errors(vec![error]))
            }
            Err(error) => {
                tracing::warn!(%error, "place.user_away");
                Err(Problem::unavailable("Addresses can't be looked up at the moment; try again."))
            }
        }
    }

    async fn work(&self, key: &Key, mut record: Record, request: Request) -> Result<StoredAnswer, Problem> {
        failpoint::hit("order.place.claimed").await?;
        let mut reserved = if record.sweeping {
            // Now rather than when the sweeper gets to it, which would be the stock of an order by then.
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
                return Err(idempotency::in_progress());
            }
            drop(connection);
            record.id = order_id;
            reserved = self.reserve(&record).await?;
        }
        let (items, remaining_ms) = match reserved {
            Reserved::Held { items, remaining_ms } => (items, remaining_ms),
            Reserved::OutOfStock(short) => {
                let errors = short.into_iter().map(|line| {
                    let detail = format!("{} asked for, {} available.", line.requested, line.available);
                    FieldError::new(pointer(&record.lines, &line.product_id), "out_of_stock", detail)
                });
                let problem = Problem::conflict("out_of_stock", "Not enough of everything is in stock.");
                return self.refuse(&record, problem.with_errors(errors.collect())).await;
            }
            Reserved::Unknown(ids) => {
                let errors = ids.iter().map(|id| {
                    let at = format!("{}/product_id", pointer(&record.lines, id));
                    FieldError::new(at, "unknown_product", "No such product.")
                });
                let problem = Problem::unprocessable("unknown_product", "A product does not exist.");
                return self.refuse(&record, problem.with_errors(errors.collect())).await;
            }
            Reserved::Ended | Reserved::Conflict => {
                return Err(Problem::unavailable("The stock could not be reserved; try again."));
            }
        };
        failpoint::hit("order.place.reserved").await?;
        let total = match order::total(&items) {
            Ok(total) => total,
            Err(why) => {
                self.give_back(&record).await?;
                return self.refuse(&record, Problem::invalid(vec![no_total(why)])).await;
            }
        };
        self.place(key, &record, request, items, total, remaining_ms).await
    }

    async fn reserve(&self, record: &Record) -> Result<Reserved, Problem> {
        self.products.reserve(record.id.into(), &record.lines).await.map_err(away)
    }

    /// Releases what is reserved under the record; not once it is another's, who may have placed the order on it.
    async fn give_back(&self, record: &Record) -> Result<(), Problem> {
        let mut connection = self.pool.acquire().await?;
        let held = idempotency::store::sweep_next(&mut connection, &[record.fence()]).await?;
        drop(connection);
        if held.is_empty() {
            return Err(idempotency::in_progress());
        }
        self.products.release(&[record.id.into()]).await.map_err(away)
    }

    async fn place(
        &self,
        key: &Key,
        record: &Record,
        request: Request,
        items: Vec<Item>,
        total: service::Money,
        remaining_ms: i64,
    ) -> Result<StoredAnswer, Problem> {
        let address = record.address.clone().or(request.shipping_address);
        let left = remaining_ms as f64 / 1000.0 - MARGIN_SECONDS;
        let slot = self.sagas.slot();
        let placement = Placement {
            id: record.id.into(),
            user_id: key.user_id,
            items,
            total,
            shipping_address: address.ok_or_else(Problem::internal)?, // checked when the request came in
            payment_method: request.payment_method,
            deadline_seconds: self.times.payment_deadline.as_secs_f64().min(left).max(1.0),
            placed_at: now(),
            traceparent: telemetry::traceparent(),
            lease: slot.as_ref().map(|_| self.times.saga_lease),
        };
        let view = placement.order().map(|order| order.view(Viewer::Owner));
        let body = view.and_then(|view| serde_json::to_string(&view)).map_err(|_| Problem::internal())?;
        let answer = StoredAnswer { id: record.id, status: 201, body };
        let (cart, slot) = (request.items.is_none(), Mutex::new(slot));
        let job = Job { record: record.clone(), answer: answer.clone(), placement, cart, slot };
        let placed = match self.place.run(job).await {
            Ok(placed) => placed,
            Err(_) => return Err(Problem::unavailable("Too many orders at once; try again.")),
        };
        match placed {
            Ok(Placed::Yes) => Ok(answer),
            Ok(Placed::RecordLost) => self.stored_answer(key).await?.ok_or_else(idempotency::in_progress),
            Ok(Placed::UserGone) => {
                self.products.release(&[record.id.into()]).await.map_err(away)?;
                Err(erasure::gone())
            }
            Ok(Placed::CartChanged) => {
                self.products.release(&[record.id.into()]).await.map_err(away)?;
                let detail = "The cart has changed since it was read; look at it again.";
                self.refuse(record, Problem::conflict("cart_changed", detail)).await
            }
            Err(error) => self.stored_answer(key).await?.ok_or_else(|| error.into()),
        }
    }

    /// An error at COMMIT leaves open whether the order was placed, and a record
    /// that is lost may have been answered by its new owner: the record tells.
    async fn stored_answer(&self, key: &Key) -> Result<Option<StoredAnswer>, Problem> {
        let mut connection = self.pool.acquire().await?;
        let stored = idempotency::store::read(&mut connection, key).await?;
        self.sagas.wake();
        Ok(stored.and_then(|stored| stored.answer))
    }

    /// Stores a refusal that stays: the same key gets it again.
    async fn refuse(&self, record: &Record, problem: Problem) -> Result<StoredAnswer, Problem> {
        let body = serde_json::to_string(&problem).map_err(|_| Problem::internal())?;
        let answer = StoredAnswer { id: record.id, status: problem.status.as_u16(), body };
        let mut connection = self.pool.acquire().await?;
        let stored = idempotency::store::answer(&mut connection, &[(record.clone(), answer.clone())]).await?;
        failpoint::hit("order.place.refused").await?;
        if stored.is_empty() { Err(idempotency::in_progress()) } else { Ok(answer) }
    }
}

fn away(error: crate::clients::product::Unavailable) -> Problem {
    tracing::warn!(%error, "place.product_away");
    Problem::unavailable("Stock can't be reserved at the moment; try again.")
}

fn pointer(lines: &[Line], product_id: &str) -> String {
    let index = lines.iter().position(|line| line.product_id.to_string() == product_id);
    index.map_or_else(|| "/items".to_owned(), |index| format!("/items/{index}"))
}

/// To the microsecond, as PostgreSQL stores it: the first answer shows the
/// same time as any later one.
fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_nanosecond(now.microsecond() * 1000).unwrap_or(now)
}

/// As the request's field error.
fn no_total(why: NoTotal) -> FieldError {
    let at =
        |index: usize, code: &str, detail: &str| FieldError::new(format!("/items/{index}"), code, detail);
    match why {
        NoTotal::Empty => FieldError::new("/items", "too_short", "At least one item."),
        NoTotal::MixedCurrencies(index) => {
            at(index, "mixed_currencies", "All items of an order have one currency.")
        }
        NoTotal::TooLarge(index) => at(index, "total_too_large", "An order comes to at most 999,999.99."),
        NoTotal::Zero => at(0, "total_too_small", "An order that costs nothing can't be paid."),
    }
}
