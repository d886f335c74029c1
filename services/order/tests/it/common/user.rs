//! The user service's gRPC trait over a map.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use proto::user::v1::user_service_server::{UserService, UserServiceServer};
use proto::user::v1::{Address, GetAddressRequest, GetAddressResponse};
use service::peer::Callers;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// What the user service knows; tests look at it and change it.
#[derive(Clone, Default)]
pub struct Book(Arc<Mutex<Inner>>);

#[derive(Default)]
pub struct Inner {
    /// By user and address.
    pub addresses: HashMap<(String, String), Address>,
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
}
