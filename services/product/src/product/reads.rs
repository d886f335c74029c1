//! Single products. Reads at the same time share a statement.

use std::ops::Range;
use std::sync::Arc;

use service::Problem;
use service::batch::{Batcher, split};
use service::db::Pool;

use super::{Product, store};

#[derive(Clone)]
pub struct Reads(Batcher<String, sqlx::Result<Option<Product>>>);

impl Reads {
    pub fn new(pool: Pool) -> Self {
        Self(Batcher::spawn_reads("product_reads", move |names: Arc<Vec<String>>| {
            let pool = pool.clone();
            async move {
                let (pool, names) = (&pool, &names);
                let read = |part: Range<usize>| async move {
                    store::named(&mut *pool.acquire().await?, &names[part]).await
                };
                split(names.len(), read).await
            }
        }))
    }

    /// The product in the shop with this id or slug, at some moment after the call.
    pub async fn get(&self, name: String) -> Result<Option<Product>, Problem> {
        let read = self.0.run(name).await;
        Ok(read.map_err(|_| Problem::unavailable("Too many are reading; try again."))??)
    }
}
