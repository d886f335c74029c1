//! The calls of other services.

use proto::user::v1 as wire;
use proto::user::v1::user_service_server::UserService;
use service::db::Pool;
use service::grpc::{from_sqlx, invalid, refusal};
use service::peer::Callers;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use crate::account::{self, Email};
use crate::address::{self, Place};

/// Who may ask for addresses and customers.
const CALLERS: [&str; 1] = ["order"];

/// Customers asked for at once.
const MOST: usize = 100;

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

    async fn get_customers(
        &self,
        request: Request<wire::GetCustomersRequest>,
    ) -> Result<Response<wire::GetCustomersResponse>, Status> {
        self.callers.require(&request, &CALLERS)?;
        let asked = request.into_inner();
        if asked.user_ids.len() > MOST {
            return Err(invalid("user_ids", "too_long", "at most 100"));
        }
        let ids = asked.user_ids.iter().enumerate();
        let ids = ids.map(|(index, id)| parse(id, &format!("user_ids[{index}]")));
        let ids = ids.collect::<Result<Vec<Uuid>, Status>>()?;
        let email = asked.email.map(|email| {
            let unread = || invalid("email", "invalid_email", "not an e-mail address");
            Email::read(&email).ok_or_else(unread)
        });
        let email = email.transpose()?;
        let found =
            async { account::customers(&mut *self.pool.acquire().await?, &ids, email.as_ref()).await };
        let found = found.await.map_err(|error| from_sqlx(&error))?;
        let customer = |one: account::Customer| wire::Customer {
            user_id: one.id.to_string(),
            email: one.email,
            name: one.name,
        };
        let customers = found.into_iter().map(customer).collect();
        Ok(Response::new(wire::GetCustomersResponse { customers }))
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
