//! Releases the reservations of claims that lapsed without an order: their
//! process died, and the customer did not come back. And forgets what erased users'
//! last requests left.

use std::time::Duration;

use service::Pulse;
use service::db::Pool;
use service::failpoint::reach;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::store;
use crate::clients::product::Products;
use crate::erasure;
use crate::times::Times;

/// For what lasts for months.
const SELDOM: Duration = Duration::from_secs(3600);

pub async fn run(pool: Pool, products: Products, times: Times, stop: CancellationToken, pulse: Pulse) {
    let mut seldom = tokio::time::interval(SELDOM);
    loop {
        let due = async {
            tokio::select! {
                () = tokio::time::sleep(times.sweep_every()) => Due::Often,
                _ = seldom.tick() => Due::Seldom,
            }
        };
        match pulse.rest(stop.run_until_cancelled(due)).await {
            None => return,
            Some(Due::Often) => {
                // Each by itself: one that fails again and again does not keep the others from being done.
                note(sweep(&pool, &products, &times).await);
                pulse.beat();
                note(erase_again(&pool).await);
                pulse.beat();
                note(forget(&pool, &times).await);
            }
            Some(Due::Seldom) => note(forget_long_shipped(&pool).await),
        }
    }
}

enum Due {
    Often,
    Seldom,
}

fn note(done: anyhow::Result<()>) {
    if let Err(error) = done {
        tracing::warn!(error = format!("{error:#}"), "claims.sweep_failed");
    }
}

async fn erase_again(pool: &Pool) -> anyhow::Result<()> {
    let mut transaction = service::db::begin(pool).await?;
    erasure::erase_again(&mut transaction).await?;
    Ok(transaction.commit().await?)
}

async fn forget(pool: &Pool, times: &Times) -> anyhow::Result<()> {
    Ok(store::forget(&mut *pool.acquire().await?, times.key_life).await?)
}

async fn forget_long_shipped(pool: &Pool) -> anyhow::Result<()> {
    Ok(erasure::forget_long_shipped(&mut *pool.acquire().await?).await?)
}

/// Claims are taken over before the release, so that no retry can place the
/// order meanwhile, and let go at once if it fails.
async fn sweep(pool: &Pool, products: &Products, times: &Times) -> anyhow::Result<()> {
    let owner = Uuid::now_v7();
    let lapsed = store::take_lapsed(&mut *pool.acquire().await?, owner, times).await?;
    if lapsed.is_empty() {
        return Ok(());
    }
    reach("order.sweep.taken").await?;
    let released = products.release(&lapsed).await;
    reach("order.sweep.released").await?;
    let mut connection = pool.acquire().await?;
    store::give_up(&mut connection, owner, &lapsed, released.is_ok()).await?;
    released?;
    tracing::info!(claims = lapsed.len(), "claims.swept");
    Ok(())
}
