//! The calls of other services.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::join_all;
use opentelemetry::metrics::Counter;
use proto::product::v1 as wire;
use service::batch::{BUDGET, Batcher, split};
use service::db::{Connection, Kind, Pool};
use service::failpoint;
use service::grpc::{from_sqlx, invalid, outcome_unknown, unavailable};
use service::peer::Callers;
use service::telemetry;
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::product;
use crate::stock::{self, Committed, Line, Lives, Outcome, Released, Reservation};

/// Who may call anything here.
const CALLERS: [&str; 1] = ["order"];

/// Most products, reservations or orders in one call.
const MAX_ITEMS: usize = 200;
const MAX_LINES: usize = 100;
const MAX_QUANTITY: u32 = 999;

/// The server. Writes of concurrent calls are decided together: one transaction for all that queued up during
/// the last one, in a task that outlives the caller's deadline. Items that are still queued when their caller
/// stops waiting are dropped.
pub struct Calls {
    pool: Pool,
    callers: Callers,
    reserve: Batcher<Reservation, Result<Outcome, Status>>,
    commit: Batcher<Uuid, Result<Committed, Status>>,
    release: Batcher<Uuid, Result<Released, Status>>,
    /// Reservations that were asked for, counted at each request.
    asked: Counter<u64>,
}

impl Calls {
    pub fn new(pool: Pool, callers: Callers, lives: Lives) -> Self {
        let description = "Reservations asked for, each time that one is.";
        let asked = telemetry::counter("reservations.asked", "{reservation}", description);
        asked.add(0, &[]);
        Self {
            callers,
            asked,
            reserve: batched("reserve", pool.clone(), move |connection, items| {
                Box::pin(async move {
                    let outcomes = stock::reserve(connection, items, lives).await?;
                    failpoint::hit("product.reserve.written").await?;
                    Ok(outcomes)
                })
            }),
            commit: batched("commit", pool.clone(), |connection, orders| {
                Box::pin(async move {
                    let committed = stock::commit(connection, orders).await?;
                    failpoint::hit("product.commit.written").await?;
                    Ok(committed)
                })
            }),
            release: batched("release", pool.clone(), move |connection, orders| {
                Box::pin(async move {
                    let released = stock::release(connection, orders, lives).await?;
                    failpoint::hit("product.release.written").await?;
                    Ok(released)
                })
            }),
            pool,
        }
    }
}

type Answers<'a, O> = Pin<Box<dyn Future<Output = sqlx::Result<Vec<O>>> + Send + 'a>>;

