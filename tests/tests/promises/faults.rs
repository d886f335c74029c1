//! Short runs of customers and faults; `cargo dockside chaos` makes long ones. Each run ends with the whole oracle:
//! the journal, the provider's ledger, the stock, the outboxes, the inboxes and the dead letters.

use std::sync::Arc;
use std::time::Duration;

use system_tests::chaos::schedule::Kind;
use system_tests::chaos::{self, Options};
use system_tests::{Shop, eventually};
use uuid::Uuid;

/// Runs, and fails with the report when a promise was broken or there were fewer than `least` faults of one of `kinds`.
async fn run(seed: u64, kinds: &[Kind], victims: &[&str], least: usize) {
    let shop = Arc::new(Shop::open().await);
    let options = Options::brief(seed, kinds, victims);
    let outcome = chaos::run(shop, &options, |_| ()).await.unwrap();
    println!("{}", outcome.text());
    assert!(outcome.broken.is_empty(), "see {}", options.folder.display());
    for kind in kinds {
        let struck = outcome.struck(*kind);
        assert!(struck >= least, "{struck} times {}", kind.name());
    }
    assert!(outcome.ordered > 0);
    std::fs::remove_dir_all(&options.folder).unwrap();
}

#[tokio::test]
async fn p1_orders_survive_the_death_of_any_process() {
    run(1, &[Kind::Kill], &[], 4).await;
}

#[tokio::test]
async fn p3_money_is_conserved_while_those_who_move_it_die_and_hang() {
    run(3, &[Kind::Kill, Kind::Pause, Kind::Webhooks], &["order", "product", "payment-sandbox"], 1).await;
}

#[tokio::test]
async fn p5_events_that_come_again_and_in_any_order_apply_once() {
    run(5, &[Kind::Repeat, Kind::Backlog, Kind::Restart], &["user", "product", "order"], 1).await;
}

/// 64 buyers, each again and again until there is nothing to buy, while the services die: all units are sold, no more.
#[tokio::test]
async fn p2_what_is_in_stock_is_sold_to_the_last_unit_and_no_further() {
    const UNITS: u32 = 100;
    let shop = Arc::new(Shop::open().await);
    let product = shop.product(UNITS).await;
    let mut customers = Vec::new();
    for _ in 0..8 {
        customers.push(shop.customer().await.token);
    }
    let buyers: Vec<_> = (0..64)
        .map(|n: usize| {
            let (shop, token) = (shop.clone(), customers[n % customers.len()].clone());
            tokio::spawn(async move { buy_until_sold_out(&shop, &token, product, n).await })
        })
        .collect();
    for victim in ["product", "order"] {
        tokio::time::sleep(Duration::from_millis(400)).await;
        shop.kill(victim);
    }
    let mut orders = 0;
    for buyer in buyers {
        orders += buyer.await.unwrap();
    }
    let sold =
        "SELECT count(DISTINCT o.id) FROM orders.orders o JOIN orders.order_items i ON i.order_id = o.id
                WHERE i.product_id = $1 AND o.status = 'confirmed'";
    shop.eventually("SELECT reserved::bigint FROM products.stock WHERE product_id = $1", product, 0).await;
    shop.eventually(sold, product, UNITS.into()).await;
    assert_eq!(orders, UNITS);
    assert_eq!(shop.stock(product).await, (0, 0));
}

/// How many a buyer got. 'Out of stock' is believed once nothing is reserved any more: till then units may come back.
async fn buy_until_sold_out(shop: &Shop, token: &str, product: Uuid, buyer: usize) -> u32 {
    let mut got = 0;
    for n in 0.. {
        let key = format!("buyer-{buyer}-{n}");
        let ask = || async {
            let answer =
                system_tests::send(shop.order(token, &key, product, 1, "pm_card_visa")).await.ok()?;
            match answer.problem() {
                (201, _) => Some(true),
                (409, "out_of_stock") => Some(false),
                (409, "idempotency_in_progress") | (429 | 502..=504, _) => None,
                problem => panic!("{problem:?} {}", answer.body),
            }
        };
        if eventually(&format!("an answer to {key}"), Duration::from_secs(60), ask).await {
            got += 1;
        } else if shop.stock(product).await.1 == 0 {
            return got;
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    got
}

/// Orders are placed while the broker is killed in the middle of publishing, again and again.
#[tokio::test]
async fn p6_what_the_broker_has_confirmed_survives_its_death() {
    run(6, &[Kind::Kill], &["rabbitmq"], 1).await;
}
