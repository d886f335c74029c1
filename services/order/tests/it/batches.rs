//! What several orders ask for at once, when one of them can't be done.

use crate::common::{Shop, order_of};
use reqwest::Method;
use testing::eventually;

/// Waits until so many orders have their claims, and ask for their stock.
async fn claimed(shop: &Shop, count: i64) {
    let claimed = || async {
        let claimed: i64 = sqlx::query_scalar("SELECT count(*) FROM orders.claims")
            .fetch_one(&shop.pool)
            .await
            .expect("a count");
        (claimed == count).then_some(())
    };
    eventually("the orders to ask for their stock", claimed).await;
}

#[tokio::test]
async fn orders_that_the_product_service_refuses_and_leaves_hanging_hold_up_no_others() {
    let shop = Shop::open().await;
    let (thing, bad) = (shop.stock.add(100, 100), shop.stock.add(100, 100));
    let buyer = shop.customer();
    let order = |key: String, product| {
        let request = buyer.request(Method::POST, "/orders").header("Idempotency-Key", key);
        tokio::spawn(crate::common::send(request.json(&order_of(product, 1, "pm_card_visa"))))
    };
    // While the first is being reserved, the others gather for the next call.
    shop.stock.lock().holds = true;
    let first = order("first".to_owned(), thing);
    claimed(&shop, 1).await;
    let bad_ones: Vec<_> = (0..6).map(|n| order(format!("bad-{n}"), bad)).collect();
    let good_ones: Vec<_> = (0..6).map(|n| order(format!("good-{n}"), thing)).collect();
    claimed(&shop, 13).await;
    {
        let mut stock = shop.stock.lock();
        stock.poison = Some(bad);
        stock.holds = false;
    }
    assert_eq!(first.await.unwrap().status, 201);
    for good in good_ones {
        let answer = good.await.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    for bad in bad_ones {
        assert_eq!(bad.await.unwrap().problem(), (503, "service_unavailable"));
    }
    // Nothing is left that stands in the way, and what was refused can be had once it is mended.
    shop.stock.lock().poison = None;
    let again = buyer.order("bad-0", &order_of(bad, 1, "pm_card_visa")).await;
    assert_eq!(again.status, 201, "{}", again.body);
}
