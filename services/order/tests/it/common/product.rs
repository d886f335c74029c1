//! The product service's gRPC trait over a map.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use proto::product::v1::product_service_server::{ProductService, ProductServiceServer};
use proto::product::v1::reserve_result::Outcome;
use proto::product::v1::*;
use service::peer::Callers;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// The product service's state, which tests read and change.
#[derive(Clone, Default)]
pub struct Stock(Arc<Mutex<Inner>>);

#[derive(Default)]
pub struct Inner {
    pub products: HashMap<String, Product>,
    pub reservations: HashMap<String, (State, Vec<Line>)>,
    /// Answers nothing but "unavailable".
    pub away: bool,
    /// Answers no Commit until this is over.
    pub hangs: bool,
    /// Answers no more calls of Reserve than these.
    pub reserves: Option<u32>,
    /// Answers no Release.
    pub keeps: bool,
    /// Answers no Release of these orders.
    pub keeps_orders: Vec<Uuid>,
    /// Answers no Reserve until this is over.
    pub holds: bool,
    /// Refuses reservations of this product that come with others, and answers none of it alone.
    pub poison: Option<Uuid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Reserved,
    Committed,
    Ended,
}

impl Stock {
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub fn add(&self, amount: i64, available: u32) -> Uuid {
        let id = Uuid::now_v7();
        let product = Product {
            id: id.to_string(),
            sku: format!("SKU-{id}"),
            slug: "thing".to_owned(),
            name: "Thing".to_owned(),
            price: Some(Money { amount, currency: "EUR".to_owned() }),
            available,
            archived: false,
            version: 1,
        };
        self.lock().products.insert(id.to_string(), product);
        id
    }

    pub fn reservation(&self, order: &str) -> Option<State> {
        self.lock().reservations.get(order).map(|(state, _)| *state)
    }
}

pub struct FakeProduct {
    stock: Stock,
    callers: Callers,
}

impl FakeProduct {
    pub async fn start(stock: Stock, order_key: &str) -> String {
        let callers = Callers::parse("product", &format!("order={order_key}")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = ProductServiceServer::new(Self { stock, callers });
        let serve = tonic::transport::Server::builder().add_service(server);
        tokio::spawn(serve.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }

    fn open<T>(&self, request: &Request<T>) -> Result<MutexGuard<'_, Inner>, Status> {
        self.callers.require(request, &["order"])?;
        let inner = self.stock.lock();
        if inner.away { Err(Status::unavailable("away")) } else { Ok(inner) }
    }
}

fn reserve(inner: &mut Inner, reservation: Reservation) -> Outcome {
    match inner.reservations.get(&reservation.order_id) {
        Some((State::Ended, _)) => return Outcome::Ended(Ended {}),
        Some((_, lines)) if *lines != reservation.lines => return Outcome::Conflict(Conflict {}),
        _ => {}
    }
    let unknown = |line: &&Line| !inner.products.contains_key(&line.product_id);
    let unknown: Vec<_> =
        reservation.lines.iter().filter(unknown).map(|line| line.product_id.clone()).collect();
    if !unknown.is_empty() {
        return Outcome::UnknownProducts(UnknownProducts { product_ids: unknown });
    }
    let is_new = !inner.reservations.contains_key(&reservation.order_id);
    let short = |line: &Line| {
        let available = inner.products[&line.product_id].available;
        let (product_id, requested) = (line.product_id.clone(), line.quantity);
        (available < line.quantity).then_some(ShortLine { product_id, requested, available })
    };
    let short: Vec<_> = reservation.lines.iter().filter_map(short).collect();
    if is_new && !short.is_empty() {
        return Outcome::OutOfStock(OutOfStock { lines: short });
    }
    let mut lines = Vec::new();
    for line in &reservation.lines {
        let product = inner.products.get_mut(&line.product_id).unwrap();
        if is_new {
            product.available -= line.quantity;
        }
        lines.push(ReservedLine {
            product_id: product.id.clone(),
            sku: product.sku.clone(),
            name: product.name.clone(),
            unit_price: product.price.clone(),
            quantity: line.quantity,
        });
    }
    inner.reservations.entry(reservation.order_id).or_insert((State::Reserved, reservation.lines));
    Outcome::Reserved(Reserved { lines, remaining_ms: 600_000 })
}

#[tonic::async_trait]
impl ProductService for FakeProduct {
    async fn get_products(
        &self,
        request: Request<GetProductsRequest>,
    ) -> Result<Response<GetProductsResponse>, Status> {
        let inner = self.open(&request)?;
        let ids = &request.get_ref().product_ids;
        let products = ids.iter().filter_map(|id| inner.products.get(id).cloned()).collect();
        Ok(Response::new(GetProductsResponse { products }))
    }

    async fn reserve(&self, request: Request<ReserveRequest>) -> Result<Response<ReserveResponse>, Status> {
        let bad = |inner: &Inner| {
            let reservations = &request.get_ref().reservations;
            let mut lines = reservations.iter().flat_map(|reservation| &reservation.lines);
            inner.poison.is_some_and(|poison| lines.any(|line| line.product_id == poison.to_string()))
        };
        // The caller has a deadline.
        while {
            let inner = self.stock.lock();
            inner.holds || request.get_ref().reservations.len() == 1 && bad(&inner)
        } {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut inner = self.open(&request)?;
        if bad(&inner) {
            return Err(Status::internal("one of them is bad"));
        }
        if let Some(left) = &mut inner.reserves {
            *left = left.checked_sub(1).ok_or_else(|| Status::unavailable("away"))?;
        }
        let reservations = request.get_ref().reservations.clone();
        let results = reservations.into_iter().map(|reservation| reserve(&mut inner, reservation));
        let results = results.map(|outcome| ReserveResult { outcome: Some(outcome) }).collect();
        Ok(Response::new(ReserveResponse { results }))
    }

    async fn commit(&self, request: Request<CommitRequest>) -> Result<Response<CommitResponse>, Status> {
        // The caller has a deadline.
        while self.stock.lock().hangs {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut inner = self.open(&request)?;
        let commit = |id: &String| match inner.reservations.get_mut(id) {
            Some((state, _)) if *state != State::Ended => {
                *state = State::Committed;
                CommitResult::Committed as i32
            }
            _ => CommitResult::Gone as i32,
        };
        let results = request.get_ref().order_ids.iter().map(commit).collect();
        Ok(Response::new(CommitResponse { results }))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        let mut inner = self.open(&request)?;
        let kept = |id: &String| inner.keeps_orders.iter().any(|bad| *id == bad.to_string());
        if inner.keeps || request.get_ref().order_ids.iter().any(kept) {
            return Err(Status::unavailable("away"));
        }
        let mut results = Vec::new();
        for id in &request.get_ref().order_ids {
            let (state, lines) = inner.reservations.remove(id).unwrap_or((State::Ended, Vec::new()));
            if state == State::Reserved {
                for line in &lines {
                    inner.products.get_mut(&line.product_id).unwrap().available += line.quantity;
                }
            }
            inner.reservations.insert(id.clone(), (State::Ended, lines));
            results.push(ReleaseResult::Released as i32);
        }
        Ok(Response::new(ReleaseResponse { results }))
    }
}
