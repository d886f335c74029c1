//! The product service's gRPC API. Requests of several orders at the same time share one call.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use order_core::ids::{OrderId, ProductId};
use proto::product::v1 as api;
use proto::product::v1::product_service_client::ProductServiceClient;
use proto::product::v1::reserve_result::Outcome;
use service::Money;
use service::batch::{Batcher, Overloaded};
use service::grpc::{Replicas, Retries};
use service::money::Currency;
use service::peer::ServiceKey;
use service::tls::Identity;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::{Code, Request, Response, Status};

use crate::order::{Item, Line};
use crate::times::Times;

/// Items that are asked for one by one, at most, at once; see [`Products::alone`].
const ALONE_AT_ONCE: usize = 16;

/// A reservation's result.
#[derive(Clone, Debug)]
pub enum Reserved {
    Held {
        items: Vec<Item>,
        remaining_ms: i64,
    },
    OutOfStock(Vec<Shortage>),
    Unknown(Vec<ProductId>),
    /// The order id's reservation was released or ran out.
    Ended,
    /// The order id is reserved with other lines: a defect of ours.
    Conflict,
}

/// A product that has too little stock.
#[derive(Clone, Debug)]
pub struct Shortage {
    pub product_id: ProductId,
    pub requested: u32,
    pub available: u32,
}

#[derive(Clone, Debug)]
pub struct Product {
    pub id: ProductId,
    pub name: String,
    pub price: Money,
    pub available: u32,
    pub archived: bool,
}

/// Why there is no answer: the service is away, slow, or refuses us.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the product service does not answer: {why}")]
pub struct Unavailable {
    why: String,
    /// It answered, but refuses this request as it is.
    refused: bool,
}

impl Unavailable {
    fn passing(why: &str) -> Self {
        Self { why: why.to_owned(), refused: false }
    }
}

impl From<Status> for Unavailable {
    fn from(status: Status) -> Self {
        let answered = !service::grpc::is_transient(&status);
        if answered {
            tracing::error!(code = ?status.code(), error = status.message(), "product.call_failed");
        }
        // These are about us, and not about what we asked for.
        let of_us =
            matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented);
        Self { why: status.message().to_owned(), refused: answered && !of_us }
    }
}

impl From<Overloaded> for Unavailable {
    fn from(overloaded: Overloaded) -> Self {
        Self::passing(&overloaded.to_string())
    }
}

/// Cheap to clone, as each request does.
#[derive(Clone)]
pub struct Products(Arc<Inner>);

pub struct Inner {
    caller: Caller,
    reserve: Batcher<api::Reservation, Result<Reserved, Unavailable>>,
    commit: Batcher<OrderId, Result<bool, Unavailable>>,
    alone: Semaphore,
}

#[derive(Clone)]
struct Caller {
    client: ProductServiceClient<Replicas>,
    key: ServiceKey,
    times: Times,
    retries: Retries,
}

impl Caller {
    /// Every call here is safe to repeat.
    async fn call<M: Clone, R, F>(
        &self,
        message: M,
        deadline: Duration,
        call: impl Fn(ProductServiceClient<Replicas>, Request<M>) -> F,
    ) -> Result<R, Status>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let token = self.key.token("product")?;
        let call = |request| call(self.client.clone(), request);
        service::grpc::call(&self.retries, message, deadline, &token, call).await
    }

    async fn reserve(self, reservations: Vec<api::Reservation>) -> Result<Vec<Reserved>, Unavailable> {
        let message = api::ReserveRequest { reservations };
        let reserve =
            |mut client: ProductServiceClient<_>, request| async move { client.reserve(request).await };
        let results = self.call(message, self.times.product_call, reserve).await?.results;
        results.into_iter().map(|result| result.outcome.and_then(reserved).ok_or_else(malformed)).collect()
    }

    async fn commit(self, orders: Vec<OrderId>) -> Result<Vec<bool>, Unavailable> {
        let order_ids = orders.iter().map(ToString::to_string).collect();
        let message = api::CommitRequest { order_ids };
        let commit =
            |mut client: ProductServiceClient<_>, request| async move { client.commit(request).await };
        let results = self.call(message, self.times.product_call, commit).await?.results;
        results
            .into_iter()
            .map(|result| match api::CommitResult::try_from(result) {
                Ok(api::CommitResult::Committed) => Ok(true),
                Ok(api::CommitResult::Gone) => Ok(false),
                _ => Err(malformed()),
            })
            .collect()
    }
}

impl Deref for Products {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Products {
    pub fn new(
        addresses: &str,
        identity: Option<&Identity>,
        key: ServiceKey,
        times: Times,
    ) -> anyhow::Result<Self> {
        let replicas = Replicas::new(addresses, identity).context("PRODUCT_GRPC")?;
        let client = ProductServiceClient::new(replicas);
        let caller = Caller { client, key, times, retries: Retries::default() };
        let reserver = caller.clone();
        let reserve = Batcher::spawn_beside("reserve", move |batch: Arc<Vec<api::Reservation>>| {
            let caller = reserver.clone();
            async move { together(batch.len(), caller.reserve(batch.to_vec()).await) }
        });
        let committer = caller.clone();
        let commit = Batcher::spawn_beside("commit", move |batch: Arc<Vec<OrderId>>| {
            let caller = committer.clone();
            async move { together(batch.len(), caller.commit(batch.to_vec()).await) }
        });
        Ok(Self(Arc::new(Inner { caller, reserve, commit, alone: Semaphore::new(ALONE_AT_ONCE) })))
    }

