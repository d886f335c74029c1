//! `cargo dockside load`, against a shop: what it counts is so.

use std::sync::Arc;
use std::time::Duration;

use load::accounts::Accounts;
use load::generator::Generator;
use load::goods::{Goods, Staff};
use load::http::Client;
use load::plan::{Errand, Follow, Limits, Loop, Plan, Stage};
use load::record::End;
use load::report::Report;
use system_tests::Shop;

/// A few shoppers a second of each kind: this is not about speed.
fn plan(kind: Loop, level: f64, follow: Follow) -> Plan {
    let stage = |name: &str, counts| Stage {
        name: name.to_owned(),
        from: level,
        to: level,
        length: Duration::from_secs(2),
        counts,
    };
    Plan {
        kind,
        stages: vec![stage("warm-up", false), stage("load", true)],
        mix: "browse=1,search=1,cart=2,order=4".parse().expect("a mix"),
        think: Duration::from_millis(50),
        seed: 7,
        follow,
        payment_method: "pm_card_visa".to_owned(),
        in_flight: 200,
        // A fault test may have the shop at the same time.
        confirm_within: Duration::from_secs(60),
        limits: Limits { p99: 60.0, errors: 100.0, lag: 60.0 },
    }
}

#[tokio::test]
async fn the_orders_that_a_load_counts_as_confirmed_are_confirmed() {
    let shop = Shop::open().await;
    let client = Arc::new(Client::new(&shop.edge, Duration::from_secs(20)).await.unwrap());
    load::shop::is_a_shop(&client, &shop.edge).await.unwrap();
    let staff = Staff { email: "staff@dockside.test", password: "dockside-staff" };
    let goods = Arc::new(Goods::prepare(&client, 2, &staff).await.unwrap());
    let accounts = Arc::new(Accounts::register(&client, 6, |_| {}).await.unwrap());
    for (kind, level, follow) in
        [(Loop::Open, 8.0, Follow::Sse), (Loop::Open, 8.0, Follow::Poll), (Loop::Closed, 3.0, Follow::Sse)]
    {
        let generator = Generator {
            client: client.clone(),
            accounts: accounts.clone(),
            goods: goods.clone(),
            plan: plan(kind, level, follow),
        };
        let outcome = generator.run(std::future::pending(), |_| {}).await;
        let orders = outcome.counts.orders.clone();
        let report = Report::new(&shop.edge, outcome, None, None);
        assert!(report.orders.placed > 0, "{}", report.text());
        assert_eq!(
            report.orders.confirmed + report.orders.unknown,
            report.orders.placed,
            "{}",
            report.text()
        );
        let buys = |errand: Errand| report.journeys.get(errand.name()).copied().unwrap_or_default();
        assert!(buys(Errand::Cart) + buys(Errand::Order) >= report.orders.placed, "{}", report.text());
        let confirmed: Vec<_> =
            orders.iter().filter(|(_, end)| *end == End::Confirmed).map(|(id, _)| *id).collect();
        assert!(!confirmed.is_empty(), "{}", report.text());
        let sql = "SELECT count(*) FROM orders.orders WHERE id = ANY($1) AND status = 'confirmed'";
        let count: i64 = sqlx::query_scalar(sql).bind(&confirmed).fetch_one(&shop.database).await.unwrap();
        assert_eq!(count as usize, confirmed.len(), "{kind:?} {follow:?}: {}", report.text());
    }
}
