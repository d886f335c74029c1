//! Checkout: claim the Idempotency-Key, reserve the stock, place the order. Safe to repeat from any point.

mod error;
pub mod request;
pub mod sweeper;
mod write;

use std::collections::HashMap;
use std::ops::{Deref, Range};
use std::sync::{Arc, Mutex};

use messaging::Outbox;
use opentelemetry::metrics::Counter;
use order_core::ids::{AddressId, ProductId, UserId};
use service::Money;
use service::batch::{Batcher, split};
use service::db::Pool;
use service::{failpoint, telemetry};
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::error::{CheckoutError, Refusal};
use self::request::Request;
use self::write::{Job, Placed};
use crate::address::Address;
use crate::cart;
use crate::clients::product::{Products, Reserved};
use crate::clients::user::Users;
use crate::idempotency::{self, Key, KeyError, Lookup, Record, StoredAnswer};
use crate::order::{self, Item, Line, MAX_LINES, OrderNumber, Placement, Viewer};
use crate::saga::runner::Sagas;
use crate::times::Times;

pub const OPERATION: &str = "POST /api/v1/orders";

/// Seconds before a reservation's end by which its order is paid or cancelled.
const MARGIN_SECONDS: f64 = 5.0;

/// Numbers that an order tries: one in 65,000 is taken once there are five million orders.
const MOST_NUMBERS: u32 = 4;

/// Why orders are refused for now.
const BACKLOG: &str = "backlog";
const PROVIDER_KEY: &str = "provider_key";

/// How a refusal is answered; the last are the lines that were to be bought.
pub type AnswerRefusal = fn(Uuid, &Refusal, &[Line]) -> serde_json::Result<StoredAnswer>;