    /// Reserves stock for an order; safe to repeat.
    pub async fn reserve(&self, order: OrderId, lines: &[Line]) -> Result<Reserved, Unavailable> {
        let line = |line: &Line| api::Line {
            product_id: line.product_id.to_string(),
            quantity: line.quantity.into(),
        };
        let lines = lines.iter().map(line).collect();
        let reservation = api::Reservation { order_id: order.to_string(), lines };
        match self.reserve.run(reservation.clone()).await? {
            Err(error) if error.refused => self.alone(self.caller.clone().reserve(vec![reservation])).await,
            answer => answer,
        }
    }

    /// Makes the reservation a sale; false when it has ended before. Safe to repeat.
    pub async fn commit(&self, order: OrderId) -> Result<bool, Unavailable> {
        match self.commit.run(order).await? {
            Err(error) if error.refused => self.alone(self.caller.clone().commit(vec![order])).await,
            answer => answer,
        }
    }

    /// Asks for one item of a batch that was refused for its content, so that a bad item fails alone. It runs
    /// outside the batches' worker, where all later items would wait, and has no longer than the batch.
    async fn alone<T>(
        &self,
        call: impl Future<Output = Result<Vec<T>, Unavailable>>,
    ) -> Result<T, Unavailable> {
        let asked = async {
            let _turn = self.alone.acquire().await;
            call.await?.pop().ok_or_else(malformed)
        };
        let answer = timeout(self.caller.times.product_call, asked).await;
        answer.unwrap_or_else(|_| Err(Unavailable::passing("it took too long")))
    }

    /// Gives reserved stock back; safe to repeat, and before any reservation too.
    pub async fn release(&self, orders: &[OrderId]) -> Result<(), Unavailable> {
        let order_ids = orders.iter().map(ToString::to_string).collect();
        let message = api::ReleaseRequest { order_ids };
        let release =
            |mut client: ProductServiceClient<_>, request| async move { client.release(request).await };
        self.caller.call(message, self.caller.times.product_call, release).await?;
        Ok(())
    }

    /// The products as they are now; unknown ones are left out.
    pub async fn get(&self, ids: &[ProductId]) -> Result<Vec<Product>, Unavailable> {
        let product_ids = ids.iter().map(ToString::to_string).collect();
        let message = api::GetProductsRequest { product_ids };
        let call =
            |mut client: ProductServiceClient<_>, request| async move { client.get_products(request).await };
        let products = self.caller.call(message, self.caller.times.catalogue_call, call).await?.products;
        products.into_iter().map(|product| product_of(product).ok_or_else(malformed)).collect()
    }
}

/// One answer for each item of a batch. Where the batch was refused and had several items, each has to be
/// asked for again.
fn together<T>(items: usize, answer: Result<Vec<T>, Unavailable>) -> Vec<Result<T, Unavailable>> {
    let failure = match answer {
        Ok(results) if results.len() == items => return results.into_iter().map(Ok).collect(),
        Ok(_) => malformed(),
        Err(error) => error,
    };
    let failure = Unavailable { refused: failure.refused && items > 1, ..failure };
    (0..items).map(|_| Err(failure.clone())).collect()
}

fn malformed() -> Unavailable {
    tracing::error!("product.answer_malformed");
    Unavailable::passing("its answer makes no sense")
}

pub fn product_of(product: api::Product) -> Option<Product> {
    Some(Product {
        id: product.id.parse().ok()?,
        name: product.name,
        price: money(product.price?)?,
        available: product.available,
        archived: product.archived,
    })
}

fn money(money: api::Money) -> Option<Money> {
    Some(Money::new(money.amount, Currency::from_code(&money.currency)?))
}

fn reserved(outcome: Outcome) -> Option<Reserved> {
    Some(match outcome {
        Outcome::Reserved(held) => {
            let item = |line: api::ReservedLine| {
                Some(Item {
                    product_id: line.product_id.parse().ok()?,
                    sku: line.sku,
                    name: line.name,
                    unit_price: money(line.unit_price?)?,
                    quantity: line.quantity.try_into().ok()?,
                })
            };
            let items = held.lines.into_iter().map(item).collect::<Option<_>>()?;
            Reserved::Held { items, remaining_ms: held.remaining_ms }
        }
        Outcome::OutOfStock(short) => {
            let shortage = |line: api::ShortLine| {
                let api::ShortLine { product_id, requested, available } = line;
                Some(Shortage { product_id: product_id.parse().ok()?, requested, available })
            };
            Reserved::OutOfStock(short.lines.into_iter().map(shortage).collect::<Option<_>>()?)
        }
        Outcome::UnknownProducts(unknown) => {
            let ids = unknown.product_ids.iter().map(|id| id.parse().ok());
            Reserved::Unknown(ids.collect::<Option<_>>()?)
        }
        Outcome::Conflict(_) => Reserved::Conflict,
        Outcome::Ended(_) => Reserved::Ended,
    })
}