/// A queue whose batches `operation` decides, in one transaction each; if that fails, each item by itself.
fn batched<I, O, F>(name: &'static str, pool: Pool, operation: F) -> Batcher<I, Result<O, Status>>
where
    I: Send + Sync + 'static,
    O: Send + 'static,
    F: for<'a> Fn(&'a mut Connection, &'a [I]) -> Answers<'a, O> + Send + Sync + 'static,
{
    let operation = Arc::new(operation);
    Batcher::spawn(name, move |items: Arc<Vec<I>>| {
        let (pool, operation) = (pool.clone(), operation.clone());
        async move {
            let (pool, items, operation) = (&pool, &items, &operation);
            let together = |part: Range<usize>| async move {
                let whole = part.len() == items.len();
                let work = async {
                    let mut transaction = service::db::begin(pool).await?;
                    let answers = operation(&mut transaction, &items[part]).await?;
                    transaction.commit().await?;
                    Ok(answers)
                };
                if whole {
                    return work.await;
                }
                // Finished parts are answered with the last one, and their callers wait for three seconds.
                timeout(BUDGET, work).await.unwrap_or_else(|_| Err(service::db::abandoned()))
            };
            let answers = split(items.len(), together).await.into_iter();
            answers.map(|answer| answer.map_err(|error| status(&error))).collect()
        }
    })
}

/// A transient error was logged for the whole batch.
fn status(error: &sqlx::Error) -> Status {
    match service::db::kind(error) {
        Kind::OutcomeUnknown => outcome_unknown(),
        Kind::OtherConnection | Kind::Later => unavailable("the database is busy or away"),
        Kind::Statement => from_sqlx(error),
    }
}

/// Queues the items side by side, so that they share a transaction.
async fn ask<I, O>(queue: &Batcher<I, Result<O, Status>>, items: Vec<I>) -> Result<Vec<O>, Status>
where
    I: Send + Sync + 'static,
    O: Send + 'static,
{
    let answers = join_all(items.into_iter().map(|item| queue.run(item))).await;
    let overloaded = |_| unavailable("too much is waiting");
    answers.into_iter().map(|answer| answer.map_err(overloaded)?).collect()
}

#[tonic::async_trait]
impl wire::product_service_server::ProductService for Calls {
    async fn get_products(
        &self,
        request: Request<wire::GetProductsRequest>,
    ) -> Result<Response<wire::GetProductsResponse>, Status> {
        self.callers.require(&request, &CALLERS)?;
        let ids = ids("product_ids", &request.into_inner().product_ids)?;
        let mut connection = self.pool.acquire().await.map_err(|error| from_sqlx(&error))?;
        let products = product::store::by_ids(&mut connection, &ids).await;
        let products = products.map_err(|error| from_sqlx(&error))?;
        let products = products.iter().map(wire::Product::from).collect();
        Ok(Response::new(wire::GetProductsResponse { products }))
    }

    async fn reserve(
        &self,
        request: Request<wire::ReserveRequest>,
    ) -> Result<Response<wire::ReserveResponse>, Status> {
        self.callers.require(&request, &CALLERS)?;
        let asked = request.into_inner().reservations;
        at_most("reservations", asked.len(), MAX_ITEMS)?;
        self.asked.add(asked.len() as u64, &[]);
        let asked = asked.iter().enumerate();
        let asked = asked.map(|(index, asked)| reservation(&format!("reservations[{index}]"), asked));
        let asked = asked.collect::<Result<_, _>>()?;
        let outcomes = ask(&self.reserve, asked).await?;
        failpoint::hit("product.reserve.committed").await.map_err(|error| from_sqlx(&error))?;
        let results = outcomes.into_iter().map(wire::ReserveResult::from).collect();
        Ok(Response::new(wire::ReserveResponse { results }))
    }

    async fn commit(
        &self,
        request: Request<wire::CommitRequest>,
    ) -> Result<Response<wire::CommitResponse>, Status> {
        self.callers.require(&request, &CALLERS)?;
        let orders = ids("order_ids", &request.into_inner().order_ids)?;
        let results = ask(&self.commit, orders).await?.into_iter();
        failpoint::hit("product.commit.committed").await.map_err(|error| from_sqlx(&error))?;
        let results = results.map(|result| match result {
            Committed::Committed => wire::CommitResult::Committed.into(),
            Committed::Gone => wire::CommitResult::Gone.into(),
        });
        Ok(Response::new(wire::CommitResponse { results: results.collect() }))
    }

    async fn release(
        &self,
        request: Request<wire::ReleaseRequest>,
    ) -> Result<Response<wire::ReleaseResponse>, Status> {
        self.callers.require(&request, &CALLERS)?;
        let orders = ids("order_ids", &request.into_inner().order_ids)?;
        let results = ask(&self.release, orders).await?.into_iter();
        failpoint::hit("product.release.committed").await.map_err(|error| from_sqlx(&error))?;
        let results = results.map(|result| match result {
            Released::Released => wire::ReleaseResult::Released.into(),
            Released::Committed => wire::ReleaseResult::Committed.into(),
        });
        Ok(Response::new(wire::ReleaseResponse { results: results.collect() }))
    }
}

fn at_most(field: &str, count: usize, max: usize) -> Result<(), Status> {
    if count > max {
        return Err(invalid(field, "too_many", &format!("at most {max} in one call")));
    }
    Ok(())
}

fn id(field: &str, text: &str) -> Result<Uuid, Status> {
    text.parse().map_err(|_| invalid(field, "invalid_value", "not a UUID"))
}

fn ids(field: &str, texts: &[String]) -> Result<Vec<Uuid>, Status> {
    at_most(field, texts.len(), MAX_ITEMS)?;
    texts.iter().enumerate().map(|(index, text)| id(&format!("{field}[{index}]"), text)).collect()
}

/// `at` names it in errors.
fn reservation(at: &str, asked: &wire::Reservation) -> Result<Reservation, Status> {
    let field = format!("{at}.lines");
    if asked.lines.is_empty() {
        return Err(invalid(&field, "missing_field", "at least one"));
    }
    at_most(&field, asked.lines.len(), MAX_LINES)?;
    let lines = asked.lines.iter().enumerate().map(|(index, line)| {
        let at = format!("{field}[{index}]");
        if !(1..=MAX_QUANTITY).contains(&line.quantity) {
            let message = format!("from 1 to {MAX_QUANTITY}");
            return Err(invalid(&format!("{at}.quantity"), "out_of_range", &message));
        }
        Ok(Line { product_id: id(&format!("{at}.product_id"), &line.product_id)?, quantity: line.quantity })
    });
    let lines = lines.collect::<Result<_, _>>()?;
    Ok(Reservation { order_id: id(&format!("{at}.order_id"), &asked.order_id)?, lines })
}

impl From<Outcome> for wire::ReserveResult {
    fn from(outcome: Outcome) -> Self {
        use wire::reserve_result::Outcome as Wire;
        let outcome = match outcome {
            Outcome::Reserved { lines, remaining_ms } => Wire::Reserved(wire::Reserved {
                lines: lines
                    .into_iter()
                    .map(|line| wire::ReservedLine {
                        product_id: line.product_id.to_string(),
                        sku: line.sku,
                        name: line.name,
                        unit_price: Some(product::money(line.unit_price)),
                        quantity: line.quantity,
                    })
                    .collect(),
                remaining_ms,
            }),
            Outcome::OutOfStock(short) => Wire::OutOfStock(wire::OutOfStock {
                lines: short
                    .into_iter()
                    .map(|line| wire::ShortLine {
                        product_id: line.product_id.to_string(),
                        requested: line.requested,
                        available: line.available,
                    })
                    .collect(),
            }),
            Outcome::UnknownProducts(ids) => Wire::UnknownProducts(wire::UnknownProducts {
                product_ids: ids.iter().map(Uuid::to_string).collect(),
            }),
            Outcome::Conflict => Wire::Conflict(wire::Conflict {}),
            Outcome::Ended => Wire::Ended(wire::Ended {}),
        };
        Self { outcome: Some(outcome) }
    }
}
