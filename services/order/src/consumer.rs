//! Events from the other services.

use messaging::topology::PRODUCT_UPDATED;
use messaging::{ApplyError, Event, Handler};
use proto::product::v1::ProductUpdated;
use sqlx::PgConnection;

use crate::catalogue;

pub struct Consumer;

impl Handler for Consumer {
    async fn apply(&self, connection: &mut PgConnection, events: &[Event]) -> Result<(), ApplyError> {
        let mut products = Vec::with_capacity(events.len());
        for event in events.iter().filter(|event| event.kind == PRODUCT_UPDATED) {
            let product = event.decode::<ProductUpdated>()?.product;
            let product =
                product.ok_or_else(|| ApplyError::Rejected("product.updated without a product".into()))?;
            products.push((event.aggregate_id, product));
        }
        catalogue::store::replace(connection, &products).await?;
        Ok(())
    }
}
