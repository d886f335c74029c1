//! What the running shop shows of itself, against `telemetry/registry.yaml`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use system_tests::registry::{Group, registry};
use system_tests::{Shop, eventually, send};
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;
use uuid::Uuid;

const SERVICES: [&str; 3] = ["user", "product", "order"];

/// Lines of `/metrics` that a service may have, comments aside.
const MOST_SERIES: usize = 800;

/// Made by the exporter, of the resource.
const OF_THE_EXPORTER: &str = "target_info";

/// Name, type and help of a metric, as Prometheus has them.
fn in_prometheus(group: &Group) -> (String, (String, String)) {
    let mut name = group["metric_name"].replace('.', "_");
    name.push_str(match group["unit"].as_str() {
        "s" => "_seconds",
        "By" => "_bytes",
        unit => {
            assert!(unit.starts_with('{') && unit.ends_with('}'), "{unit} is no unit of ours");
            ""
        }
    });
    let kind = group["instrument"].clone();
    if kind == "counter" {
        name.push_str("_total");
    }
    (name, (kind, group["brief"].clone()))
}

async fn metrics(shop: &Shop, service: &str) -> String {
    let answer = shop
        .client
        .get(format!("{}/metrics", shop.admin(service)))
        .send()
        .await
        .expect("the admin port answers");
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4");
    answer.text().await.expect("metrics are text")
}

/// Type and help of each family.
fn families(text: &str) -> BTreeMap<String, (String, String)> {
    let mut families: BTreeMap<String, (String, String)> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.to_owned()).or_default().0 = kind.to_owned();
        } else if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '))
        {
            families.entry(name.to_owned()).or_default().1 = help.to_owned();
        }
    }
    families.remove(OF_THE_EXPORTER);
    families
}

fn series(text: &str) -> usize {
    text.lines().filter(|line| !line.starts_with('#')).count()
}

/// A customer who buys, cancels, is refused, and is asked about by staff.
async fn journey(shop: &Shop) {
    let product = shop.product(3).await;
    let buyer = shop.customer().await;
    assert_eq!(buyer.get("/products?limit=1").await.status, 200);
    let order = buyer.place(product, 1, "pm_card_visa").await;
    assert_eq!(buyer.ended(&order).await["status"], "confirmed");
    assert_eq!(buyer.post(&format!("/orders/{order}/cancel"), &json!({})).await.status, 200);
    buyer.ended(&order).await;
    let declined = buyer.place(product, 1, "pm_card_chargeDeclined").await;
    buyer.ended(&declined).await;
    let sold_out = send(buyer.order("sold-out", product, 4, "pm_card_visa")).await.expect("the shop answers");
    assert_eq!(sold_out.problem(), (409, "out_of_stock"), "{}", sold_out.body);
    // Names of customers come from the user service.
    assert_eq!(shop.staff().await.get("/admin/orders?limit=1").await.status, 200);
}

#[tokio::test]
async fn the_shop_shows_what_the_registry_has_and_nothing_else() {
    let shop = Shop::open().await;
    journey(&shop).await;
    let groups = registry();
    let registered: BTreeMap<_, _> =
        groups.iter().filter(|group| group.contains_key("metric_name")).map(in_prometheus).collect();
    assert!(registered.len() > 40, "{registered:?}");
    let all = || async {
        let mut shown = BTreeMap::new();
        for service in SERVICES {
            shown.extend(families(&metrics(&shop, service).await));
        }
        // What is measured at intervals comes a little later.
        (registered.keys().all(|name| shown.contains_key(name))).then_some(shown)
    };
    let missing = || async {
        let mut missing: BTreeSet<_> = registered.keys().cloned().collect();
        for service in SERVICES {
            let shown = families(&metrics(&shop, service).await);
            missing.retain(|name| !shown.contains_key(name));
        }
        missing
    };
    let shown =
        match tokio::time::timeout(Duration::from_secs(20), eventually("all", Duration::from_secs(600), all))
            .await
        {
            Ok(shown) => shown,
            Err(_) => panic!("never shown: {:?}", missing().await),
        };
    assert_eq!(shown, registered);
    for service in SERVICES {
        let text = metrics(&shop, service).await;
        let own = groups.iter().filter(|group| {
            group.get("annotations").is_some_and(|annotations| {
                annotations.split(['[', ']', ',', ' ', '}']).any(|word| word == service)
            })
        });
        let own: BTreeSet<String> = own
            .filter(|group| group.contains_key("metric_name"))
            .map(|group| in_prometheus(group).0)
            .collect();
        let shown: BTreeSet<String> = families(&text).into_keys().collect();
        assert!(shown.is_subset(&own), "{service}: {:?}", shown.difference(&own));
        println!("{service}: {} series", series(&text));
        assert!(series(&text) <= MOST_SERIES, "{service} has {} series", series(&text));
    }
}

