//! Orders read one by one. Those that are asked for at the same time share their statements.

use std::ops::Range;
use std::sync::Arc;

use order_core::ids::OrderId;
use service::Problem;
use service::batch::{Batcher, split};
use service::db::Pool;

use super::{Order, store};

#[derive(Clone)]
pub struct Reads(Batcher<OrderId, sqlx::Result<Option<Order>>>);

impl Reads {
    pub fn new(pool: Pool) -> Self {
        Self(Batcher::spawn_beside(move |ids: Arc<Vec<OrderId>>| {
            let pool = pool.clone();
            async move {
                let (pool, ids) = (&pool, &ids);
                let read = |part: Range<usize>| async move {
                    let wanted = &ids[part];
                    let found = store::load(&mut *pool.acquire().await?, wanted).await?;
                    let of = |id: &OrderId| found.iter().find(|order| order.id == *id).cloned();
                    Ok(wanted.iter().map(of).collect())
                };
                split(ids.len(), read).await
            }
        }))
    }

    /// The order as it is at some moment after the call.
    pub async fn get(&self, id: OrderId) -> Result<Option<Order>, Problem> {
        let read = self.0.run(id).await;
        Ok(read.map_err(|_| Problem::unavailable("Too many are reading; try again."))??)
    }
}
