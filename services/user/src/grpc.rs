//! The calls of other services.

use proto::user::v1 as wire;
use proto::user::v1::user_service_server::UserService;
use service::db::Pool;
use service::grpc::{from_sqlx, invalid, refusal};
use service::peer::Callers;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use crate::address::{self, Place};

/// Who may ask for addresses.
const CALLERS: [&str; 1] = ["order"];

pub(crate) struct Calls {
    pool: Pool,
    callers: Callers,
}

impl Calls {
    pub fn new(pool: Pool, callers: Callers) -> Self {
        Self { pool, callers }
    }
}

#[tonic::async_trait]
impl UserService for Calls {
    async fn get_address(
        &self,
        request: Request<wire::GetAddressRequest>,
    ) -> Result<Response<wire::GetAddressResponse>, Status> {
        self.callers.require(&request, &CALLERS)?;
        let asked = request.into_inner();
        let (user, id) = (parse(&asked.user_id, "user_id")?, parse(&asked.address_id, "address_id")?);
        let found = async { address::find(&mut *self.pool.acquire().await?, user, id).await };
        let found = found.await.map_err(|error| from_sqlx(&error))?;
        let address = found
            .ok_or_else(|| refusal(Code::NotFound, "unknown_address", "the user has no such address"))?;
        Ok(Response::new(wire::GetAddressResponse { address: Some(known(address.place)) }))
    }
}

fn parse(id: &str, field: &str) -> Result<Uuid, Status> {
    id.parse().map_err(|_| invalid(field, "invalid_value", "not a UUID"))
}

fn known(place: Place) -> wire::Address {
    let Place { name, line1, line2, city, region, postal_code, country, phone } = place;
    let [city, postal_code] = [city, postal_code].map(Option::unwrap_or_default);
    wire::Address { name, line1, line2, city, region, postal_code, country, phone }
}
