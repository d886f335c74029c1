//! Stock by import: counted, changed, and only if nobody was faster.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

use identity::Role;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::common::{Shop, answer, id, is_reserved, shop};
use crate::imports::{CSV, NDJSON, codes, counts, line};

impl Shop {
    /// Imports as whoever holds the token, with an Idempotency-Key.
    async fn import_with(&self, token: &str, key: &str, kind: &str, body: &str) -> (u16, Value) {
        let request = self.anyone(Method::POST, "/product-imports").bearer_auth(token);
        let request = request.header("idempotency-key", key).header("content-type", kind);
        answer(request.body(body.to_owned()).send().await.unwrap()).await
    }

    async fn stock_of(&self, sku: &str) -> (i32, i32) {
        self.stock(&id(&self.by_sku().await[sku])).await
    }

    /// Of the last entry in a product's ledger.
    async fn version(&self, sku: &str) -> i64 {
        let path = format!("/products/{}/stock-adjustments?limit=1", id(&self.by_sku().await[sku]));
        let (_, page) = answer(self.staff(Method::GET, &path).send().await.unwrap()).await;
        page["items"][0]["version"].as_i64().unwrap()
    }
}

async fn sell(shop: &Shop, sku: &str, units: u32) {
    let (order, product) = (Uuid::now_v7(), id(&shop.by_sku().await[sku]));
    assert!(is_reserved(&shop.reserve(order, &[(&product, units)]).await));
    shop.commit(order).await;
}

#[tokio::test]
async fn items_of_a_feed_that_is_one_line_count_once_each() {
    let shop = shop().await;
    let token = shop.token(Role::Staff);
    let item = |sku: &str, units: u32| {
        format!(
            "<item><g:id>{sku}</g:id><g:title>{sku}</g:title><g:price>1.00 EUR</g:price><g:product_type>Lamps</g:product_type>\
             <g:quantity>{units}</g:quantity></item>"
        )
    };
    let feed = |units: [u32; 3]| {
        let items: String = ["A", "B", "C"].iter().zip(units).map(|(sku, units)| item(sku, units)).collect();
        format!("<rss xmlns:g=\"http://base.google.com/ns/1.0\"><channel>{items}</channel></rss>")
    };
    for expected in [[3, 0, 0, 0], [0, 3, 3, 0]] {
        let (status, report) =
            shop.import_with(&token, "feed", "application/rss+xml", &feed([5, 6, 7])).await;
        assert_eq!((status, counts(&report)), (200, expected), "{report}");
        assert_eq!((shop.stock_of("A").await, shop.stock_of("C").await), ((5, 0), (7, 0)));
    }
    let (_, report) = shop.import_with(&token, "feed", "application/rss+xml", &feed([5, 9, 7])).await;
    assert_eq!(codes(&report), [(1, "idempotency_key_reused")]);
    // One that was bad, and is mended, moves no other.
    let broken = feed([5, 6, 7]).replacen("1.00 EUR", "dear", 1).replace("<g:id>", "<g:id>X");
    let (_, report) = shop.import_with(&token, "mended", "application/rss+xml", &broken).await;
    assert_eq!(counts(&report), [2, 0, 0, 1], "{report}");
    let mended = broken.replace("dear", "1.00 EUR");
    let (_, report) = shop.import_with(&token, "mended", "application/rss+xml", &mended).await;
    assert_eq!(counts(&report), [1, 2, 2, 0], "{report}");
    assert_eq!((shop.stock_of("XA").await, shop.stock_of("XC").await), ((5, 0), (7, 0)));
}

