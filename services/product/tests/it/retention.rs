//! What has ended is deleted after its time, and calls that come later still do what is right.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::common::{Shop, applied, cancel, is_reserved, refund, shop, shop_with_broker};
use proto::product::v1::reserve_result::Outcome;
use proto::product::v1::{CommitResult, ReleaseResult};
use uuid::{NoContext, Timestamp, Uuid};

/// An id as it was made so many days ago.
fn made(days: u64) -> Uuid {
    let at = SystemTime::now() - Duration::from_secs(days * 86_400);
    let at = at.duration_since(UNIX_EPOCH).unwrap();
    Uuid::new_v7(Timestamp::from_unix(NoContext, at.as_secs(), at.subsec_nanos()))
}

/// Makes an order's reservation so many days older; its new id.
async fn age(shop: &Shop, order: Uuid, days: u64) -> Uuid {
    let old = made(days);
    for update in [
        "UPDATE products.reservations SET order_id = $2, created_at = created_at - make_interval(days => $3) WHERE order_id = $1",
        "UPDATE products.reservation_lines SET order_id = $2 WHERE order_id = $1 AND $3 > 0",
        "UPDATE products.stock_ledger SET order_id = $2, created_at = created_at - make_interval(days => $3) WHERE order_id = $1",
    ] {
        let update = sqlx::query(update).bind(order).bind(old).bind(i32::try_from(days).unwrap());
        update.execute(&shop.pool).await.unwrap();
    }
    old
}

async fn kept(shop: &Shop) -> Vec<Uuid> {
    let query =
        "SELECT order_id FROM products.reservations UNION SELECT order_id FROM products.reservation_lines";
    sqlx::query_scalar(query).fetch_all(&shop.pool).await.unwrap()
}

async fn sold(shop: &Shop, product: &str, units: u32) -> Uuid {
    let order = Uuid::now_v7();
    assert!(is_reserved(&shop.reserve(order, &[(product, units)]).await));
    assert_eq!(shop.commit(order).await, CommitResult::Committed);
    order
}

#[tokio::test]
async fn ended_reservations_are_deleted_after_their_time_and_open_ones_never() {
    let shop = shop().await;
    let lamp = shop.stocked(100).await;
    let old_sale = age(&shop, sold(&shop, &lamp, 2).await, 401).await;
    let released = Uuid::now_v7();
    assert!(is_reserved(&shop.reserve(released, &[(&lamp, 2)]).await));
    assert_eq!(shop.release(released).await, ReleaseResult::Released);
    let old_release = age(&shop, released, 5000).await;
    let young = age(&shop, sold(&shop, &lamp, 1).await, 399).await;
    let open = Uuid::now_v7();
    assert!(is_reserved(&shop.reserve(open, &[(&lamp, 3)]).await));
    let open = age(&shop, open, 500).await;

    // A replica sweeps when it starts.
    shop.replica().await;
    testing::eventually("the old ones are gone", async || {
        let kept = kept(&shop).await;
        (!kept.contains(&old_sale) && !kept.contains(&old_release)).then_some(())
    })
    .await;
    let mut left = vec![young, open];
    left.sort_unstable();
    let mut kept = kept(&shop).await;
    kept.sort_unstable();
    assert_eq!(kept, left);
    let up_to: Uuid = sqlx::query_scalar("SELECT up_to FROM products.forgotten_reservations")
        .fetch_one(&shop.pool)
        .await
        .unwrap();
    assert_eq!(up_to, old_sale);
    assert_eq!(shop.stock(&lamp).await, (97, 3));
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn what_is_asked_about_a_deleted_reservation_revives_none() {
    let shop = shop_with_broker().await;
    let lamp = shop.stocked(10).await;
    let order = made(401);
    assert!(matches!(shop.reserve(order, &[(&lamp, 1)]).await, Outcome::Ended(_)));
    assert_eq!(shop.commit(order).await, CommitResult::Gone);
    assert_eq!(shop.release(order).await, ReleaseResult::Released);
    cancel(&shop, &[order]).await;
    applied(&shop).await;
    assert_eq!(kept(&shop).await, Vec::<Uuid>::new());
    assert!(is_reserved(&shop.reserve(made(399), &[(&lamp, 1)]).await), "not that old");
    assert_eq!(shop.stock(&lamp).await, (10, 1));
}

#[tokio::test]
async fn a_refund_puts_units_back_however_long_ago_they_were_sold() {
    let shop = shop_with_broker().await;
    let (lamp, rope) = (shop.stocked(10).await, shop.stocked(10).await);
    let old = age(&shop, sold(&shop, &lamp, 5).await, 401).await;
    let young = sold(&shop, &rope, 5).await;
    shop.replica().await;
    testing::eventually("the old one is gone", async || (!kept(&shop).await.contains(&old)).then_some(()))
        .await;
    refund(&shop, old, &lamp, 2).await;
    refund(&shop, young, &rope, 9).await;
    applied(&shop).await;
    refund(&shop, old, &lamp, 1).await;
    refund(&shop, old, &Uuid::now_v7().to_string(), 1).await;
    applied(&shop).await;
    assert_eq!((shop.stock(&lamp).await, shop.stock(&rope).await), ((8, 0), (10, 0)));
    shop.assert_books_balance().await;
}
