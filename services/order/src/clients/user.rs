//! The user service's gRPC API: whose address is which.

use std::time::Duration;

use anyhow::Context;
use proto::user::v1 as api;
use proto::user::v1::user_service_client::UserServiceClient;
use service::grpc::Replicas;
use service::peer::ServiceKey;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::address::Address;
use crate::times::Times;

#[derive(Clone)]
pub struct Users {
    client: UserServiceClient<Replicas>,
    key: ServiceKey,
    deadline: Duration,
}

impl Users {
    pub fn new(addresses: &str, key: ServiceKey, times: Times) -> anyhow::Result<Self> {
        let replicas = Replicas::new(addresses).context("USER_GRPC")?;
        Ok(Self { client: UserServiceClient::new(replicas), key, deadline: times.user_call })
    }

    /// One of the user's own addresses; `None` when there is no such.
    pub async fn address(&self, user: Uuid, address: Uuid) -> Result<Option<Address>, Status> {
        let message = api::GetAddressRequest { user_id: user.to_string(), address_id: address.to_string() };
        let token = self.key.token("user")?;
        let ask = |request| {
            let mut client = self.client.clone();
            async move { client.get_address(request).await }
        };
        match service::grpc::call(message, self.deadline, &token, ask).await {
            Ok(answer) => {
                let address = answer.address.map(known);
                address.map(Some).ok_or_else(|| Status::internal("an answer without an address"))
            }
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }
}

fn known(address: api::Address) -> Address {
    let api::Address { name, line1, line2, city, region, postal_code, country } = address;
    Address { name, line1, line2, city, region, postal_code, country }
}
