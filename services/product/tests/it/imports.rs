//! Imports: what a file changes in the catalogue, and what a bad one does not.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

use std::collections::HashMap;

use crate::common::{Shop, answer, id, shop};
use identity::Role;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

pub const NDJSON: &str = "application/x-ndjson";
pub const CSV: &str = "text/csv";

impl Shop {
    pub async fn import(&self, kind: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let request = self.staff(Method::POST, "/product-imports").header("content-type", kind).body(body);
        answer(request.send().await.unwrap()).await
    }

    pub async fn import_lines(&self, lines: &[Value]) -> Value {
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let (status, report) = self.import(NDJSON, body).await;
        assert_eq!(status, 200, "{report}");
        report
    }

    /// Sends a file and keeps the last `missing` bytes to itself.
    async fn begin(&self, kind: &str, body: &str, missing: usize) -> TcpStream {
        self.begin_with("", kind, body, missing).await
    }

    async fn begin_with(&self, query: &str, kind: &str, body: &str, missing: usize) -> TcpStream {
        let address = self.base.strip_prefix("http://").unwrap().strip_suffix("/api/v1").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "POST /api/v1/product-imports{query} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
             connection: close\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
            self.token(Role::Staff),
            body.len() + missing,
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// How far the import with this id is, as staff are told.
    async fn progress(&self, id: Uuid) -> (u16, Value) {
        answer(self.staff(Method::GET, &format!("/product-imports/{id}")).send().await.unwrap()).await
    }

    pub async fn by_sku(&self) -> HashMap<String, Value> {
        let (mut all, mut cursor) = (HashMap::new(), String::new());
        loop {
            let (_, page) = self.get(&format!("/products?limit=100{cursor}")).await;
            for product in page["items"].as_array().unwrap() {
                all.insert(product["sku"].as_str().unwrap().to_owned(), product.clone());
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }

    pub async fn count(&self) -> i64 {
        let query = "SELECT count(*) FROM products.products";
        sqlx::query_scalar(query).fetch_one(&self.pool).await.unwrap()
    }

    pub async fn events(&self) -> i64 {
        let query = "SELECT count(*) FROM outbox WHERE type = 'product.updated.v1'";
        sqlx::query_scalar(query).fetch_one(&self.pool).await.unwrap()
    }
}

pub fn line(sku: &str, fields: Value) -> Value {
    let mut line = json!({"sku": sku, "name": format!("Lamp {sku}"), "description": "A lamp.",
        "price": {"amount": 1999, "currency": "EUR"}, "category": "t-sea"});
    line.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    line
}

pub fn counts(report: &Value) -> [u64; 4] {
    ["created", "updated", "unchanged", "failed"].map(|name| report[name].as_u64().unwrap())
}

pub fn codes(report: &Value) -> Vec<(u64, &str)> {
    let errors = report["errors"].as_array().unwrap().iter();
    errors.map(|error| (error["line"].as_u64().unwrap(), error["code"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn lines_make_products_and_the_same_lines_again_change_nothing() {
    let shop = shop().await;
    let full = json!({"stock": 7, "attributes": {"color": "red"}, "images": ["https://a.example/1.jpg"]});
    let lines = [line("A", full), line("B", json!({"name": "Lamp A"})), line("C", json!({"stock": 0}))];
    let report = shop.import_lines(&lines).await;
    assert_eq!((counts(&report), &report["errors"]), ([3, 0, 0, 0], &json!([])));
    assert_eq!(shop.events().await, 3);
    let before = shop.by_sku().await;
    assert_eq!(before["A"]["stock"], json!({"available": 7}));
    for field in ["name", "description", "price", "category", "attributes", "images"] {
        assert_eq!(before["A"][field], lines[0][field], "{field}");
    }
    assert_eq!(before["A"]["slug"], "lamp-a");
    assert!(before["B"]["slug"].as_str().unwrap().starts_with("lamp-a-"), "{}", before["B"]);

    assert_eq!(counts(&shop.import_lines(&lines).await), [0, 3, 3, 0]);
    assert_eq!(shop.by_sku().await, before);
    assert_eq!(shop.events().await, 3);

    // What a line does not name, a product keeps.
    let change = line("A", json!({"price": {"amount": 5, "currency": "EUR"}}));
    assert_eq!(counts(&shop.import_lines(&[change]).await), [0, 1, 0, 0]);
    let after = shop.by_sku().await;
    assert_eq!(after["A"]["price"]["amount"], 5);
    for field in ["attributes", "images", "stock", "slug", "id", "created_at"] {
        assert_eq!(after["A"][field], before["A"][field], "{field}");
    }
    assert_eq!(shop.events().await, 4);
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn a_bad_line_is_reported_and_the_good_ones_stay() {
    let shop = shop().await;
    shop.product(json!({"sku": "HELD"})).await;
    let gone = shop.product(json!({"sku": "GONE"})).await;
    let delete = shop.staff(Method::DELETE, &format!("/products/{}", id(&gone))).header("if-match", "*");
    assert_eq!(delete.send().await.unwrap().status(), 204);

    let bad = |fields: Value| line("BAD", fields).to_string().into_bytes();
    let dollars = json!({"price": {"amount": 1, "currency": "USD"}});
    let lines: Vec<(Vec<u8>, &str)> = vec![
        (b"{".to_vec(), "malformed_json"),
        (b"[1]".to_vec(), "invalid_value"),
        (b"{\"sku\": \"\xFF\"}".to_vec(), "invalid_utf8"),
        (vec![b'x'; 256 * 1024 + 1], "line_too_long"),
        (bad(json!({"sku": "zero\u{200b}width"})), "invalid_sku"),
        (bad(json!({"name": ""})), "too_short"),
        (bad(json!({"name": "a\u{0}b"})), "control_character"),
        (bad(json!({"price": {"amount": -1, "currency": "EUR"}})), "out_of_range"),
        (bad(json!({"price": {"amount": 1, "currency": "EURO"}})), "invalid_value"),
        (bad(json!({"stock": -1})), "out_of_range"),
        (bad(json!({"stock": 1.5})), "invalid_value"),
        (bad(json!({"slug": "mine"})), "unknown_field"),
        (bad(json!({"images": ["/etc/passwd"]})), "invalid_value"),
        (bad(json!({"category": "nowhere"})), "unknown_category"),
        (bad(json!({"category": "No Slug", "category_name": "N"})), "invalid_value"),
        (bad(json!({"category": "new", "category_name": " "})), "too_short"),
        (
            bad(json!({"category": "new", "category_name": "N", "category_parent": "nowhere"})),
            "unknown_category",
        ),
        (line("HELD", dollars).to_string().into_bytes(), "currency_fixed"),
    ];
    let (mut body, mut wanted) = (Vec::new(), Vec::new());
    for (n, (bad, code)) in lines.iter().enumerate() {
        body.extend_from_slice(bad);
        body.extend(format!("\n{}\n", line(&format!("OK-{n}"), json!({}))).into_bytes());
        wanted.push((n as u64 * 2 + 1, *code));
    }
    let (status, report) = shop.import(NDJSON, body).await;
    assert_eq!(status, 200, "{report}");
    assert_eq!(codes(&report), wanted);
    let count = lines.len() as u64;
    assert_eq!(counts(&report), [count, 0, 0, count]);
    let products = shop.by_sku().await;
    assert_eq!(products.len(), lines.len() + 1);
    assert!((0..count).all(|n| products.contains_key(&format!("OK-{n}"))));
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn a_line_that_says_too_much_of_its_category_fails() {
    let shop = shop().await;
    for (fields, code) in [
        (json!({"category": "new", "category_name": "x".repeat(101)}), "too_long"),
        (json!({"category": "new", "category_name": "a\u{0}b"}), "control_character"),
        (json!({"category": "new", "category_name": 7}), "invalid_value"),
        (json!({"category": "new", "category_parent": "t-sea"}), "unknown_category"),
        (json!({"category": "new", "category_name": "N", "category_parent": ["t-sea"]}), "invalid_value"),
        (json!({"category": "x".repeat(65), "category_name": "N"}), "invalid_value"),
        (json!({"category": "", "category_name": "N"}), "invalid_value"),
        (json!({"category": "-new", "category_name": "N"}), "invalid_value"),
        (json!({"category": "a\u{0}b", "category_name": "N"}), "control_character"),
        (json!({"attributes": null}), "invalid_value"),
        (json!({"images": null}), "invalid_value"),
        (json!({"stock": null}), "invalid_value"),
        (json!({"price": null}), "invalid_value"),
        (json!({"id": "018f0000-0000-7000-8000-000000000000"}), "unknown_field"),
        (
            json!({"images": ["/api/v1/products/018f0000-0000-7000-8000-000000000000/images/0"]}),
            "unknown_image",
        ),
    ] {
        let report = shop.import_lines(&[line("A", fields.clone())]).await;
        assert_eq!(codes(&report), [(1, code)], "{fields} {report}");
    }
    assert_eq!(shop.count().await, 0);
    assert_eq!(shop.get("/categories").await.1["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn of_two_lines_with_one_sku_the_later_wins_wherever_batches_end() {
    let shop = shop().await;
    let numbered = (0..1200).map(|n| line(&format!("S-{}", n % 700), json!({ "stock": n })));
    let mut lines: Vec<Value> = numbered.collect();
    // Within one batch, with a bad one in between that has no say.
    lines.push(line("S-0", json!({"name": "Last"})));
    lines.push(line("S-0", json!({"name": ""})));
    lines.push(line("S-0", json!({"name": "Last"})));
    let report = shop.import_lines(&lines).await;
    assert_eq!(counts(&report), [700, 502, 1, 1]);
    let products = shop.by_sku().await;
    for n in 0..700_u64 {
        let product = &products[&format!("S-{n}")];
        assert_eq!(product["stock"]["available"], if n < 500 { n + 700 } else { n }, "{product}");
        assert_eq!(product["name"], if n == 0 { "Last".to_owned() } else { format!("Lamp S-{n}") });
    }
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn an_empty_shop_is_filled_with_categories_too() {
    let shop = shop().await;
    let lines = [
        line("A", json!({"category": "bags", "category_name": "Bags"})),
        line("B", json!({"category": "totes", "category_name": "Totes", "category_parent": "bags"})),
        line("C", json!({"category": "totes"})),
        // One that there is keeps its name.
        line("D", json!({"category": "bags", "category_name": "Other"})),
        line("E", json!({"category": "self", "category_name": "Self", "category_parent": "self"})),
    ];
    let report = shop.import_lines(&lines).await;
    assert_eq!((counts(&report), codes(&report)), ([4, 0, 0, 1], vec![(5, "unknown_category")]));
    let (_, tree) = shop.get("/categories").await;
    let bags = tree["items"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&bags["slug"], &bags["name"], &bags["product_count"]),
        (&json!("bags"), &json!("Bags"), &json!(4))
    );
    assert_eq!(bags["children"][0]["slug"], "totes");
}

#[tokio::test]
async fn categories_are_ten_levels_deep_at_most() {
    let shop = shop().await;
    let chain = |levels: std::ops::RangeInclusive<usize>| -> Vec<Value> {
        let lines = levels.map(|n| {
            let mut fields = json!({"category": format!("c-{n}"), "category_name": "C"});
            if n > 1 {
                fields["category_parent"] = json!(format!("c-{}", n - 1));
            }
            line(&format!("S-{n}"), fields)
        });
        lines.collect()
    };
    // Over two batches, and in a file of its own.
    let (first, second) =
        (shop.import_lines(&chain(1..=600)).await, shop.import_lines(&chain(11..=12)).await);
    assert_eq!((counts(&first), counts(&second)), ([10, 0, 0, 590], [0, 0, 0, 2]));
    assert_eq!(codes(&first)[..2], [(11, "too_deep"), (12, "unknown_category")]);
    assert_eq!(codes(&second), [(1, "too_deep"), (2, "unknown_category")]);
    let (status, tree) = shop.get("/categories").await;
    let top = tree["items"].as_array().unwrap().last().unwrap();
    assert_eq!((status, &top["slug"], &top["product_count"]), (200, &json!("c-1"), &json!(10)));
    assert_eq!(shop.get("/products?facets=true&category=c-1").await.1["items"].as_array().unwrap().len(), 10);
}

#[tokio::test]
async fn stock_is_set_through_the_ledger_and_never_below_what_is_reserved() {
    let shop = shop().await;
    shop.import_lines(&[line("A", json!({"stock": 10}))]).await;
    let product = id(&shop.by_sku().await["A"]);
    shop.reserve(Uuid::now_v7(), &[(&product, 4)]).await;

    let report = shop.import_lines(&[line("A", json!({"stock": 3, "name": "Other"}))]).await;
    assert_eq!(codes(&report), [(1, "insufficient_stock")]);
    assert_eq!(shop.by_sku().await["A"]["name"], "Lamp A", "a bad line does nothing by half");
    shop.import_lines(&[line("A", json!({"stock": 4})), line("A", json!({"stock": 6}))]).await;
    assert_eq!(shop.by_sku().await["A"]["stock"]["available"], 2);

    let path = format!("/products/{product}/stock-adjustments");
    let (_, ledger) = answer(shop.staff(Method::GET, &path).send().await.unwrap()).await;
    let entries = ledger["items"].as_array().unwrap();
    assert_eq!(entries.len(), 2, "{ledger}");
    assert_eq!(entries[0]["kind"], "adjustment");
    assert_eq!((&entries[0]["delta"], &entries[0]["on_hand"]), (&json!(-4), &json!(6)));
    assert_eq!(entries[0]["reason"], "import");
    assert!(entries[0]["actor"].is_string());
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn a_search_knows_what_an_import_changed() {
    let shop = shop().await;
    let lines = |fields: [Value; 3]| {
        let skus = ["A", "B", "C"];
        skus.iter().zip(fields).map(|(sku, fields)| line(sku, fields)).collect::<Vec<_>>()
    };
    let found = async |q: &str| {
        let (_, page) = shop.get(&format!("/products?sort=price&q={q}")).await;
        let items = page["items"].as_array().unwrap().iter();
        items.map(|item| item["sku"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let price = |amount: i64| json!({"amount": amount, "currency": "EUR"});
    shop.import_lines(&lines([json!({}), json!({}), json!({"stock": 1})])).await;
    let attributes = json!({"color": "vermilion"});
    let changed = [
        json!({"name": "Sextant", "price": price(3)}),
        json!({"attributes": attributes, "description": "Of brass."}),
        json!({"price": price(1), "stock": 7}),
    ];
    assert_eq!(counts(&shop.import_lines(&lines(changed)).await), [0, 3, 0, 0]);
    // As spelt, and as misspelt words that the shop has only just learnt.
    for (q, skus) in [
        ("sextant", vec!["A"]),
        ("sextent", vec!["A"]),
        ("vermillon", vec!["B"]),
        ("brass", vec!["B"]),
        ("lamp", vec!["C", "A", "B"]),
    ] {
        assert_eq!(found(q).await, skus, "{q}");
    }
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn a_walk_meets_each_product_of_one_batch_once() {
    let shop = shop().await;
    // All of one moment and one price, with names that are told apart by case or accents alone, or not at all.
    let names = [
        "é", "É", "ß", "ẞ", "ss", "İ", "i\u{307}", "ı", "e\u{301}", "🏮", "a", "A", " a", "a ", "Z", "_", "'",
    ];
    let lines: Vec<Value> = (0..51)
        .map(|n| {
            line(&format!("S-{n}"), json!({"name": names[n % names.len()], "attributes": {"kind": "lamp"}}))
        })
        .collect();
    assert_eq!(counts(&shop.import_lines(&lines).await), [51, 0, 0, 0]);
    for query in [
        "",
        "sort=name",
        "sort=price",
        "sort=-price",
        "q=lamp",
        "q=lampp",
        "q=lamp&sort=name",
        "in_stock=false",
        "in_stock=false&sort=name",
        "category=t-sea&sort=name",
        "min_price=1999&max_price=1999&sort=price",
    ] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        for _ in 0..17 {
            let (status, page) = shop.get(&format!("/products?limit=3&{query}{cursor}")).await;
            assert_eq!(status, 200, "{query}: {page}");
            seen.extend(page["items"].as_array().unwrap().iter().map(id));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => cursor.clear(),
            }
        }
        assert!(cursor.is_empty(), "{query} ends");
        let met = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!((met, seen.len()), (51, 51), "{query}");
    }
}

#[tokio::test]
async fn only_staff_import() {
    let shop = shop().await;
    let post = || shop.anyone(Method::POST, "/product-imports").body("x");
    let (status, problem) = answer(post().send().await.unwrap()).await;
    assert_eq!((status, &problem["code"]), (401, &json!("missing_token")));
    let customer = post().bearer_auth(shop.token(Role::Customer)).send().await.unwrap();
    assert_eq!(answer(customer).await.0, 403);
    let admin = post().bearer_auth(shop.token(Role::Admin)).header("content-type", NDJSON);
    assert_eq!(admin.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn what_is_no_file_of_products_is_refused_whole() {
    let shop = shop().await;
    for kind in ["application/json", "text/csv; charset=iso-8859-1", "application/gzip", "x"] {
        let (status, problem) = shop.import(kind, "x").await;
        assert_eq!((status, &problem["code"]), (415, &json!("unsupported_media_type")), "{kind}");
    }
    let post = || shop.staff(Method::POST, "/product-imports");
    let packed = post().header("content-type", CSV).header("content-encoding", "gzip").body("x");
    assert_eq!(answer(packed.send().await.unwrap()).await.0, 415);
    assert_eq!(answer(post().body("x").send().await.unwrap()).await.0, 415);
    let mut huge = shop.begin(NDJSON, "", 1024 * 1024 * 1024 + 1).await;
    huge.shutdown().await.unwrap();
    let mut refused = String::new();
    huge.read_to_string(&mut refused).await.unwrap();
    assert!(refused.starts_with("HTTP/1.1 413") && refused.contains("payload_too_large"), "{refused}");

    let (status, report) = shop.import(NDJSON, "").await;
    assert_eq!((status, counts(&report)), (200, [0; 4]));
    assert_eq!(shop.import(CSV, "sku,name,description,price,category\n").await.0, 200);
    let long = format!("sku{}\nA", " ".repeat(256 * 1024));
    let wide: String = (0..1001).map(|n| format!("attributes.{n},")).collect();
    for (header, pointer, code) in [
        ("", "", "malformed_csv"),
        ("sku,name\nA,n", "/description", "missing_field"),
        ("sku,name,description,price,category,role\nA,n,d,1,t-sea,admin", "/role", "unknown_field"),
        ("sku,sku,name,description,price,category\n", "/sku", "duplicate_field"),
        ("sku,\"name,description,price,category\n", "", "malformed_csv"),
        ("sku,,name,description,price,category\n", "/", "unknown_field"),
        (&wide, "", "too_many"),
        (&long, "", "malformed_csv"),
    ] {
        let (status, problem) = shop.import(CSV, header.to_owned()).await;
        assert_eq!((status, &problem["code"]), (422, &json!("validation_failed")), "{problem}");
        let error = &problem["errors"][0];
        assert_eq!((&error["pointer"], &error["code"]), (&json!(pointer), &json!(code)), "{problem}");
    }
    assert_eq!(shop.count().await, 0);
}

#[tokio::test]
async fn only_the_first_thousand_errors_are_listed_and_all_counted() {
    let shop = shop().await;
    let mut body = "x\n".repeat(2345);
    body.push_str(&line("GOOD", json!({})).to_string());
    let (_, report) = shop.import(NDJSON, body).await;
    assert_eq!(counts(&report), [1, 0, 0, 2345]);
    let listed: Vec<u64> = codes(&report).into_iter().map(|(line, _)| line).collect();
    assert_eq!(listed, (1..=1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_error_of_a_line_is_short_however_long_its_cells() {
    let shop = shop().await;
    let long = "€".repeat(20_000);
    let money = |currency: &str| json!({"price": {"amount": 1, "currency": currency}});
    let lines = [
        line("A", money(&long)),
        line("A", json!({"price": long})),
        line("A", json!({"name": long})),
        line("A", json!({"category": long})),
        line("A", json!({"stock": long})),
        line(&long, json!({})),
        line("A", json!({ long.clone(): 1 })),
        line("A", json!({"attributes": {long.clone(): "\n", "a": long, "b": long}})),
        line("A", json!({"images": [long, long]})),
        line("A", json!({"category": "new", "category_name": long})),
        line("A", json!({"category": "new", "category_name": "New", "category_parent": long})),
    ];
    let report = shop.import_lines(&lines).await;
    assert_eq!(counts(&report)[3], lines.len() as u64, "{:?}", codes(&report));
    let header = "sku,name,description,price,currency,category,stock,images,attributes";
    let mut csv = header.to_owned();
    for place in 0..header.split(',').count() {
        let mut cells = ["A", "n", "d", "1", "EUR", "t-sea", "1", "", ""];
        cells[place] = &long;
        csv.push('\n');
        csv.push_str(&cells.join(","));
    }
    let (status, answer) = shop.import(CSV, csv).await;
    assert_eq!((status, counts(&answer)[3]), (200, 9), "{:?}", codes(&answer));
    for error in report["errors"].as_array().unwrap().iter().chain(answer["errors"].as_array().unwrap()) {
        assert!(error["detail"].as_str().unwrap().chars().count() <= 3 * 402 + 2, "{error}");
    }
    assert_eq!(shop.count().await, 0);
}

#[tokio::test]
async fn a_file_cut_short_keeps_whole_batches_and_no_half_line() {
    let shop = shop().await;
    let header = "sku,name,description,price,currency,category,stock\n";
    let rows: String = (0..750).map(|n| format!("S-{n},n,d,1,EUR,t-sea,100\n")).collect();
    let stream = shop.begin(CSV, &format!("{header}{rows}HALF,n,d,1,EUR,t-sea,1"), 2).await;
    testing::eventually("the first batch is in", async || (shop.count().await == 500).then_some(())).await;
    drop(stream);
    // The import's turn is free again once it has failed.
    testing::eventually("the import has ended", async || {
        let held = shop.begin(NDJSON, "", 1).await;
        let free = shop.import(NDJSON, "").await.0 == 200;
        drop(held);
        free.then_some(())
    })
    .await;
    assert_eq!(shop.count().await, 500);
    shop.assert_books_balance().await;
}

/// Has the COMMIT of the batch that adds this SKU fail, in the way that the SQL says.
async fn at_commit_of(shop: &Shop, sku: &str, fail: &str) {
    let trigger = format!(
        "CREATE SEQUENCE products.tries;
         CREATE FUNCTION products.fail() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
             $$ BEGIN {fail} RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON products.products DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW WHEN (NEW.sku = '{sku}') EXECUTE FUNCTION products.fail();"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(trigger)).execute(&shop.pool).await.unwrap();
}

#[tokio::test]
async fn a_commit_that_was_refused_is_tried_again() {
    let shop = shop().await;
    let once = "IF nextval('products.tries') = 1 THEN RAISE 'again' USING ERRCODE = '40001'; END IF;";
    at_commit_of(&shop, "B", once).await;
    let report = shop.import_lines(&[line("A", json!({"stock": 3})), line("B", json!({}))]).await;
    assert_eq!(counts(&report), [2, 0, 0, 0]);
    assert_eq!(shop.count().await, 2);
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn a_commit_without_an_answer_is_not_tried_again_and_what_was_done_is_reported() {
    let shop = shop().await;
    let lost = "PERFORM nextval('products.tries'), pg_terminate_backend(pg_backend_pid());";
    at_commit_of(&shop, "LOST", lost).await;
    let mut lines: String = (0..500).map(|n| format!("{}\n", line(&format!("S-{n}"), json!({})))).collect();
    lines.push_str("\nx\n");
    lines.push_str(&line("LOST", json!({})).to_string());
    let request = shop.staff(Method::POST, "/product-imports").header("content-type", NDJSON).body(lines);
    let refused = request.send().await.unwrap();
    assert!(refused.headers().contains_key("retry-after"));
    let (status, problem) = answer(refused).await;
    assert_eq!((status, &problem["code"]), (503, &json!("outcome_unknown")), "{problem}");
    let done = json!({"created": 500, "updated": 0, "unchanged": 0, "failed": 0, "last_line": 500});
    assert_eq!(problem["imported"], done, "{problem}");
    let tries: i64 =
        sqlx::query_scalar("SELECT last_value FROM products.tries").fetch_one(&shop.pool).await.unwrap();
    assert_eq!((tries, shop.count().await), (1, 500));
}

#[tokio::test]
async fn an_import_ends_when_the_service_does() {
    let shop = shop().await;
    let streams = [shop.begin(NDJSON, "", 1).await, shop.begin(NDJSON, "", 1).await];
    testing::eventually("the imports have begun", async || {
        (shop.import(NDJSON, "").await.0 == 503).then_some(())
    })
    .await;
    assert!(shop.lifecycle.shutdown(std::time::Duration::from_secs(10)).await);
    for mut stream in streams {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("is stopping"), "{answer}");
    }
}

#[tokio::test]
async fn imports_of_the_same_products_at_once_do_not_wait_in_a_circle() {
    let shop = shop().await;
    let file = |skus: &mut dyn Iterator<Item = usize>, price: u32| -> String {
        skus.map(|n| {
            // Names in common, so that slugs are fought for too.
            let price = json!({"amount": price, "currency": "EUR"});
            let fields =
                json!({"name": format!("Lamp {}", n % 50), "stock": price["amount"], "price": price});
            format!("{}\n", line(&format!("S-{n}"), fields))
        })
        .collect()
    };
    let single = async {
        for n in 0..40 {
            shop.product(json!({"sku": format!("P-{n}"), "name": format!("Lamp {n}")})).await;
        }
    };
    let (one, two, ()) = tokio::join!(
        shop.import(NDJSON, file(&mut (0..1500), 1)),
        shop.import(NDJSON, file(&mut (0..1500).rev(), 2)),
        single
    );
    for (status, report) in [&one, &two] {
        assert_eq!((*status, report["failed"].as_u64()), (200, Some(0)), "{report}");
    }
    assert_eq!(one.1["created"].as_u64().unwrap() + two.1["created"].as_u64().unwrap(), 1500);
    let products = shop.by_sku().await;
    assert_eq!(products.len(), 1540);
    for (_, product) in products.iter().filter(|(sku, _)| sku.starts_with("S-")) {
        let stock = product["stock"]["available"].as_u64();
        assert_eq!(stock, product["price"]["amount"].as_u64(), "a line is applied whole: {product}");
    }
    shop.assert_books_balance().await;
}

#[tokio::test]
async fn imports_beyond_the_limit_are_refused_for_now() {
    let shop = shop().await;
    let held = [shop.begin(NDJSON, "", 1).await, shop.begin(NDJSON, "", 1).await];
    testing::eventually("both turns are taken", async || {
        let third = shop.staff(Method::POST, "/product-imports").header("content-type", NDJSON);
        let refused = third.send().await.unwrap();
        let later = refused.headers().get("retry-after").is_some();
        let (status, problem) = answer(refused).await;
        (status == 503).then(|| assert_eq!((&problem["code"], later), (&json!("service_unavailable"), true)))
    })
    .await;
    drop(held);
    let free = async || (shop.import(NDJSON, "").await.0 == 200).then_some(());
    testing::eventually("a turn is free again", free).await;
}

/// 500 lines, which are a batch.
fn a_batch() -> String {
    (0..500).map(|n| format!("{}\n", line(&format!("S-{n}"), json!({})))).collect()
}

#[tokio::test]
async fn an_import_with_an_id_says_how_far_it_is_while_its_file_comes() {
    let shop = shop().await;
    let (id, first) = (Uuid::now_v7(), a_batch());
    let rest = format!("x\n{}\n", line("LAST", json!({})));
    assert_eq!(shop.progress(id).await.0, 404);
    let mut stream = shop.begin_with(&format!("?id={id}"), NDJSON, &first, rest.len()).await;
    let running = testing::eventually("the first batch is reported", async || {
        let (status, progress) = shop.progress(id).await;
        (status == 200 && progress["lines"] == 500).then_some(progress)
    })
    .await;
    assert_eq!((&running["id"], &running["status"]), (&json!(id), &json!("running")), "{running}");
    assert_eq!((counts(&running), &running["bytes"]), ([500, 0, 0, 0], &json!(first.len())));
    // Once a second the import reports that it is alive, also when nothing comes.
    testing::eventually("it reports again", async || {
        let (_, later) = shop.progress(id).await;
        (later["updated_at"] != running["updated_at"]).then_some(())
    })
    .await;

    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, report) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    let report: Value = serde_json::from_str(report).unwrap();
    assert_eq!((counts(&report), codes(&report)), ([501, 0, 0, 1], vec![(501, "malformed_json")]));
    let (_, done) = shop.progress(id).await;
    assert_eq!((&done["status"], &done["lines"]), (&json!("done"), &json!(502)), "{done}");
    assert_eq!((counts(&done), &done["bytes"]), (counts(&report), &json!(first.len() + rest.len())));
    assert_eq!(done["started_at"], running["started_at"]);

    // With an id that was used before, it is about the newer file.
    let again = shop.staff(Method::POST, &format!("/product-imports?id={id}")).header("content-type", NDJSON);
    let (status, report) = answer_of(again.body(first.clone())).await;
    assert_eq!((status, counts(&report)), (200, [0, 500, 500, 0]), "{report}");
    let (_, newer) = shop.progress(id).await;
    assert_eq!((counts(&newer), &newer["bytes"]), ([0, 500, 500, 0], &json!(first.len())), "{newer}");
}

async fn answer_of(request: reqwest::RequestBuilder) -> (u16, Value) {
    answer(request.send().await.unwrap()).await
}

#[tokio::test]
async fn an_import_that_ended_early_or_died_is_distinguished_from_one_that_runs() {
    let shop = shop().await;
    let id = Uuid::now_v7();
    let stream = shop.begin_with(&format!("?id={id}"), NDJSON, &a_batch(), 2).await;
    testing::eventually("the first batch is in", async || (shop.count().await == 500).then_some(())).await;
    drop(stream);
    let failed = testing::eventually("it has failed", async || {
        let (_, progress) = shop.progress(id).await;
        (progress["status"] == "failed").then_some(progress)
    })
    .await;
    assert_eq!((counts(&failed), &failed["lines"]), ([500, 0, 0, 0], &json!(500)), "{failed}");

    // Its replica died: nothing was written any more.
    let silent = "UPDATE products.imports SET status = 'running', updated_at = now() - interval '2 minutes'";
    sqlx::query(silent).execute(&shop.pool).await.unwrap();
    assert_eq!(shop.progress(id).await.1["status"], "lost");

    // After a day it is forgotten. A replica sweeps when it starts.
    let old = "UPDATE products.imports SET started_at = now() - interval '25 hours'";
    sqlx::query(old).execute(&shop.pool).await.unwrap();
    shop.replica().await;
    testing::eventually("it is forgotten", async || (shop.progress(id).await.0 == 404).then_some(())).await;
}

#[tokio::test]
async fn an_import_that_was_refused_is_not_there() {
    let shop = shop().await;
    let id = Uuid::now_v7();
    let post = |query: &str| shop.staff(Method::POST, &format!("/product-imports?{query}")).body("x");
    let (status, _) = answer_of(post(&format!("id={id}"))).await;
    assert_eq!(status, 415);
    let (status, problem) = answer_of(post("id=7").header("content-type", NDJSON)).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/id")), "{problem}");
    assert_eq!(shop.progress(id).await.0, 404);
    let (status, problem) = answer_of(shop.staff(Method::GET, "/product-imports/7")).await;
    assert_eq!((status, &problem["code"]), (404, &json!("not_found")));
}
