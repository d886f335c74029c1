//! Single orders. Reads at the same time share their statements.

use std::ops::Range;
use std::sync::Arc;

use identity::User;
use order_core::ids::OrderId;
use service::batch::{Batcher, Overloaded, split};
use service::db::Pool;

use super::{Order, store};

/// Why there is no order to read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("there is no such order")]
    UnknownOrder,
    #[error("too many are reading")]
    Overloaded(#[from] Overloaded),
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

#[derive(Clone)]
pub struct Reads(Batcher<OrderId, sqlx::Result<Option<Order>>>);

impl Reads {
    pub fn new(pool: Pool) -> Self {
        Self(Batcher::spawn_beside("order_reads", move |ids: Arc<Vec<OrderId>>| {
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

    /// The order at some moment after the call.
    pub async fn get(&self, id: OrderId) -> Result<Order, ReadError> {
        self.0.run(id).await??.ok_or(ReadError::UnknownOrder)
    }

    /// The order, if it is the caller's own or the caller is staff. For anybody else there is no such order.
    pub async fn visible(&self, user: User, id: OrderId) -> Result<Order, ReadError> {
        let order = self.get(id).await?;
        let visible = order.user_id == user.id.into() || user.is_staff();
        if visible { Ok(order) } else { Err(ReadError::UnknownOrder) }
    }
}
