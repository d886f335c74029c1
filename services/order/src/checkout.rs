//! Checkout: claim the Idempotency-Key, reserve the stock, place the order. Safe to repeat from any point.

mod claim;
mod error;
pub mod request;
pub mod sweeper;
mod unpaid_store;
mod work;
mod write;

use std::collections::HashMap;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::time::Duration;

use messaging::Outbox;
use opentelemetry::metrics::Counter;
use order_core::ids::UserId;
use service::batch::{Batcher, split};
use service::db::Pool;
use service::telemetry;
use time::OffsetDateTime;
use uuid::Uuid;

use self::claim::Claimed;
pub use self::error::{CheckoutError, Refusal};
use self::request::{Request, Wanted};
use self::write::{Job, Placed};
use crate::cart;
use crate::clients::product::Products;
use crate::clients::user::Users;
use crate::idempotency::{self, Key, Record, StoredAnswer};
use crate::order::Line;
use crate::saga::runner::Sagas;
use crate::times::Times;

const HOUR: Duration = Duration::from_secs(3600);

pub const OPERATION: &str = "POST /api/v1/orders";

/// Why orders are refused for now.
const BACKLOG: &str = "backlog";
const PROVIDER_KEY: &str = "provider_key";
const UNPAID: &str = "unpaid";

/// How a refusal is answered; the last are the lines that were to be bought.
pub type AnswerRefusal = fn(Uuid, &Refusal, &[Line]) -> serde_json::Result<StoredAnswer>;

/// What a checkout is held to.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub times: Times,
    /// Unpaid orders of an account.
    pub unpaid_an_hour: u32,
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
    unpaid_an_hour: u32,
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
        Bounds { times, unpaid_an_hour }: Bounds,
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
                // The client may have gone by then.
                let begin = |job: &Job| match job.take_slot() {
                    Some(slot) => sagas.begin(&job.placement, slot),
                    None => sagas.wake(),
                };
                write::place(&pool, &outbox, &batch, begin).await
            }
        });
        let description = "Requests for an order that were refused for now.";
        let refused = telemetry::counter("orders.refused", "{request}", description);
        for reason in [BACKLOG, PROVIDER_KEY, UNPAID] {
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
            unpaid_an_hour,
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

    /// Refuses accounts that have left too many orders unpaid: they may be trying out stolen cards.
    async fn require_payer(&self, key: &Key, record: &Record) -> Result<(), CheckoutError> {
        let mut connection = self.pool.acquire().await?;
        let unpaid = unpaid_store::unpaid(&mut connection, key, record, HOUR, self.unpaid_an_hour).await?;
        let seconds = match unpaid.since {
            Some(oldest) => {
                (oldest + HOUR - OffsetDateTime::now_utc()).whole_seconds().clamp(1, HOUR.as_secs() as i64)
            }
            // It will be known in a moment what becomes of those that are being placed.
            None if unpaid.with_others => 1,
            None => return Ok(()),
        };
        self.refused.add(1, &[telemetry::label("reason", UNPAID)]);
        Err(CheckoutError::TooManyUnpaid { seconds: u32::try_from(seconds).unwrap_or(1) })
    }

    /// The answer that the key already has for this request, if any. It stays the answer, even if the rules
    /// have changed.
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
        wanted: Wanted,
    ) -> Result<(StoredAnswer, bool), CheckoutError> {
        let key = Key::new(user, OPERATION, key, sent)?;
        // As they are when the customer asks: another tab may change what the cart shows meanwhile.
        let shown = match wanted {
            Wanted { lines: None, expected_total: None, .. } => {
                cart::store::shown(&mut *self.pool.acquire().await?, user).await?
            }
            _ => HashMap::new(),
        };
        let record = match self.claim(&key, &wanted).await? {
            Claimed::Mine(record) => *record,
            Claimed::Answered(answer) => return Ok((answer, true)),
        };
        match self.work(&key, record.clone(), wanted, &shown).await {
            Ok(answer) => Ok((answer, false)),
            Err(error) => {
                // A failure that may pass stores no answer, so a retry starts at once.
                let mut connection = self.pool.acquire().await?;
                idempotency::store::let_go(&mut connection, &key, &record).await?;
                Err(error)
            }
        }
    }
}
