//! Shoppers at a shop of a few lines.

mod fake;

use std::time::{Duration, Instant};

use fake::{Fake, PRODUCT, generator, plan, run};
use load::plan::{Follow, Loop, Mix};
use load::record::{End, Kind};
use load::report::Report;
use load::verdict;
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);

fn errors(outcome: &load::generator::Outcome, kind: Kind) -> Vec<(String, u64)> {
    outcome.counts.kinds[kind as usize].errors.clone().into_iter().collect()
}

#[tokio::test]
async fn in_open_loop_a_stall_is_felt_by_all_who_come_meanwhile() {
    let (fake, url) = Fake::default().serve().await;
    let generator = generator(&url, plan(Loop::Open, 100.0, 3 * SECOND)).await.unwrap();
    let from = Instant::now() + SECOND;
    *fake.stall.lock().unwrap() = Some((from, from + SECOND));
    let outcome = generator.run(std::future::pending(), |_| {}).await;
    let times = &outcome.counts.kinds[Kind::Order as usize].times;
    // Some 60 come in the first 0.6 s of the stall, and wait for 0.4 s at least. One who waits for an answer before the
    // next request would see a single one.
    let waited = times.count_between(400_000, u64::MAX);
    assert!(waited >= 30, "{waited} of {}", times.len());
    assert_eq!(outcome.counts.stages[0].offered, times.len());
}

#[tokio::test]
async fn times_run_from_when_a_shopper_was_due_and_a_late_generator_makes_the_run_invalid() {
    let (_fake, url) = Fake::default().serve().await;
    let mut plan = plan(Loop::Open, 100.0, 2 * SECOND);
    plan.limits.lag = 0.02;
    let generator = generator(&url, plan).await.unwrap();
    // The generator's own thread does nothing for a second: as a machine that is too slow for the rate.
    let mut once = Some(());
    #[expect(clippy::disallowed_methods, reason = "the thread is to be kept busy")]
    let outcome = generator.run(std::future::pending(), move |_| {
        if once.take().is_some() {
            std::thread::sleep(SECOND);
        }
    });
    let outcome = outcome.await;
    let times = &outcome.counts.kinds[Kind::Order as usize].times;
    let waited = times.count_between(400_000, u64::MAX);
    assert!(waited >= 30, "{waited} of {}", times.len());
    let steps = verdict::steps(&outcome);
    let verdict = verdict::verdict(&outcome, &steps);
    assert!(verdict.invalid[0].contains("this machine cannot produce the rate"), "{verdict:?}");
    assert_eq!(verdict.exit_code(), 2);
}

#[tokio::test]
async fn what_is_not_a_shop_is_refused_with_what_came_back() {
    let refusal = |url: String| async move {
        generator(&url, plan(Loop::Open, 1.0, SECOND)).await.err().expect("it is no shop").0
    };
    for (status, body, said) in [
        (200, json!({"hello": "world"}), "answered 200, \"{\\\"hello\\\":\\\"world\\\"}\""),
        (200, json!([1, 2]), "answered 200, \"[1,2]\""),
        (404, json!("nothing"), "answered 404"),
        (503, json!({"items": [], "next_cursor": null}), "answered 503"),
    ] {
        let fake = Fake::default();
        fake.instead.lock().unwrap().insert("/api/v1/products".to_owned(), (status, body));
        let (fake, url) = fake.serve().await;
        let refusal = refusal(url).await;
        assert!(refusal.contains("is not a shop") && refusal.contains(said), "{refusal}");
        assert_eq!(fake.requests.load(std::sync::atomic::Ordering::SeqCst), 1, "nothing else is asked");
    }
    for (url, said) in [
        ("http://127.0.0.1:1", "nothing answers"),
        ("https://127.0.0.1:1", "TLS is not spoken"),
        ("localhost:8080", "looks like http://localhost:8080"),
        ("ftp://x", "looks like http://localhost:8080"),
        ("http://x/shop", "has a path"),
        ("http://no-such-host.invalid", "stands for no address"),
    ] {
        let refusal = refusal(url.to_owned()).await;
        assert!(refusal.contains(said), "{url}: {refusal}");
    }
}

