//! The products as a cart shows them: asked of the product service. While that is away they come from a copy
//! that `product.updated` keeps current.

pub mod store;

use std::collections::{HashMap, HashSet};

use order_core::ids::ProductId;
use service::db::Pool;
use service::money::Currency;

use crate::clients::product::{Product, Products};

#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("the product service is away, and the copy does not have all products")]
    Away,
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

#[derive(Clone)]
pub struct Catalogue {
    pool: Pool,
    products: Products,
    currency: Currency,
}

impl Catalogue {
    pub fn new(pool: Pool, products: Products, currency: Currency) -> Self {
        Self { pool, products, currency }
    }

    /// The currency of nothing.
    pub fn currency(&self) -> Currency {
        self.currency
    }

    /// The products of these ids, archived ones too; unknown ones are left out. The copy is used only if it
    /// has all of them: a cart with a line missing would be wrong.
    pub async fn look_up(&self, ids: &[ProductId]) -> Result<HashMap<ProductId, Product>, CatalogueError> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let products = match self.products.get(ids).await {
            Ok(products) => products,
            Err(error) => {
                tracing::warn!(%error, "catalogue.from_copy");
                let products = store::read(&mut *self.pool.acquire().await?, ids).await?;
                if products.len() < ids.iter().collect::<HashSet<_>>().len() {
                    return Err(CatalogueError::Away);
                }
                products
            }
        };
        Ok(products.into_iter().map(|product| (product.id, product)).collect())
    }
}