#[tokio::test]
async fn what_clients_make_up_makes_no_series() {
    let shop = Shop::open().await;
    let odd = async |round: u32| {
        for service in SERVICES {
            let process = shop.process(service).unwrap();
            let http = process["http"].as_str().unwrap();
            for n in 0..20 {
                let method = Method::from_bytes(format!("ODD{round}X{n}").as_bytes()).unwrap();
                for path in [format!("/api/v1/odd-{round}-{n}"), "/api/v1/orders".to_owned()] {
                    let request = shop.client.request(method.clone(), format!("{http}{path}"));
                    let request = request.header("traceparent", "00-nonsense-nonsense-zz");
                    let answer = send(request.header("accept", "x/y;q=odd")).await.unwrap();
                    assert!([404, 405].contains(&answer.status.as_u16()), "{}", answer.status);
                    let trace = answer.body["trace_id"].as_str().unwrap_or_default();
                    assert!(trace.len() == 32 && trace != "0".repeat(32), "{}", answer.body);
                }
            }
            let channel = Endpoint::from_shared(shop.grpc(service)).unwrap().connect().await.unwrap();
            for n in 0..20 {
                for path in [
                    format!("/odd.v1.Odd{round}/Call{n}"),
                    format!("/dockside.product.v1.ProductService/Odd{n}"),
                ] {
                    let mut client = Grpc::new(channel.clone());
                    client.ready().await.unwrap();
                    let codec = ProstCodec::<(), ()>::default();
                    let call = client.unary(tonic::Request::new(()), path.parse().unwrap(), codec).await;
                    assert_eq!(call.unwrap_err().code(), tonic::Code::Unimplemented, "{path}");
                }
            }
        }
    };
    // Names of series with made-up values.
    let series = async || {
        let mut series = BTreeSet::new();
        for service in SERVICES {
            let text = metrics(&shop, service).await;
            let lines = text.lines().filter(|line| {
                ["unmatched", "_OTHER", "ODD", "odd", "Odd"].iter().any(|word| line.contains(word))
            });
            series.extend(lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()));
        }
        series
    };
    odd(1).await;
    let before = series().await;
    assert!(before.iter().all(|line| !line.to_lowercase().contains("odd")), "{before:?}");
    odd(2).await;
    assert_eq!(series().await, before);
}

#[tokio::test]
async fn who_asks_for_openmetrics_gets_it() {
    let shop = Shop::open().await;
    let request = shop.client.get(format!("{}/metrics", shop.admin("order")));
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let answer = request.header("accept", accept).send().await.unwrap();
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    let text = answer.text().await.unwrap();
    assert!(text.ends_with("# EOF\n") && text.contains("# TYPE orders_accepted counter\n"), "{text}");
    assert!(text.contains("\norders_accepted_total ") && text.contains("# TYPE target info\n"), "{text}");
}

