//! The published OpenAPI document against the shop that runs.

use reqwest::Method;
use system_tests::{Shop, send};

const NOWHERE: &str = "There is nothing at this address.";

#[tokio::test]
async fn every_documented_operation_is_there_and_no_other_method_is() {
    let shop = Shop::open().await;
    let document = send(shop.request(Method::GET, "/openapi.json")).await.unwrap().body;
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 20, "{} paths", paths.len());
    for (path, operations) in paths {
        // Ids that nobody has.
        let address = path.split('/').map(|part| match part {
            "{n}" => "0",
            part if part.starts_with('{') => "01890000-0000-7000-8000-000000000000",
            part => part,
        });
        let url = format!("{}{}", shop.edge, address.collect::<Vec<_>>().join("/"));
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let documented = operations.get(method.as_str().to_lowercase()).is_some();
            let answer = send(shop.client.request(method.clone(), &url)).await.unwrap();
            let there = answer.status != 405 && answer.body["detail"] != NOWHERE;
            assert_eq!(there, documented, "{method} {path}: {} {}", answer.status, answer.body);
        }
    }
}

#[tokio::test]
async fn the_reader_brings_its_own_assets() {
    let shop = Shop::open().await;
    let page = shop.client.get(format!("{}/docs/", shop.edge)).send().await.unwrap().text().await.unwrap();
    assert!(!page.contains("//cdn") && !page.contains("https://"), "{page}");
    for asset in ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-initializer.js"] {
        assert!(page.contains(asset), "{page}");
        let answer = shop.client.get(format!("{}/docs/{asset}", shop.edge)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{asset}");
    }
}
