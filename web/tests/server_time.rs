//! The storefront's own time for a page, over the API calls that it makes, against an API that answers at once:
//! `cargo dockside bench pages`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use clap::Parser;
use serde_json::{Value, json};
use service::Lifecycle;
use storefront::Config;
use tokio::net::TcpListener;

/// Held by the bench, which builds optimised.
const MEDIAN: Duration = Duration::from_millis(2);
const ROUNDS: usize = if cfg!(debug_assertions) { 20 } else { 2000 };

const ID: &str = "018f5c3e-7a00-7000-8000-000000000001";

fn product(n: usize) -> Value {
    json!({
        "id": ID, "sku": format!("ROPE-{n}"), "slug": "rope", "name": "Mooring rope, three strands",
        "description": "Spun for harbours, and soft in the hand. ".repeat(10),
        "price": {"amount": 1990 + n, "currency": "EUR"}, "category": "ropes",
        "attributes": {"color": "red", "length_m": "10", "material": "hemp"}, "images": [], "stock": {"available": 7},
    })
}

/// The catalogue, as it is for the demo's products.
fn api() -> Router {
    let category = |slug: &str, children: Vec<Value>| json!({"slug": slug, "name": slug, "product_count": 40, "children": children});
    let below = |slug: &str| (0..6).map(|n| category(&format!("{slug}-{n}"), Vec::new())).collect();
    let tree: Vec<Value> =
        ["deck", "galley", "light", "ropes"].map(|slug| category(slug, below(slug))).into();
    let values: Vec<Value> = (0..8).map(|n| json!({"value": format!("value {n}"), "count": n})).collect();
    let attributes: Vec<Value> =
        (0..5).map(|n| json!({"name": format!("name_{n}"), "values": values})).collect();
    let bands = json!([{"min_price": 0, "max_price": 1999, "count": 9}, {"min_price": 2000, "max_price": null, "count": 3}]);
    let found = json!({
        "items": (0..24).map(product).collect::<Vec<_>>(), "next_cursor": "x", "did_you_mean": null,
        "facets": {"categories": &tree, "price_bands": bands, "price_currency": "EUR", "attributes": attributes},
    });
    let answer = |body: Value| {
        let body = body.to_string();
        get(move || async move { ([(CONTENT_TYPE, "application/json")], body) })
    };
    Router::new()
        .route("/api/v1/categories", answer(json!({"items": tree})))
        .route("/api/v1/products", answer(found))
        .route("/api/v1/products/{id}", answer(product(1)))
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("a bound port has an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// The median time of an answer, read to its end.
async fn median(http: &reqwest::Client, url: &str) -> Duration {
    let mut times = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS + ROUNDS / 10 {
        let start = Instant::now();
        let answer = http.get(url).header("accept-encoding", "gzip").send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{url}");
        answer.bytes().await.expect("all of it");
        // The first ones open connections and fill caches.
        if round >= ROUNDS / 10 {
            times.push(start.elapsed());
        }
    }
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_takes_little_time_of_its_own() {
    let api = format!("http://{}", serve(api()).await);
    let key = format!("--cookie-key={}", "ab".repeat(64));
    let api_url = format!("--api-url={api}");
    let lifecycle = Lifecycle::new();
    let config = Config::parse_from([
        "storefront",
        "--http-addr=127.0.0.1:0",
        "--admin-addr=127.0.0.1:0",
        "--public-url=http://localhost:8080",
        "--storefront-key=x",
        &key,
        &api_url,
    ]);
    let pages = format!("http://{}", storefront::start(&config, &lifecycle).expect("it starts"));
    let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().expect("a client");
    // Each page with the calls that it waits for, one after the other; those that go out side by side count once.
    for (page, calls) in [
        ("/", &["/products"][..]),
        ("/products", &["/products"]),
        ("/products/rope", &["/products/rope", "/products"]),
    ] {
        let whole = median(&http, &format!("{pages}{page}")).await;
        let mut waited = Duration::ZERO;
        for call in calls {
            waited += median(&http, &format!("{api}/api/v1{call}")).await;
        }
        let own = whole.saturating_sub(waited);
        eprintln!("{page}: {whole:?}, of which {waited:?} for the API and {own:?} of its own");
        // A build that is not optimised shows only that each page comes.
        assert!(cfg!(debug_assertions) || own <= MEDIAN, "{page}: {own:?}");
    }
    assert!(lifecycle.shutdown(Duration::from_secs(5)).await);
}
