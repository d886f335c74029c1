//! Events from the other services.

use messaging::{ApplyError, Event, Handler};
use proto::events::{PRODUCT_UPDATED, USER_DELETED};
use proto::product::v1::ProductUpdated;
use proto::user::v1::UserDeleted;
use service::db::Connection;
use service::failpoint;

use crate::{catalogue, erasure};

pub struct Consumer;

impl Handler for Consumer {
    async fn apply(&self, connection: &mut Connection, events: &[Event]) -> Result<(), ApplyError> {
        let mut products = Vec::with_capacity(events.len());
        for event in events.iter().filter(|event| event.kind == PRODUCT_UPDATED) {
            let product = event.decode::<ProductUpdated>()?.product;
            let product =
                product.ok_or_else(|| ApplyError::Rejected("product.updated without a product".into()))?;
            products.push((event.aggregate_id.into(), product));
        }
        catalogue::store::replace(connection, &products).await?;
        let mut users = Vec::new();
        for event in events.iter().filter(|event| event.kind == USER_DELETED) {
            let user = event.decode::<UserDeleted>()?.user_id;
            let rejected = |_| ApplyError::Rejected(format!("{user:?} is not a user's id"));
            users.push(user.parse().map_err(rejected)?);
        }
        erasure::erase(connection, &users).await?;
        if !users.is_empty() {
            failpoint::hit("order.erasure.written").await?;
        }
        Ok(())
    }
}