/// A key after a request has asked for it.
enum Claimed {
    /// This request works on it.
    Mine(Box<Record>),
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
    answer_refusal: AnswerRefusal,
    refused: Counter<u64>,
    refusals: Counter<u64>,
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
        answer_refusal: AnswerRefusal,
    ) -> Self {
        let claim_pool = pool.clone();
        let claims = Batcher::spawn("claims", move |batch: Arc<Vec<(Key, Record)>>| {
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
        let place = Batcher::spawn("place", move |batch: Arc<Vec<Job>>| {
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
        let description = "Requests for an order that were refused for now.";
        let refused = telemetry::counter("orders.refused", "{request}", description);
        for reason in [BACKLOG, PROVIDER_KEY] {
            refused.add(0, &[telemetry::label("reason", reason)]);
        }
        let description =
            "Requests for an order that were refused for good; out_of_stock: something was sold out.";
        let refusals = telemetry::counter("checkout.refusals", "{request}", description);
        for reason in Refusal::ALL {
            refusals.add(0, &[telemetry::label("reason", reason)]);
        }
        Self(Arc::new(Inner {
            pool,
            products,
            users,
            sagas,
            times,
            claims,
            place,
            answer_refusal,
            refused,
            refusals,
        }))
    }

    /// Refuses while nothing can be paid, and while orders wait longer and longer to be paid: more of them would be cancelled unpaid in the end.
    pub fn admit(&self) -> Result<(), CheckoutError> {
        if self.sagas.is_key_refused() {
            self.refused.add(1, &[telemetry::label("reason", PROVIDER_KEY)]);
            return Err(CheckoutError::KeyRefused);
        }
        if !self.sagas.has_backlog() {
            return Ok(());
        }
        self.refused.add(1, &[telemetry::label("reason", BACKLOG)]);
        Err(CheckoutError::Backlog)
    }

    /// The answer that the key has to this request, if any: it stays the answer, whatever rules came since.
    pub async fn earlier_answer(
        &self,
        user: UserId,
        key: String,
        sent: &Request,
    ) -> Result<Option<StoredAnswer>, CheckoutError> {
        let key = Key::new(user, OPERATION, key, sent)?;
        let stored = idempotency::store::read(&mut *self.pool.acquire().await?, &key).await?;
        Ok(stored.filter(|stored| stored.body_hash == key.body_hash).and_then(|stored| stored.answer))
    }

    /// The answer to the request, and whether it is an earlier one's. The key stands for the request as it was `sent`.
    pub async fn place_order(
        &self,
        user: UserId,
        key: String,
        sent: &Request,
        request: Request,
    ) -> Result<(StoredAnswer, bool), CheckoutError> {
        let key = Key::new(user, OPERATION, key, sent)?;
        // As they are when the customer asks: another tab may show others while this is under way.
        let shown = match request {
            Request { items: None, expected_total: None, .. } => {
                cart::store::shown(&mut *self.pool.acquire().await?, user).await?
            }
            _ => HashMap::new(),
        };
        let record = match self.claim(&key, &request).await? {
            Claimed::Mine(record) => *record,
            Claimed::Answered(answer) => return Ok((answer, true)),
        };
        match self.work(&key, record.clone(), request, &shown).await {
            Ok(answer) => Ok((answer, false)),
            Err(error) => {
                // No answer is stored for a failure that may pass; a retry starts at once.
                let mut connection = self.pool.acquire().await?;
                idempotency::store::let_go(&mut connection, &key, &record).await?;
                Err(error)
            }
        }
    }

    /// The key's record, or the answer that it already has.
    async fn claim(&self, key: &Key, request: &Request) -> Result<Claimed, CheckoutError> {
        // Most keys are new. With an address to be asked for, the key is looked up first.
        if request.address_id.is_none() {
            let lines = self.lines(key, request).await?;
            if can_be_bought(&lines).is_ok()
                && let Some(record) = self.claim_new(key, lines, None).await?
            {
                return Ok(Claimed::Mine(Box::new(record)));
            }
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
        let lines = self.lines(key, request).await?;
        can_be_bought(&lines)?;
        match self.claim_new(key, lines, address).await? {
            Some(record) => Ok(Claimed::Mine(Box::new(record))),
            None => Err(idempotency::taken(&mut *self.pool.acquire().await?, key).await.into()),
        }
    }

    /// What is to be bought.
    async fn lines(&self, key: &Key, request: &Request) -> sqlx::Result<Vec<Line>> {
        match &request.items {
            Some(items) => Ok(items.clone()),
            None => cart::store::lines(&mut *self.pool.acquire().await?, key.user_id).await,
        }
    }

    /// A record of a new key; `None` when it is not new, or its user was erased.
    async fn claim_new(
        &self,
        key: &Key,
        lines: Vec<Line>,
        address: Option<Address>,
    ) -> Result<Option<Record>, CheckoutError> {
        let record = Record::new(lines, address);
        let made = self.claims.run((key.clone(), record.clone())).await??;
        Ok(made.then_some(record))
    }

    async fn address(&self, user: UserId, id: AddressId) -> Result<Address, CheckoutError> {
        match self.users.address(user, id).await {
            Ok(Some(address)) => Ok(address),
            Ok(None) => Err(CheckoutError::UnknownAddress),
            Err(error) => {
                tracing::warn!(%error, "place.user_away");
                Err(CheckoutError::UserAway)
            }
        }
    }

    async fn work(
        &self,
        key: &Key,
        mut record: Record,
        request: Request,
        shown: &HashMap<ProductId, Money>,
    ) -> Result<StoredAnswer, CheckoutError> {
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
        let total = match order::total(&items) {
            Ok(total) => total,
            Err(why) => {
                self.give_back(&record).await?;
                return self.refuse(&record, why.into()).await;
            }
        };
        if !is_agreed(&request, shown, &items, total) {
            self.give_back(&record).await?;
            return self.refuse(&record, Refusal::PriceChanged { items, total }).await;
        }
        self.place(key, &record, request, items, total, remaining_ms).await
    }

    async fn reserve(&self, record: &Record) -> Result<Reserved, CheckoutError> {
        self.products.reserve(record.id.into(), &record.lines).await.map_err(away)
    }

    /// Releases what is reserved under the record; not once it is another's, who may have placed the order on it.
    async fn give_back(&self, record: &Record) -> Result<(), CheckoutError> {
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
        request: Request,
        items: Vec<Item>,
        total: Money,
        remaining_ms: i64,
    ) -> Result<StoredAnswer, CheckoutError> {
        let address = record.address.clone().or(request.shipping_address);
        let left = remaining_ms as f64 / 1000.0 - MARGIN_SECONDS;
        let mut placement = Placement {
            id: record.id.into(),
            number: OrderNumber::new(rand::random()),
            user_id: key.user_id,
            items,
            total,
            shipping_address: address.ok_or(CheckoutError::NoAddress)?, // checked when the request came in
            payment_method: request.payment_method,
            deadline_seconds: self.times.payment_deadline.as_secs_f64().min(left).max(1.0),
            action_seconds: self.times.action_deadline.as_secs_f64().min(left).max(1.0),
            placed_at: now(),
            traceparent: telemetry::traceparent(),
            lease: None,
        };
        let cart = request.items.is_none();
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

    /// An error at COMMIT leaves open whether the order was placed, and a record
    /// that is lost may have been answered by its new owner: the record tells.
    async fn stored_answer(&self, key: &Key) -> sqlx::Result<Option<StoredAnswer>> {
        let mut connection = self.pool.acquire().await?;
        let stored = idempotency::store::read(&mut connection, key).await?;
        self.sagas.wake();
        Ok(stored.and_then(|stored| stored.answer))
    }

    /// Stores a refusal that stays: the same key gets it again.
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

fn away(error: crate::clients::product::Unavailable) -> CheckoutError {
    tracing::warn!(%error, "place.product_away");
    CheckoutError::ProductAway
}

/// Whether this is what the customer has agreed to pay: the total that they name, or the prices that their cart was last
/// shown at.
fn is_agreed(request: &Request, shown: &HashMap<ProductId, Money>, items: &[Item], total: Money) -> bool {
    match request.expected_total {
        Some(expected) => expected == total,
        None => {
            items.iter().all(|item| shown.get(&item.product_id).is_none_or(|price| *price == item.unit_price))
        }
    }
}

fn can_be_bought(lines: &[Line]) -> Result<(), CheckoutError> {
    match lines.len() {
        0 => Err(CheckoutError::EmptyCart),
        1..=MAX_LINES => Ok(()),
        _ => Err(CheckoutError::TooManyLines),
    }
}

/// To the microsecond, as PostgreSQL stores it: the first answer shows the
/// same time as any later one.
fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_nanosecond(now.microsecond() * 1000).unwrap_or(now)
}
