//! Placing an order: claim, reserve, place. Safe to repeat from any point.

use std::collections::HashSet;
use std::ops::{Deref, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use messaging::Outbox;
use opentelemetry::metrics::Counter;
use serde::{Deserialize, Serialize};
use service::batch::{Batcher, split};
use service::db::Pool;
use service::failpoint::reach;
use service::{FieldError, Problem, telemetry};
use time::OffsetDateTime;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, OneOfBuilder, Schema, SchemaType};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use crate::address::Address;
use crate::cart;
use crate::claim::{self, Answer, Claim, Existing, Hold, Key};
use crate::clients::product::{Products, Reserved};
use crate::clients::user::Users;
use crate::erasure;
use crate::order::{self, Item, Line, MAX_LINES, Placement, Viewer};
use crate::saga::runner::{Sagas, Slot};
use crate::times::Times;

pub const OPERATION: &str = "POST /api/v1/orders";

/// Seconds before a reservation's end by which its order is paid or cancelled.
const MARGIN_SECONDS: f64 = 5.0;

/// What a customer asks for. Without items the cart is bought.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_items = 1, max_items = 100)]
    pub items: Option<Vec<Line>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub shipping_address: Option<Address>,
    /// One of the user's own addresses instead.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub address_id: Option<Uuid>,
    /// The name of one of the provider's test cards.
    #[schema(pattern = "^pm_[A-Za-z0-9_]+$", max_length = 100)]
    pub payment_method: String,
}

/// [`Request`] in the OpenAPI document: with one of the two addresses.
pub struct Described;

impl PartialSchema for Described {
    fn schema() -> RefOr<Schema> {
        let with = |field: &str| ObjectBuilder::new().schema_type(SchemaType::AnyValue).required(field);
        let one = OneOfBuilder::new().item(with("shipping_address")).item(with("address_id"));
        AllOfBuilder::new().item(Request::schema()).item(one).into()
    }
}

impl ToSchema for Described {
    fn name() -> std::borrow::Cow<'static, str> {
        "OrderRequest".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Request::schemas(schemas);
    }
}

/// A field that may be left out, but not be null: `"items": null` is a client's
/// mistake, and must not buy the cart.
pub fn given<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// An order to be written, under the claim that allows it.
struct Job {
    claim: Claim,
    answer: Answer,
    placement: Placement,
    /// The cart that it was bought from.
    cart: bool,
    /// Where this process works on it once it is placed.
    slot: Mutex<Option<Slot>>,
}

/// What became of a [`Job`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placed {
    Yes,
    /// The claim was taken over, or has its answer.
    ClaimLost,
    /// The cart no longer holds what was read from it.
    CartChanged,
    /// The user was erased meanwhile.
    UserGone,
}

/// Cheap to clone, as each request does.
#[derive(Clone)]
pub struct Placer(Arc<Inner>);

pub struct Inner {
    pool: Pool,
    products: Products,
    users: Users,
    sagas: Sagas,
    times: Times,
    claims: Batcher<(Key, Claim), sqlx::Result<bool>>,
    place: Batcher<Job, sqlx::Result<Placed>>,
    refused: Counter<u64>,
}

impl Deref for Placer {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Placer {
    pub fn new(
        pool: Pool,
        outbox: Outbox,
        products: Products,
        users: Users,
        sagas: Sagas,
        times: Times,
    ) -> Self {
        let claim_pool = pool.clone();
        let claims = Batcher::spawn(move |batch: Arc<Vec<(Key, Claim)>>| {
            let pool = claim_pool.clone();
            async move {
                let (pool, batch) = (&pool, &batch);
                let make = |part: Range<usize>| async move {
                    claim::store::insert(&mut *pool.acquire().await?, &batch[part], times.claim_lease).await
                };
                split(batch.len(), make).await
            }
        });
        let (place_pool, begin) = (pool.clone(), sagas.clone());
        let place = Batcher::spawn(move |batch: Arc<Vec<Job>>| {
            let (pool, outbox, sagas) = (place_pool.clone(), outbox.clone(), begin.clone());
            async move {
                // Whoever asked may have gone by then.
                let begin = |job: &Job| match lock(&job.slot).take() {
                    Some(slot) => sagas.begin(&job.placement, slot),
                    None => sagas.wake(),
                };
                place(&pool, &outbox, &batch, begin).await
            }
        });
        let refused = telemetry::counter("orders.refused");
        Self(Arc::new(Inner { pool, products, users, sagas, times, claims, place, refused }))
    }