#[tokio::test]
async fn an_order_counts_when_it_reads_confirmed_back() {
    for (follow, end, pending) in [
        (Follow::Poll, Some("confirmed"), 2),
        (Follow::Sse, Some("confirmed"), 0),
        // The stream ends before the order: it is read then.
        (Follow::Sse, None, 0),
        (Follow::Poll, Some("cancelled"), 0),
    ] {
        let (_fake, url) = Fake { end, pending, ..Fake::default() }.serve().await;
        let mut plan = plan(Loop::Open, 40.0, SECOND);
        plan.follow = follow;
        if end.is_none() {
            plan.confirm_within = Duration::from_millis(500);
        }
        let outcome = run(&url, plan).await;
        let stage = &outcome.counts.stages[0];
        assert!(stage.placed >= 10, "{}", stage.placed);
        let ended = outcome.counts.orders.iter().map(|(_, end)| end);
        let wanted = match end {
            Some("confirmed") => End::Confirmed,
            Some(_) => End::Cancelled("payment_declined".to_owned()),
            None => End::Unknown,
        };
        assert_eq!(
            ended.filter(|ended| **ended == wanted).count() as u64,
            stage.placed,
            "{follow:?} {end:?}"
        );
        assert_eq!(stage.confirmed, if wanted == End::Confirmed { stage.placed } else { 0 });
        assert_eq!(outcome.counts.unknown, if wanted == End::Unknown { stage.placed } else { 0 });
    }
}

#[tokio::test]
async fn in_closed_loop_as_many_shop_at_once_as_were_asked_for() {
    let fake = Fake { slow: Duration::from_millis(20), ..Fake::default() };
    let (fake, url) = fake.serve().await;
    let mut plan = plan(Loop::Closed, 8.0, SECOND);
    plan.mix = "browse=1".parse::<Mix>().unwrap();
    let outcome = run(&url, plan).await;
    let most = fake.most_at_once.load(std::sync::atomic::Ordering::SeqCst);
    assert!((5..=8).contains(&most), "{most}");
    assert!(outcome.counts.stages[0].started > 8, "they come again");
}

#[tokio::test]
async fn a_bound_on_shoppers_under_way_holds_and_makes_the_run_invalid() {
    let (fake, url) = Fake { slow: Duration::from_millis(500), ..Fake::default() }.serve().await;
    let mut plan = plan(Loop::Open, 100.0, SECOND);
    plan.in_flight = 5;
    let outcome = run(&url, plan).await;
    assert!(fake.most_at_once.load(std::sync::atomic::Ordering::SeqCst) <= 5);
    let stage = &outcome.counts.stages[0];
    assert_eq!(stage.offered, stage.started + stage.dropped["in_flight"]);
    let verdict = verdict::verdict(&outcome, &verdict::steps(&outcome));
    assert!(verdict.invalid[0].contains("5 were under way already"), "{verdict:?}");
}

#[tokio::test]
async fn refusals_are_counted_by_their_names_with_advice() {
    let fake = Fake::default();
    let problem = |status: u16, code: &str| (status, json!({"status": status, "code": code}));
    let instead = [
        ("/api/v1/orders".to_owned(), problem(409, "out_of_stock")),
        (format!("/api/v1/products/{PRODUCT}"), problem(429, "rate_limited")),
        ("/api/v1/cart".to_owned(), (502, json!("no problem document"))),
    ];
    fake.instead.lock().unwrap().extend(instead);
    let (_fake, url) = fake.serve().await;
    let mut plan = plan(Loop::Open, 60.0, SECOND);
    plan.mix = "cart=1".parse::<Mix>().unwrap();
    let outcome = run(&url, plan).await;
    assert_eq!(errors(&outcome, Kind::Product)[0].0, "rate_limited");
    // The only product is not tried again, but by those who had it in their carts by then.
    assert!(matches!(errors(&outcome, Kind::Order)[0], (ref name, 1..=4) if name == "out_of_stock"));
    assert_eq!(errors(&outcome, Kind::Cart)[0].0, "http_502");
    assert!(outcome.counts.refused["all_sold_out"] > 1);
    assert_eq!(outcome.on_sale, 0);
    let report = Report::new(&url, outcome, None, None);
    assert_eq!(report.verdict.exit_code(), 1, "{}", report.text());
    let text = report.text();
    assert!(text.contains("EDGE_RATE") && text.contains("--prepare") && text.contains("sold out"), "{text}");
}

#[tokio::test]
async fn a_run_that_is_ended_early_reports_so_far() {
    let (_fake, url) = Fake::default().serve().await;
    let generator = generator(&url, plan(Loop::Open, 50.0, 600 * SECOND)).await.unwrap();
    let outcome = generator.run(tokio::time::sleep(2 * SECOND), |_| {}).await;
    assert!(outcome.interrupted && outcome.counts.stages[0].placed > 0);
    let report = Report::new(&url, outcome, None, None);
    let folder = std::env::temp_dir().join(format!("load-report-{}", std::process::id()));
    Report::make_folder(&folder).unwrap();
    report.write(&folder).unwrap();
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("load.json")).unwrap()).unwrap();
    assert_eq!(json["interrupted"], true);
    assert!(json["requests"][0]["p99"].as_f64().unwrap() > 0.0, "{json}");
    let page = std::fs::read_to_string(folder.join("load.html")).unwrap();
    // Nothing from elsewhere but the shop's address, and no script.
    assert!(page.contains("<svg") && !page.contains("<script") && !page.contains("src="));
    std::fs::remove_dir_all(&folder).unwrap();
}
