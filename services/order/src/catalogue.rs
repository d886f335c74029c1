//! The products as a cart shows them: asked of the product service, and from
//! a copy kept by `product.updated` while it is away.

pub mod store;

use std::collections::HashMap;

use service::money::Currency;
use sqlx::PgPool;
use uuid::Uuid;

use crate::clients::product::{Product, Products};

#[derive(Clone)]
pub struct Catalogue {
    pool: PgPool,
    products: Products,
    currency: Currency,
}

impl Catalogue {
    pub fn new(pool: PgPool, products: Products, currency: Currency) -> Self {
        Self { pool, products, currency }
    }

    /// The currency of nothing.
    pub fn currency(&self) -> Currency {
        self.currency
    }

    /// The products of these ids, archived ones too; unknown ones are left out.
    pub async fn look_up(&self, ids: &[Uuid]) -> sqlx::Result<HashMap<Uuid, Product>> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let products = match self.products.get(ids).await {
            Ok(products) => products,
            Err(error) => {
                tracing::warn!(%error, "catalogue.from_copy");
                store::read(&mut *self.pool.acquire().await?, ids).await?
            }
        };
        Ok(products.into_iter().map(|product| (product.id, product)).collect())
    }
}