#[tokio::test]
async fn the_log_level_changes_at_run_time() {
    let shop = Shop::open().await;
    let url = format!("{}/log-level", shop.admin("product"));
    let level = async || send(shop.client.get(&url)).await.unwrap().body["directives"].clone();
    let before = level().await;
    assert!(before.is_string(), "{before}");
    for bad in ["verbose", "order=loud", ""] {
        let refused = send(shop.client.put(&url).body(bad)).await.unwrap();
        assert_eq!(refused.problem(), (422, "unknown_log_level"), "{}", refused.body);
        assert_eq!(refused.body["allowed"], json!(["off", "error", "warn", "info", "debug", "trace"]));
    }
    assert_eq!(level().await, before);
    let wanted = json!({"directives": "info,product=debug,lapin=warn", "seconds": 2});
    let changed = send(shop.client.put(&url).json(&wanted)).await.unwrap();
    assert_eq!((changed.status.as_u16(), &changed.body["directives"]), (200, &wanted["directives"]));
    let back = || async { (level().await == before).then_some(()) };
    eventually("the level to be as it was", Duration::from_secs(20), back).await;
}

/// The lines that the services have written so far.
fn log(shop: &Shop) -> Vec<Value> {
    let mut lines = Vec::new();
    for service in SERVICES {
        let text = shop.file(&format!("logs/{service}.log"));
        lines.extend(text.lines().filter_map(|line| serde_json::from_str(line).ok()));
    }
    lines
}

#[tokio::test]
async fn logs_name_requests_and_no_customer() {
    let shop = Shop::open().await;
    let (word, street) = (format!("{}-secret", Uuid::now_v7()), format!("{} Gull Lane", Uuid::now_v7()));
    let email = format!("{}@gulls.test", Uuid::now_v7());
    let account = json!({"email": email, "password": word, "name": "Ingrid Gull"});
    let registered = send(shop.request(Method::POST, "/auth/register").json(&account)).await.unwrap();
    assert_eq!(registered.status, 201, "{}", registered.body);
    let wrong = json!({"email": email, "password": format!("not {word}")});
    send(shop.request(Method::POST, "/auth/login").json(&wrong)).await.unwrap();
    let buyer = shop.sign_in(&email, &word).await;
    let product = shop.product(2).await;
    let order = json!({
        "items": [{"product_id": product, "quantity": 1}], "payment_method": "pm_card_visa",
        "shipping_address": {"name": "Ingrid Gull", "line1": street, "city": "Hull", "postal_code": "HU1 1AA", "country": "GB"},
    });
    let request = buyer.request(Method::POST, "/orders").header("Idempotency-Key", "gull").json(&order);
    let order = send(request).await.unwrap().id();
    buyer.ended(&order).await;

    let answered = || async {
        let lines = log(&shop);
        let asked = |line: &&Value| {
            line["message"] == "http.answered"
                && line["order.id"] == order
                && line["http.request.method"] == "POST"
        };
        lines.iter().find(asked).cloned()
    };
    let line = eventually("the line of the request", Duration::from_secs(20), answered).await;
    assert_eq!((&line["log.level"], &line["service.name"]), (&json!("info"), &json!("order")));
    assert_eq!(
        (&line["url.path"], &line["http.response.status_code"]),
        (&json!("/api/v1/orders"), &json!(201))
    );
    assert!(line["event.duration"].as_u64().is_some_and(|nanoseconds| nanoseconds > 10_000), "{line}");
    assert!(line["trace.id"].as_str().is_some_and(|trace| trace.len() == 32), "{line}");
    assert!(line["@timestamp"].is_string() && line["ecs.version"].is_string(), "{line}");

    // Of this customer, and of those whom the other tests made.
    let tokens = [buyer.token.as_str(), "Bearer ", "eyJ"];
    let words = [
        word.as_str(),
        street.as_str(),
        email.as_str(),
        "Ingrid",
        "Gull Lane",
        "correct horse battery",
        "dockside-staff",
    ];
    let others = ["1 Quay", "@example.test", "@dockside.test", "$argon2", "pm_card_visa"];
    for service in SERVICES {
        let text = shop.file(&format!("logs/{service}.log"));
        for secret in tokens.iter().chain(&words).chain(&others) {
            let found = text.lines().find(|line| line.contains(secret));
            assert_eq!(found, None, "{service} logs {secret}");
        }
    }
}
