//! What every page has around it, by a storefront whose API is away.

use std::time::Duration;

use clap::Parser;
use reqwest::{Method, Response};
use service::Lifecycle;
use storefront::Config;

/// The address of a storefront with these settings too.
fn storefront(more: &[&str], lifecycle: &Lifecycle) -> String {
    let key = format!("--cookie-key={}", "ab".repeat(64));
    let own = [
        "storefront",
        "--http-addr=127.0.0.1:0",
        "--admin-addr=127.0.0.1:0",
        "--api-url=http://127.0.0.1:1",
        "--public-url=https://shop.example.com",
        "--storefront-key=x",
        &key,
    ];
    let config = Config::parse_from(own.iter().chain(more));
    format!("http://{}", storefront::start(&config, lifecycle).expect("the storefront starts"))
}

async fn page(method: Method, url: String) -> Response {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().expect("a client");
    client.request(method, url).send().await.expect("the storefront answers")
}

#[tokio::test]
async fn every_page_says_that_there_are_demo_accounts_and_none_where_there_are_none() {
    let lifecycle = Lifecycle::new();
    let (demo, plain) = (storefront(&["--demo-accounts=true"], &lifecycle), storefront(&[], &lifecycle));
    for path in ["/sign-in", "/sign-up", "/cart", "/nothing/there", "/"] {
        let shown = page(Method::GET, format!("{demo}{path}")).await.text().await.unwrap();
        assert!(
            shown.contains("class=\"demo-line\"") && shown.contains("everybody knows"),
            "{path}: {shown}"
        );
        let shown = page(Method::GET, format!("{plain}{path}")).await.text().await.unwrap();
        assert!(!shown.contains("demo-line") && !shown.contains("dockside-admin"), "{path}: {shown}");
    }
    let shown = page(Method::GET, format!("{demo}/sign-in")).await.text().await.unwrap();
    assert!(shown.contains("admin@dockside.test"));
}

#[tokio::test]
async fn every_answer_has_the_headers_that_say_what_a_page_may_do() {
    let lifecycle = Lifecycle::new();
    let shop = storefront(&[], &lifecycle);
    for (method, path) in [
        (Method::GET, "/sign-in"),
        (Method::GET, "/account"),
        (Method::GET, "/admin/products"),
        (Method::GET, "/nothing/there"),
        (Method::GET, "/assets/0/nothing.css"),
        (Method::GET, "/orders/1/events"),
        (Method::POST, "/sign-in"),
        (Method::DELETE, "/cart"),
    ] {
        let answer = page(method.clone(), format!("{shop}{path}")).await;
        let of = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let policy = of("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{method} {path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{method} {path}: {policy}");
        assert_eq!(of("x-content-type-options"), "nosniff", "{method} {path}");
        assert_eq!(of("referrer-policy"), "same-origin", "{method} {path}");
        assert_eq!(of("strict-transport-security"), "max-age=31536000", "{method} {path}");
        assert!(!of("permissions-policy").is_empty(), "{method} {path}");
    }
}
