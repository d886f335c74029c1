//! A database that is away for long, and one that PgBouncer is in front of.

use std::time::{Duration, Instant};

use crate::common::{Shop, order_of};
use clap::Parser;
use service::Lifecycle;
use testing::pgbouncer::{self, Mode};
use testing::proxy::Proxy;

/// A worker that is silent for twice as long ends its process.
const LIMIT: Duration = Duration::from_secs(15);

/// An outage in short: longer than that limit, and long enough for each worker to be noticed.
const HOUR: Duration = Duration::from_secs(40);

/// A step that ended by its deadline is movement too.
#[tokio::test(flavor = "multi_thread")]
async fn an_hour_without_a_database_ends_no_process_and_then_orders_go_on() {
    let shop = Shop::open_with_broker().await;
    let direct = shop.setting("--database-url");
    let target: reqwest::Url = direct.parse().expect("a URL");
    let proxy = Proxy::to(format!("127.0.0.1:{}", target.port().expect("a port"))).await;
    let mut through = target.clone();
    through.set_port(Some(proxy.address.port())).expect("a port");
    let args = shop.args.iter().map(|arg| arg.replace(&direct, through.as_str()));
    let lifecycle = Lifecycle::watched(LIMIT);
    let addresses = order::start(order::Config::parse_from(args), &lifecycle).await.expect("it starts");

    let over = Instant::now() + HOUR;
    while Instant::now() < over {
        // Also those that were opened since: they stay open, and nothing comes through.
        proxy.silence();
        assert!(!lifecycle.has_failed(), "a worker was taken for one that hangs");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ready = format!("http://{}/readyz", addresses.admin);
    let ready = async || {
        let answer = shop.client.get(&ready).send().await.ok()?;
        (answer.status() == 200).then_some(())
    };
    testing::eventually("the replica to be ready again", ready).await;
    assert!(!lifecycle.has_failed());
    assert!(lifecycle.shutdown(Duration::from_secs(15)).await, "tasks end in time");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_placed_paid_and_listened_to_behind_pgbouncer() {
    let mut shop = Shop::open().await;
    let direct = shop.setting("--database-url");
    let Some(pooler) = pgbouncer::start(&direct, Mode { pool_size: 5, ..Mode::TRANSACTION }) else { return };
    for setting in [
        "search_path = orders",
        "statement_timeout = '10s'",
        "lock_timeout = '5s'",
        "idle_in_transaction_session_timeout = '4s'",
    ] {
        let alter = format!("ALTER ROLE %I IN DATABASE %I SET {setting}").replace('\'', "''");
        let alter =
            format!("DO $$ BEGIN EXECUTE format('{alter}', current_user, current_database()); END $$");
        sqlx::query(sqlx::AssertSqlSafe(alter)).execute(&shop.pool).await.expect("a setting of the role");
    }
    let mut args: Vec<String> = shop.args.iter().map(|arg| arg.replace(&direct, &pooler.url())).collect();
    args.extend(["--database-pooler=transaction".to_owned(), format!("--database-direct-url={direct}")]);
    shop.replace(args).await;

    let thing = shop.stock.add(1999, 100);
    let buyer = shop.customer();
    let mut orders = Vec::new();
    for _ in 0..20 {
        orders.push(buyer.place(&order_of(thing, 1, "pm_card_visa")).await);
    }
    for placed in &orders {
        assert_eq!(placed.status, 201, "{}", placed.body);
        buyer.until(&placed.id(), "confirmed", "captured").await;
    }
    shop.close().await;
}