    /// 503 while orders wait longer and longer to be paid: more of them would be cancelled unpaid in the end.
    pub fn admit(&self) -> Result<(), Problem> {
        if !self.sagas.is_behind() {
            return Ok(());
        }
        self.refused.add(1, &[]);
        Err(Problem::unavailable("Too many orders wait for their payment; try again."))
    }

    /// The answer to the request, and whether it is an earlier one's.
    pub async fn answer(&self, user: Uuid, key: String, request: Request) -> Result<(Answer, bool), Problem> {
        let key = Key::new(user, OPERATION, key, &request)?;
        let claim = match self.claim(&key, &request).await? {
            Ok(claim) => claim,
            Err(answer) => return Ok((answer, true)),
        };
        match self.work(&key, claim.clone(), request).await {
            Ok(answer) => Ok((answer, false)),
            Err(problem) => {
                // No answer is stored for a failure that may pass; a retry starts at once.
                let mut connection = self.pool.acquire().await?;
                claim::store::let_go(&mut connection, &key, &claim).await?;
                Err(problem)
            }
        }
    }

    /// The key's claim, or the answer that it already has.
    async fn claim(&self, key: &Key, request: &Request) -> Result<Result<Claim, Answer>, Problem> {
        // Most keys are new. With an address to be asked for, the key is looked up first.
        if request.address_id.is_none()
            && let Ok(lines) = self.lines(key, request).await?
            && let Some(claim) = self.claim_new(key, lines, None).await?
        {
            return Ok(Ok(claim));
        }
        let existing = {
            let mut connection = self.pool.acquire().await?;
            claim::find(&mut connection, key, &self.times).await?
        };
        match existing {
            Existing::Mine(claim) => {
                reach("order.place.taken_over").await?;
                return Ok(Ok(claim));
            }
            Existing::Answered(answer) => return Ok(Err(answer)),
            Existing::None => {}
        }
        // With no connection held: this asks another service.
        let address = match request.address_id {
            Some(id) => Some(self.address(key.user_id, id).await?),
            None => None,
        };
        let lines = self.lines(key, request).await??;
        match self.claim_new(key, lines, address).await? {
            Some(claim) => Ok(Ok(claim)),
            None => Err(claim::taken(&mut *self.pool.acquire().await?, key).await?),
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

    /// A claim on a new key; `None` when it is not new, or its user was erased.
    async fn claim_new(
        &self,
        key: &Key,
        lines: Vec<Line>,
        address: Option<Address>,
    ) -> Result<Option<Claim>, Problem> {
        let claim = Claim::new(lines, address);
        let made = self.claims.run((key.clone(), claim.clone())).await;
        let made = made.map_err(|_| Problem::unavailable("Too many orders at once; try again."))??;
        Ok(made.then_some(claim))
    }

    async fn address(&self, user: Uuid, id: Uuid) -> Result<Address, Problem> {
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

    async fn work(&self, key: &Key, mut claim: Claim, request: Request) -> Result<Answer, Problem> {
        reach("order.place.claimed").await?;
        let mut reserved = if claim.sweeping {
            // Now rather than when the sweeper gets to it, which would be the stock of an order by then.
            self.products.release(&[claim.order_id]).await.map_err(away)?;
            Reserved::Ended
        } else {
            self.reserve(&claim).await?
        };
        if matches!(reserved, Reserved::Ended | Reserved::Conflict) {
            // An ended reservation never revives: the same lines under a new order id.
            let order_id = Uuid::now_v7();
            let mut connection = self.pool.acquire().await?;
            if !claim::store::renew(&mut connection, &claim, order_id).await? {
                return Err(claim::in_progress());
            }
            drop(connection);
            claim.order_id = order_id;
            reserved = self.reserve(&claim).await?;
        }
        let (items, remaining_ms) = match reserved {
            Reserved::Held { items, remaining_ms } => (items, remaining_ms),
            Reserved::OutOfStock(short) => {
                let errors = short.into_iter().map(|line| {
                    let detail = format!("{} asked for, {} available.", line.requested, line.available);
                    FieldError::new(pointer(&claim.lines, &line.product_id), "out_of_stock", detail)
                });
                let problem = Problem::conflict("out_of_stock", "Not enough of everything is in stock.");
                return self.refuse(&claim, problem.with_errors(errors.collect())).await;
            }
            Reserved::Unknown(ids) => {
                let errors = ids.iter().map(|id| {
                    let at = format!("{}/product_id", pointer(&claim.lines, id));
                    FieldError::new(at, "unknown_product", "No such product.")
                });
                let problem = Problem::unprocessable("unknown_product", "A product does not exist.");
                return self.refuse(&claim, problem.with_errors(errors.collect())).await;
            }
            Reserved::Ended | Reserved::Conflict => {
                return Err(Problem::unavailable("The stock could not be reserved; try again."));
            }
        };
        reach("order.place.reserved").await?;
        let total = match order::total(&items) {
            Ok(total) => total,
            Err(error) => {
                self.give_back(&claim).await?;
                return self.refuse(&claim, Problem::invalid(vec![error])).await;
            }
        };
        self.place(key, &claim, request, items, total, remaining_ms).await
    }

    async fn reserve(&self, claim: &Claim) -> Result<Reserved, Problem> {
        self.products.reserve(claim.order_id, &claim.lines).await.map_err(away)
    }

    /// Releases what is reserved under the claim; not once it is another's, who may have placed the order on it.
    async fn give_back(&self, claim: &Claim) -> Result<(), Problem> {
        let mut connection = self.pool.acquire().await?;
        let held = claim::store::sweep_next(&mut connection, &[claim.hold()]).await?;
        drop(connection);
        if held.is_empty() {
            return Err(claim::in_progress());
        }
        self.products.release(&[claim.order_id]).await.map_err(away)
    }

    async fn place(
        &self,
        key: &Key,
        claim: &Claim,
        request: Request,
        items: Vec<Item>,
        total: service::Money,
        remaining_ms: i64,
    ) -> Result<Answer, Problem> {
        let address = claim.address.clone().or(request.shipping_address);
        let left = remaining_ms as f64 / 1000.0 - MARGIN_SECONDS;
        let slot = self.sagas.slot();
        let placement = Placement {
            id: claim.order_id,
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
        let answer = Answer { order_id: claim.order_id, status: 201, body };
        let (cart, slot) = (request.items.is_none(), Mutex::new(slot));
        let job = Job { claim: claim.clone(), answer: answer.clone(), placement, cart, slot };
        let placed = match self.place.run(job).await {
            Ok(placed) => placed,
            Err(_) => return Err(Problem::unavailable("Too many orders at once; try again.")),
        };
        match placed {
            Ok(Placed::Yes) => Ok(answer),
            Ok(Placed::ClaimLost) => self.stored_answer(key).await?.ok_or_else(claim::in_progress),
            Ok(Placed::UserGone) => {
                self.products.release(&[claim.order_id]).await.map_err(away)?;
                Err(erasure::gone())
            }
            Ok(Placed::CartChanged) => {
                self.products.release(&[claim.order_id]).await.map_err(away)?;
                let detail = "The cart has changed since it was read; look at it again.";
                self.refuse(claim, Problem::conflict("cart_changed", detail)).await
            }
            Err(error) => self.stored_answer(key).await?.ok_or_else(|| error.into()),
        }
    }

    /// An error at COMMIT leaves open whether the order was placed, and a claim
    /// that is lost may have been answered by its new owner: the claim tells.
    async fn stored_answer(&self, key: &Key) -> Result<Option<Answer>, Problem> {
        let mut connection = self.pool.acquire().await?;
        let stored = claim::store::read(&mut connection, key).await?;
        self.sagas.wake();
        Ok(stored.and_then(|stored| stored.answer))
    }

    /// Stores a refusal that stays: the same key gets it again.
    async fn refuse(&self, claim: &Claim, problem: Problem) -> Result<Answer, Problem> {
        let body = serde_json::to_string(&problem).map_err(|_| Problem::internal())?;
        let answer = Answer { order_id: claim.order_id, status: problem.status.as_u16(), body };
        let mut connection = self.pool.acquire().await?;
        let stored = claim::store::answer(&mut connection, &[(claim.clone(), answer.clone())]).await?;
        reach("order.place.refused").await?;
        if stored.is_empty() { Err(claim::in_progress()) } else { Ok(answer) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

/// All orders in one transaction, or a bad one apart from the others.
async fn place(
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
    let claims: Vec<&Claim> = jobs.iter().map(|job| &job.claim).collect();
    let mut held = claim::store::lock_held(&mut transaction, &claims).await?;
    let mut placed = vec![Placed::Yes; jobs.len()];
    let mut turns: Vec<usize> = (0..jobs.len()).collect();
    turns.sort_by_key(|turn| jobs[*turn].placement.user_id); // or two replicas deadlock on carts
    for turn in turns {
        let job = &jobs[turn];
        let (user, lines) = (job.placement.user_id, &job.claim.lines);
        // Not by the order id alone: who took the claim over has the same one, and may be in this batch.
        placed[turn] = match held.remove(&job.claim.hold()) {
            None => Placed::ClaimLost,
            Some(true) => Placed::UserGone,
            Some(false) if job.cart && !cart::store::take_out(&mut transaction, user, lines).await? => {
                Placed::CartChanged
            }
            Some(false) => Placed::Yes,
        };
    }
    // Their stock is released next, and that may take longer than the claim is theirs.
    let ended = jobs.iter().zip(&placed);
    let ended = ended.filter(|(_, placed)| matches!(placed, Placed::CartChanged | Placed::UserGone));
    let ended: Vec<Hold> = ended.map(|(job, _)| job.claim.hold()).collect();
    if !ended.is_empty() {
        claim::store::sweep_next(&mut transaction, &ended).await?;
    }
    let mut accepted: Vec<&Job> =
        jobs.iter().zip(&placed).filter(|(_, placed)| **placed == Placed::Yes).map(|(job, _)| job).collect();
    accepted.sort_by_key(|job| job.placement.id); // or two replicas deadlock on unique keys
    let answers: Vec<(Claim, Answer)> =
        accepted.iter().map(|job| (job.claim.clone(), job.answer.clone())).collect();
    let answered: HashSet<Hold> =
        claim::store::answer(&mut transaction, &answers).await?.into_iter().collect();
    if accepted.iter().any(|job| !answered.contains(&job.claim.hold())) {
        // No order without its answer. They are locked, so this is a defect; what was taken out of carts goes back.
        return Err(sqlx::Error::RowNotFound);
    }
    let placements: Vec<Placement> = accepted.iter().map(|job| job.placement.clone()).collect();
    order::store::insert(&mut transaction, &placements).await?;
    reach("order.place.written").await?;
    transaction.commit().await?;
    reach("order.place.committed").await?;
    outbox.wake();
    accepted.into_iter().for_each(begin);
    Ok(placed)
}

#[cfg(test)]
mod tests;
