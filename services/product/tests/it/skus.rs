//! SKUs as suppliers write them.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

use proto::product::v1::reserve_result::Outcome;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::common::{Shop, answer, id, shop};
use crate::imports::{CSV, codes, counts, line};

const SPELT: [&str; 8] = ["4058NB/12", "AB 12", "M8x20+", "10:4", "ÜF-1", "товар-1", "無線耳機", "a,b;\"c\""];

#[tokio::test]
async fn a_sku_is_taken_as_it_is_written() {
    let shop = shop().await;
    let longest = "ß".repeat(64);
    for sku in SPELT.into_iter().chain([longest.as_str()]) {
        let product = shop.product(json!({ "sku": sku, "stock": 1 })).await;
        assert_eq!(product["sku"], sku);
        let reserved = shop.reserve(Uuid::now_v7(), &[(&id(&product), 1)]).await;
        let Outcome::Reserved(reserved) = reserved else { panic!("{reserved:?}") };
        assert_eq!(reserved.lines[0].sku, sku);
        let json = line(sku, json!({"name": "Other"}));
        assert_eq!(counts(&shop.import_lines(&[json]).await), [0, 1, 0, 0], "{sku}");
        let file = format!(
            "sku,name,description,price,currency,category\n\"{}\",New,,1,EUR,t-sea",
            sku.replace('"', "\"\"")
        );
        assert_eq!(counts(&shop.import(CSV, file).await.1), [0, 1, 0, 0], "{sku}");
    }
    let path = format!("/products/{}", id(&shop.by_sku().await["AB 12"]));
    let patch = shop.staff(Method::PATCH, &path).header("if-match", "*").json(&json!({"sku": "Ø 12/7"}));
    assert_eq!(answer(patch.send().await.unwrap()).await.1["sku"], "Ø 12/7");
    for bad in ["", " ", "\u{a0}", "a\u{200b}b", "a\nb", &"x".repeat(65)] {
        let report = shop.import_lines(&[line(bad, json!({"name": "Lamp"}))]).await;
        let code = if bad.contains('\n') { "control_character" } else { "invalid_sku" };
        assert_eq!(
            (codes(&report), &report["errors"][0]["column"]),
            (vec![(1, code)], &json!("sku")),
            "{bad:?}"
        );
    }
}

#[tokio::test]
async fn two_spellings_of_a_sku_are_one_product() {
    let shop = shop().await;
    for (one, other) in
        [("Abc-1", "aBC-1"), ("ÜF 1", "u\u{308}f 1"), ("Straße", "STRASSE"), ("X", " x"), ("Товар", "ТОВАР")]
    {
        let product = shop.product(json!({ "sku": one, "name": "Lamp", "stock": 2 })).await;
        let (status, problem) = shop.post("/products", &line(other, json!({}))).await;
        assert_eq!((status, &problem["code"]), (409, &json!("sku_taken")), "{other}");
        let fields = json!({"name": "Lantern"});
        assert_eq!(counts(&shop.import_lines(&[line(other, fields.clone())]).await), [0, 1, 0, 0], "{other}");
        assert_eq!(counts(&shop.import_lines(&[line(other, fields)]).await), [0, 1, 1, 0], "{other}");
        let now = &shop.by_sku().await[one];
        assert_eq!((&now["id"], &now["name"]), (&product["id"], &json!("Lantern")), "it keeps its spelling");
    }
    let lines = [line("New-1", json!({"stock": 3})), line("NEW-1", json!({"stock": 4}))];
    assert_eq!(counts(&shop.import_lines(&lines).await), [1, 1, 0, 0]);
    assert_eq!(shop.by_sku().await["New-1"]["stock"]["available"], 4);

    let other = id(&shop.product(json!({"sku": "other"})).await);
    let patch = |sku: &str| {
        let patch = shop.staff(Method::PATCH, &format!("/products/{other}")).header("if-match", "*");
        patch.json(&json!({ "sku": sku })).send()
    };
    assert_eq!(answer(patch("ABC-1").await.unwrap()).await.1["code"], "sku_taken");
    assert_eq!(answer(patch("OTHER").await.unwrap()).await.1["sku"], "OTHER");
    shop.assert_books_balance().await;
}

/// SKUs that differ by case alone, as an older version took them, and the migration that finds them.
async fn collide(shop: &Shop, skus: &[&str]) -> Vec<Value> {
    let before = "DROP INDEX products.products_sku_key; DROP TABLE products.sku_collisions;
                  ALTER TABLE products.products DROP COLUMN sku_key;
                  ALTER TABLE products.products ADD CONSTRAINT products_sku_key UNIQUE (sku);";
    let mut products = Vec::new();
    for n in 0..skus.len() {
        products.push(shop.product(json!({"sku": format!("S-{n}"), "name": format!("n{n}")})).await);
    }
    sqlx::raw_sql(before).execute(&shop.pool).await.unwrap();
    for (n, sku) in skus.iter().enumerate() {
        let rename = sqlx::query("UPDATE products.products SET sku = $1 WHERE sku = $2");
        rename.bind(sku).bind(format!("S-{n}")).execute(&shop.pool).await.unwrap();
    }
    let migration = include_str!("../../migrations/0008_skus_in_any_spelling.sql");
    sqlx::raw_sql(migration).execute(&shop.pool).await.unwrap();
    products
}

#[tokio::test]
async fn skus_that_differ_by_case_alone_stay_so_and_are_listed() {
    let shop = shop().await;
    let products = collide(&shop, &["a-1", "A-1", "B-1", "b-1", "C-1"]).await;
    let listed: Vec<(Uuid, String, Uuid)> = sqlx::query_as(
        "SELECT product_id, sku, kept_by FROM products.sku_collisions ORDER BY sku COLLATE \"C\"",
    )
    .fetch_all(&shop.pool)
    .await
    .unwrap();
    let named = |n: usize| id(&products[n]).parse::<Uuid>().unwrap();
    assert_eq!(listed, [(named(1), "A-1".to_owned(), named(0)), (named(3), "b-1".to_owned(), named(2))]);
    // Each line changes the product whose SKU it spells; in another case, the one that was there first.
    let lines =
        ["a-1", "A-1", "B-1", "b-1", "c-1"].map(|sku| line(sku, json!({"name": format!("is {sku}")})));
    assert_eq!(counts(&shop.import_lines(&lines).await), [0, 5, 0, 0]);
    let now = shop.by_sku().await;
    for sku in ["a-1", "A-1", "B-1", "b-1"] {
        assert_eq!(now[sku]["name"], format!("is {sku}"));
    }
    assert_eq!(now["C-1"]["name"], "is c-1");
    // Staff give one another SKU, and may change anything else before.
    let patch = |body: Value| {
        let path = format!("/products/{}", named(1));
        shop.staff(Method::PATCH, &path).header("if-match", "*").json(&body).send()
    };
    assert_eq!(answer(patch(json!({"name": "n"})).await.unwrap()).await.0, 200);
    assert_eq!(answer(patch(json!({"sku": "c-1"})).await.unwrap()).await.1["code"], "sku_taken");
    assert_eq!(answer(patch(json!({"sku": "D-1"})).await.unwrap()).await.0, 200);
    let report =
        shop.import_lines(&[line("d-1", json!({"name": "d"})), line("A-1", json!({"name": "a"}))]).await;
    assert_eq!(counts(&report), [0, 2, 0, 0]);
    let now = shop.by_sku().await;
    assert_eq!((&now["D-1"]["name"], &now["a-1"]["name"]), (&json!("d"), &json!("a")));
}
