//! The user service's gRPC trait over a map.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use proto::user::v1::user_service_server::{UserService, UserServiceServer};
use proto::user::v1::{
    Address, Customer, GetAddressRequest, GetAddressResponse, GetCustomersRequest, GetCustomersResponse,
};
use service::peer::Callers;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// The user service's state, which tests read and change.
#[derive(Clone, Default)]
pub struct Book(Arc<Mutex<Inner>>);

#[derive(Default)]
pub struct Inner {
    /// By user and address.
    pub addresses: HashMap<(String, String), Address>,
    pub customers: Vec<Customer>,
    pub away: bool,
    pub asked: usize,
}

impl Book {
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub fn add(&self, user: Uuid, city: &str) -> Uuid {
        let id = Uuid::now_v7();
        let address = Address {
            name: "Ada".to_owned(),
            line1: "1 Quay".to_owned(),
            city: city.to_owned(),
            postal_code: "HU1 1AA".to_owned(),
            country: "GB".to_owned(),
            ..Address::default()
        };
        self.lock().addresses.insert((user.to_string(), id.to_string()), address);
        id
    }
}

impl Book {
    /// Somebody with an account.
    pub fn register(&self, user: Uuid, email: &str, name: &str) {
        let (user_id, email, name) = (user.to_string(), email.to_owned(), name.to_owned());
        self.lock().customers.push(Customer { user_id, email, name });
    }
}

pub struct FakeUser {
    book: Book,
    callers: Callers,
}

impl FakeUser {
    pub async fn start(book: Book, order_key: &str) -> String {
        let callers = Callers::parse("user", &format!("order={order_key}")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = UserServiceServer::new(Self { book, callers });
        let serve = tonic::transport::Server::builder().add_service(server);
        tokio::spawn(serve.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }
}

#[tonic::async_trait]
impl UserService for FakeUser {
    async fn get_address(
        &self,
        request: Request<GetAddressRequest>,
    ) -> Result<Response<GetAddressResponse>, Status> {
        self.callers.require(&request, &["order"])?;
        let mut inner = self.book.lock();
        inner.asked += 1;
        if inner.away {
            return Err(Status::unavailable("away"));
        }
        let GetAddressRequest { user_id, address_id } = request.into_inner();
        let address = inner.addresses.get(&(user_id, address_id)).cloned();
        let address = address.ok_or_else(|| Status::not_found("no such address"))?;
        Ok(Response::new(GetAddressResponse { address: Some(address) }))
    }

    async fn get_customers(
        &self,
        request: Request<GetCustomersRequest>,
    ) -> Result<Response<GetCustomersResponse>, Status> {
        self.callers.require(&request, &["order"])?;
        let inner = self.book.lock();
        if inner.away {
            return Err(Status::unavailable("away"));
        }
        let GetCustomersRequest { user_ids, email } = request.into_inner();
        if email.as_ref().is_some_and(|email| !email.contains('@')) {
            return Err(Status::invalid_argument("not an e-mail address"));
        }
        let asked = |one: &&Customer| user_ids.contains(&one.user_id) || Some(&one.email) == email.as_ref();
        let customers = inner.customers.iter().filter(asked).cloned().collect();
        Ok(Response::new(GetCustomersResponse { customers }))
    }
}