#[tokio::test]
async fn stock_that_comes_and_goes_is_on_top_of_what_is_there() {
    let shop = shop().await;
    shop.import_lines(&[line("A", json!({"stock": 5})), line("B", json!({"stock_change": 4}))]).await;
    assert_eq!((shop.stock_of("A").await, shop.stock_of("B").await), ((5, 0), (4, 0)));
    sell(&shop, "A", 2).await;
    let lines = [
        line("A", json!({"stock_change": 10})),
        line("a", json!({"stock_change": -3, "name": "Lamp A"})),
        line("A", json!({})),
    ];
    assert_eq!(counts(&shop.import_lines(&lines).await), [0, 3, 1, 0]);
    assert_eq!(shop.stock_of("A").await, (10, 0));
    // Counted, and then more: in the order of the lines.
    let lines = [
        line("A", json!({"stock_change": 7})),
        line("A", json!({"stock": 20})),
        line("A", json!({"stock_change": 1})),
    ];
    shop.import_lines(&lines).await;
    assert_eq!(shop.stock_of("A").await, (21, 0));
    let file = "sku;name;description;price;currency;category;Stock_Change\nA;n;;1;EUR;t-sea;-1\nB;n;;1;EUR;t-sea;\nC;n;;1;EUR;t-sea;2";
    assert_eq!(counts(&shop.import(CSV, file).await.1), [1, 2, 0, 0]);
    assert_eq!((shop.stock_of("A").await, shop.stock_of("B").await), ((20, 0), (4, 0)));

    assert!(is_reserved(&shop.reserve(Uuid::now_v7(), &[(&id(&shop.by_sku().await["B"]), 3)]).await));
    for (fields, code, column) in [
        (json!({"stock_change": -2}), "insufficient_stock", "stock_change"),
        (json!({"stock": 2}), "insufficient_stock", "stock"),
        (json!({"stock": 2, "stock_change": 1}), "invalid_value", "stock_change"),
        (json!({"stock_change": 1.5}), "invalid_value", "stock_change"),
        (json!({"stock_change": null}), "invalid_value", "stock_change"),
        (json!({"stock_change": 1_000_001}), "out_of_range", "stock_change"),
        (json!({"stock_change": i64::MIN}), "out_of_range", "stock_change"),
        (json!({"stock_if_version": "1"}), "invalid_value", "stock_if_version"),
    ] {
        let report = shop.import_lines(&[line("B", fields.clone())]).await;
        assert_eq!(
            (codes(&report), &report["errors"][0]["column"]),
            (vec![(1, code)], &json!(column)),
            "{fields}"
        );
    }
    let report = shop.import_lines(&[line("NEW", json!({"stock_change": -1}))]).await;
    assert_eq!(codes(&report), [(1, "insufficient_stock")]);
    assert_eq!(shop.stock_of("B").await, (4, 3));
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn a_file_that_is_sent_again_with_its_key_books_a_delivery_once() {
    let shop = shop().await;
    let token = shop.token(Role::Staff);
    shop.import_lines(&[line("A", json!({"stock": 1}))]).await;
    let file = |lines: &[Value]| -> String { lines.iter().map(|line| format!("{line}\n")).collect() };
    let delivery = [
        line("A", json!({"stock_change": 40})),
        line("NEW", json!({"stock_change": 5})),
        line("A", json!({"name": ""})),
        line("A", json!({"stock_change": 2})),
    ];
    let (_, first) = shop.import_with(&token, "k-1", NDJSON, &file(&delivery)).await;
    assert_eq!(counts(&first), [1, 2, 0, 1]);
    sell(&shop, "A", 3).await;
    let (_, again) = shop.import_with(&token, "k-1", NDJSON, &file(&delivery)).await;
    assert_eq!(counts(&again), [0, 3, 3, 1]);
    assert_eq!((shop.stock_of("A").await, shop.stock_of("NEW").await), ((40, 0), (5, 0)));

    // The bad line mended, and the rest as it was.
    let mut mended = delivery.clone();
    mended[2] = line("A", json!({"stock_change": 100}));
    let (_, report) = shop.import_with(&token, "k-1", NDJSON, &file(&mended)).await;
    assert_eq!(report["failed"], 0, "{report}");
    assert_eq!(shop.stock_of("A").await, (140, 0));
    // Another file with the key.
    let other = [line("A", json!({"stock_change": 41})), line("B", json!({"stock_change": 5}))];
    let (_, report) = shop.import_with(&token, "k-1", NDJSON, &file(&other)).await;
    assert_eq!(codes(&report), [(1, "idempotency_key_reused"), (2, "idempotency_key_reused")]);
    let counted = [line("A", json!({"stock": 40}))];
    let (_, report) = shop.import_with(&token, "k-1", NDJSON, &file(&counted)).await;
    assert_eq!(codes(&report), [(1, "idempotency_key_reused")]);
    assert_eq!(shop.stock_of("A").await, (140, 0));
    // Another key, another sender, and none.
    shop.import_with(&token, "k-2", NDJSON, &file(&delivery)).await;
    assert_eq!(shop.stock_of("A").await, (182, 0));
    shop.import_with(&shop.token(Role::Staff), "k-1", NDJSON, &file(&delivery)).await;
    assert_eq!(shop.stock_of("A").await, (224, 0));
    shop.import(NDJSON, file(&delivery)).await;
    assert_eq!(shop.stock_of("A").await, (266, 0));
    let (status, problem) = shop.import_with(&token, "two words", NDJSON, "").await;
    assert_eq!((status, &problem["code"]), (400, &json!("idempotency_key_invalid")));
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn a_count_a_delivery_and_a_condition_are_done_once_with_a_key() {
    let shop = shop().await;
    let token = shop.token(Role::Staff);
    shop.import_lines(&[line("A", json!({"stock": 5})), line("B", json!({"stock": 5}))]).await;
    let lines = [
        line("A", json!({"stock": 20})),
        line("A", json!({"stock_change": 1})),
        line("B", json!({"stock_change": 2, "stock_if_version": shop.version("B").await})),
    ];
    let file: String = lines.iter().map(|line| format!("{line}\n")).collect();
    for (counted, unchanged) in [(3, 0), (3, 3)] {
        let (_, report) = shop.import_with(&token, "k", NDJSON, &file).await;
        assert_eq!(counts(&report), [0, counted, unchanged, 0], "{report}");
        assert_eq!((shop.stock_of("A").await, shop.stock_of("B").await), ((21, 0), (7, 0)));
    }
    sell(&shop, "A", 1).await;
    shop.import_with(&token, "k", NDJSON, &file).await;
    assert_eq!(shop.stock_of("A").await, (20, 0), "what was sold since stays sold");
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn yesterdays_file_does_not_bring_back_what_was_sold_today() {
    let shop = shop().await;
    shop.import_lines(&[line("A", json!({"stock": 10})), line("B", json!({"stock": 10}))]).await;
    let (a, b) = (shop.version("A").await, shop.version("B").await);
    sell(&shop, "A", 4).await;
    let lines = [
        line("A", json!({"stock": 10, "stock_if_version": a, "name": "Other"})),
        line("B", json!({"stock": 12, "stock_if_version": b})),
        line("NEW", json!({"stock": 1, "stock_if_version": 7})),
    ];
    let report = shop.import_lines(&lines).await;
    assert_eq!((counts(&report), codes(&report)), ([1, 1, 0, 1], vec![(1, "stock_changed")]));
    assert_eq!(report["errors"][0]["column"], "stock_if_version");
    assert_eq!((shop.stock_of("A").await, shop.stock_of("B").await), ((6, 0), (12, 0)));
    assert_eq!(shop.by_sku().await["A"]["name"], "Lamp A", "a bad line does nothing by half");
    // Sent again, the second line is too late as well.
    assert_eq!(counts(&shop.import_lines(&lines).await), [0, 0, 0, 3]);
    let change = line("B", json!({"stock_change": -2, "stock_if_version": shop.version("B").await}));
    assert_eq!(counts(&shop.import_lines(&[change]).await), [0, 1, 0, 0]);
    assert_eq!(shop.stock_of("B").await, (10, 0));
    shop.assert_books_balance().await;
}
