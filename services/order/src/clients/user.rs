//! The user service's gRPC API: addresses by their ids, and customers by their ids or e-mail addresses.

use std::time::Duration;

use anyhow::Context;
use order_core::ids::{AddressId, UserId};
use proto::user::v1 as api;
use proto::user::v1::user_service_client::UserServiceClient;
use service::grpc::{Replicas, Retries};
use service::peer::ServiceKey;
use service::tls::Identity;
use tonic::{Code, Status};

use crate::address::Address;
use crate::order::Customer;
use crate::times::Times;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    #[error("the user service does not answer: {0}")]
    Call(#[from] Status),
    #[error("the user service answers without what was asked for")]
    Malformed,
}

/// The most users in one call.
const CUSTOMERS: usize = 100;

/// The longest wait for what is only shown.
const DISPLAY_DEADLINE: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Users {
    client: UserServiceClient<Replicas>,
    key: ServiceKey,
    deadline: Duration,
    retries: Retries,
}

impl Users {
    pub fn new(
        addresses: &str,
        identity: Option<&Identity>,
        key: ServiceKey,
        times: Times,
    ) -> anyhow::Result<Self> {
        let client = UserServiceClient::new(Replicas::new(addresses, identity).context("USER_GRPC")?);
        Ok(Self { client, key, deadline: times.user_call, retries: Retries::default() })
    }

    /// One of the user's own addresses; `None` when there is no such.
    pub async fn address(&self, user: UserId, address: AddressId) -> Result<Option<Address>, Unavailable> {
        let message = api::GetAddressRequest { user_id: user.to_string(), address_id: address.to_string() };
        let token = self.key.token("user")?;
        let call = |request| {
            let mut client = self.client.clone();
            async move { client.get_address(request).await }
        };
        match service::grpc::call(&self.retries, message, self.deadline, &token, call).await {
            Ok(answer) => {
                let address = answer.address.map(known);
                address.map(Some).ok_or(Unavailable::Malformed)
            }
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status.into()),
        }
    }
}

impl Users {
    /// Those of these users who have an account.
    pub async fn customers(&self, ids: &[UserId]) -> Result<Vec<Customer>, Unavailable> {
        let mut known = Vec::with_capacity(ids.len());
        for some in ids.chunks(CUSTOMERS) {
            let user_ids = some.iter().map(ToString::to_string).collect();
            known.extend(
                self.ask(api::GetCustomersRequest { user_ids, email: None }, DISPLAY_DEADLINE).await?,
            );
        }
        Ok(known)
    }

    /// Whoever has an account with this address. Two at most: one of them from when domains were compared in
    /// another way.
    pub async fn with_email(&self, email: &str) -> Result<Vec<Customer>, Unavailable> {
        let asked = api::GetCustomersRequest { user_ids: vec![], email: Some(email.to_owned()) };
        self.ask(asked, self.deadline).await
    }

    async fn ask(
        &self,
        asked: api::GetCustomersRequest,
        deadline: Duration,
    ) -> Result<Vec<Customer>, Unavailable> {
        let token = self.key.token("user")?;
        let call = |request| {
            let mut client = self.client.clone();
            async move { client.get_customers(request).await }
        };
        let answer =
            service::grpc::call(&self.retries, asked, deadline.min(self.deadline), &token, call).await?;
        let customer = |one: api::Customer| {
            let id = one.user_id.parse().map_err(|_| Unavailable::Malformed)?;
            Ok(Customer { id, email: Some(one.email), name: Some(one.name) })
        };
        answer.customers.into_iter().map(customer).collect()
    }
}

fn known(address: api::Address) -> Address {
    let api::Address { name, line1, line2, city, region, postal_code, country, phone } = address;
    let [city, postal_code] = [city, postal_code].map(|text| Some(text).filter(|text| !text.is_empty()));
    Address { name, line1, line2, city, region, postal_code, country, phone }
}
