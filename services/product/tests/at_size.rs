//! 100,000 products: no statement reads a big table from end to end, and none
//! of the lists touches more than a bounded part of one. That none takes long is
//! for `cargo dockside bench catalogue`.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

mod catalogue;
#[path = "it/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use common::{Shop, shop};
use serde_json::Value;
use sqlx::{PgConnection, Row};
use testing::plans::{Bounds, Example, faults};

const BIG: [&str; 6] = ["products", "stock", "sold_out", "stock_ledger", "reservations", "reservation_lines"];

/// Median of a kind of search, from the outside. Held by the bench alone.
const MEDIAN: Duration = Duration::from_millis(20);

/// What `product::search` sets for its statements.
const SETTINGS: &str = "SET LOCAL enable_seqscan = off; SET LOCAL jit = off";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_query_metadata_fits_the_schema() {
    let shop = shop().await;
    let mut connection = shop.pool.acquire().await.unwrap();
    sqlx::raw_sql("SET search_path = products, extensions").execute(&mut *connection).await.unwrap();
    let stale = testing::metadata::stale(&mut connection, env!("CARGO_MANIFEST_DIR")).await;
    assert!(stale.is_empty(), "{}", stale.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_reads_a_big_table_from_end_to_end() {
    let shop = shop().await;
    let begun = Instant::now();
    catalogue::fill(&shop).await;
    println!("filled in {:.1} s", begun.elapsed().as_secs_f64());
    let mut connection = shop.pool.acquire().await.unwrap();
    let mut observer = shop.pool.acquire().await.unwrap();

    let busiest =
        "SELECT product_id::text FROM products.stock_ledger GROUP BY 1 ORDER BY count(*) DESC LIMIT 1";
    let busiest: String = sqlx::query_scalar(busiest).fetch_one(&mut *connection).await.unwrap();
    let bounds = Bounds { big: &BIG, blocks: 15_000, settings: SETTINGS };
    let faults = faults(&mut connection, env!("CARGO_MANIFEST_DIR"), bounds, &examples(&busiest)).await;
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
    println!("explained after {:.1} s", begun.elapsed().as_secs_f64());

    // As the service itself runs them.
    let before = scanned(&mut observer).await;
    // That ended the service's connections, and it answers 503 when it can't open one within a second.
    testing::eventually("the service to have connections again", || async {
        (shop.get("/products").await.0 == 200).then_some(())
    })
    .await;
    browse(&shop).await;
    assert_eq!(scanned(&mut observer).await, before);
    println!("browsed after {:.1} s", begun.elapsed().as_secs_f64());
}

const SHELF: &str = "'{g-8-1}'";
const DEPARTMENT: &str = "'{g-3,g-3-1,g-3-2,g-3-3,g-3-4,g-3-5,g-3-6}'";

/// What a statement is run with: a `gather` with any words, a `walk` with
/// none or with words that much fits, a `shelf` with categories.
fn examples(busiest: &str) -> Vec<Example> {
    let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    let example = |parts: &[&'static str], arguments: &[&str]| Example {
        parts: parts.to_vec(),
        arguments: owned(arguments),
    };
    // Prices, availability.
    let filters = [
        ["NULL", "NULL", "NULL"],
        ["5000", "6000", "NULL"],
        ["NULL", "1500", "true"],
        ["NULL", "NULL", "false"],
    ];
    let keys = [
        ("(p.created_at, p.id) <", "'2025-06-01'"),
        ("(p.price, p.id) >", "5500"),
        ("(p.price, p.id) <", "5500"),
        ("(p.name COLLATE products.names, p.id) >", "'Heavy Oak Kettle'"),
    ];
    let id = "'018bd0a0-0000-7000-8000-000000000000'";
    let words = [
        "'''waterproof'':* | ''~waterproof'' | ''*waterproof'':* | ''^waterproof'' | ''=waterproof'''",
        "'''lantern'':* | ''~lantern'' | ''*lantern'':* | ''^lanter'' | ''=lantern'''",
        "'(''wool'':* | ''~wool'' | ''*wool'':*) & (''lantern'':* | ''~lantern'' | ''*lantern'':*)'",
        "'''repaired'':* | ''repair'' | ''~repair'' | ''*repaired'':* | ''^repaired'''",
    ];
    let excluded = ["NULL", "'!''wool'''"];
    let mut examples = Vec::new();
    // Few have ended so long ago, and many.
    for days in ["400", "60"] {
        examples.push(example(
            &["SELECT order_id FROM products.reservations", "state <> 'reserved'"],
            &[days, "1000"],
        ));
    }
    for [time, id] in [["NULL", "NULL"], ["'2025-06-01'", id]] {
        examples.push(example(&["p.archived_at IS NULL AND (p.created_at, p.id)"], &[time, id, "21"]));
    }
    for (keyset, key) in keys {
        for [min, max, stock] in filters {
            // Prices are compared in one.
            let compares = keyset.contains("p.price") || max != "NULL";
            let currency = if compares { "'EUR'" } else { "NULL" };
            for (id, key) in [("NULL", "NULL"), (id, key)] {
                for categories in ["NULL", DEPARTMENT] {
                    for words in words {
                        for excluded in excluded {
                            let arguments = [
                                words, categories, min, max, stock, id, "21", key, excluded, currency, "2001",
                            ];
                            examples.push(example(&["WITH found", keyset], &arguments));
                        }
                    }
                }
                for categories in [SHELF, DEPARTMENT] {
                    let arguments = ["NULL", categories, min, max, stock, id, "21", key, "NULL", currency];
                    examples.push(example(&["CROSS JOIN LATERAL", keyset], &arguments));
                }
                for excluded in excluded {
                    let arguments = ["NULL", "NULL", min, max, stock, id, "21", key, excluded, currency];
                    examples.push(example(&["SELECT p.id FROM products.products", keyset], &arguments));
                }
            }
        }
        // One that much fits, and the tiers that it is much of.
        for tier in
            ["($1::text IS NULL OR p.search @@ $1::text::tsquery)", "NOT ts_filter(p.search, '{a,b}')"]
        {
            if tier.starts_with("NOT") && !keyset.starts_with("(p.created_at") {
                continue;
            }
            let currency = if keyset.contains("p.price") { "'EUR'" } else { "NULL" };
            let words = "'''waterproof'''";
            let arguments = [words, "NULL", "NULL", "NULL", "true", "NULL", "21", "NULL", "NULL", currency];
            examples.push(example(&["SELECT p.id FROM products.products", keyset, tier], &arguments));
        }
    }
    for stock in ["NULL", "true"] {
        for (min, max, currency) in [("NULL", "NULL", "NULL"), ("5000", "6000", "'EUR'")] {
            examples.push(example(&["SELECT c.slug, n.count"], &[min, max, stock, "501", currency]));
        }
        for categories in ["NULL", SHELF, DEPARTMENT] {
            let (floors, ceilings) =
                ("'{0,1000,2500,5000,10000,25000}'", "'{1000,2500,5000,10000,25000,9223372036854775807}'");
            for [min, max] in [["NULL", "NULL"], ["5000", "6000"], ["NULL", "1500"]] {
                examples.push(example(&["WITH RECURSIVE each"], &[categories, stock, "501", min, max]));
            }
            let arguments = [floors, ceilings, categories, stock, "501", "'EUR'"];
            examples.push(example(&["SELECT n.count", "(floor, ceiling)"], &arguments));
        }
    }
    for (words, stock) in [
        ("'''waterproof'''", "NULL"),
        ("'''lantern'''", "true"),
        ("'''repair'''", "false"),
        ("NULL", "false"),
    ] {
        let arguments =
            [words, stock, "2001", "'{0,1000,2500,5000,10000,25000}'", "NULL", "6000", "NULL", "'EUR'"];
        examples.push(example(&["WITH found", "width_bucket"], &arguments));
    }
    for words in ["NULL", "'''waterproof'''", "'''lantern'''"] {
        for (attribute, except) in [("NULL", "NULL"), ("'''@color=red'''", "NULL"), ("NULL", "'color'")] {
            for categories in ["NULL", SHELF] {
                let arguments =
                    [words, attribute, categories, "NULL", "NULL", "NULL", "true", "2001", except];
                examples.push(example(&["jsonb_each_text(found.attributes)"], &arguments));
            }
        }
    }
    examples.push(example(&["p.draft = $1"], &["false", "NULL", "21"]));
    examples.push(example(&["FOR NO KEY UPDATE) AS batch"], &["'g-3-1'", "'g-3-2'", "200"]));
    for after in ["'00000000-0000-0000-0000-000000000000'", "'018d0000-0000-7000-8000-000000000000'"] {
        examples.push(example(&["p.id > $1 AND p.archived_at IS NULL ORDER BY p.id"], &[after]));
    }
    examples.push(example(&["SELECT DISTINCT currency FROM ("], &[]));
    examples.push(example(&["DELETE FROM products.import_changes"], &["86400"]));
    examples.push(example(&["words_version < 1"], &["200"]));
    examples.push(example(&["products.words"], &["'{jaket,blankte,aaaaaaa}'"]));
    let busiest = format!("'{busiest}'");
    let of =
        |seq: &str| example(&["FROM products.stock_ledger WHERE product_id = $1"], &[&busiest, seq, "21"]);
    examples.extend([of("9223372036854775807"), of("50000")]);
    examples.push(example(&["expires_at <= now()", "SKIP LOCKED"], &["128"]));
    examples
}

/// Sends searches of a shop's visitors, each several times, and measures how long the service took.
async fn browse(shop: &Shop) {
    let mut slow = Vec::new();
    for (kind, query) in [
        ("newest", ""),
        ("price", "?sort=price"),
        ("price down, in stock", "?sort=-price&in_stock=true"),
        ("name, sold out", "?sort=name&in_stock=false"),
        ("shelf by price", "?category=g-8-1&sort=price"),
        ("department by price, in stock", "?category=g-8&sort=price&in_stock=true"),
        ("department newest, price range", "?category=g-3&min_price=5000&max_price=6000"),
        ("price range by name", "?min_price=5000&max_price=5500&sort=name"),
        ("20,000 matches by relevance", "?q=waterproof"),
        ("76,000 matches by relevance", "?q=repaired"),
        ("2,000 matches by relevance", "?q=lantern"),
        ("two words by relevance", "?q=wool%20lantern"),
        ("dear words by price", "?q=telescope&sort=price"),
        ("20,000 matches by price, in stock", "?q=waterproof&sort=price&in_stock=true"),
        ("words in a department", "?q=waterproof&category=g-3"),
        ("misspelt", "?q=telescpoe"),
        ("nothing found", "?q=xylophone"),
        ("a name", "?q=Heavy%20Oak%20Kettle"),
        ("the beginning of a word", "?q=waterpr"),
        ("the end of a word", "?q=scope"),
        ("a SKU", "?q=G-000123"),
        ("the first parts of a SKU", "?q=G-0001"),
        ("an attribute", "?attributes.color=red"),
        ("an attribute and words, by price", "?attributes.color=Red&q=lantern&sort=price"),
        ("attributes of all", "?facets=attributes"),
        ("attributes of 20,000 matches", "?facets=attributes&q=waterproof&attributes.color=red"),
        ("a currency", "?currency=EUR&sort=name"),
        ("facets of all", "?facets=true"),
        ("facets in stock", "?facets=true&in_stock=true"),
        ("facets sold out", "?facets=true&in_stock=false"),
        ("facets of a department", "?facets=true&category=g-3&in_stock=true"),
        ("facets of 20,000 matches", "?facets=true&q=waterproof"),
    ] {
        let mut times = Vec::new();
        let (mut cursor, mut pages) = (String::new(), 0);
        for _ in 0..7 {
            let asked = Instant::now();
            let joint = if query.is_empty() { "?" } else { "&" };
            let (status, page) = shop.get(&format!("/products{query}{joint}{cursor}")).await;
            times.push(asked.elapsed());
            assert_eq!(status, 200, "{query} {page}");
            let found = page["items"].as_array().is_some_and(|items| !items.is_empty());
            assert!(found || pages > 3 || kind == "nothing found", "{query} {page}");
            pages += 1;
            // Three pages, then one from the middle, and the three after that.
            cursor = match page["next_cursor"].as_str() {
                Some(next) if pages == 3 => format!("cursor={}", middle(next)),
                Some(next) => format!("cursor={next}"),
                None => String::new(),
            };
        }
        let median = catalogue::median(times);
        println!("{:>7.1} ms  {kind}", median.as_secs_f64() * 1000.0);
        if !cfg!(debug_assertions) && median > MEDIAN {
            slow.push(format!("{kind}: {median:?}"));
        }
    }
    assert!(slow.is_empty(), "longer than {MEDIAN:?}: {slow:#?}");
    let (_, tree) = shop.get("/categories").await;
    assert_eq!(tree["items"].as_array().unwrap().len(), 10);
}

/// `cursor` moved to the middle of the shop.
fn middle(cursor: &str) -> String {
    let mut cursor: Value = serde_json::from_slice(&BASE64.decode(cursor).unwrap()).unwrap();
    let time = 1_750_000_000_000_000_i64;
    let place = match cursor["place"].as_object().unwrap().iter().next().unwrap() {
        (kind, Value::Array(tier)) => serde_json::json!({ kind: [tier[0], time] }),
        (kind, Value::String(_)) => serde_json::json!({ kind: "Light Hemp Candle" }),
        (kind, _) => serde_json::json!({ kind: if kind == "newest" { time } else { 9_000 } }),
    };
    cursor["place"] = place;
    BASE64.encode(cursor.to_string())
}

/// How often each big table was read from end to end. A backend reports its counts when it ends, so all but
/// this one are ended.
async fn scanned(connection: &mut PgConnection) -> Vec<(String, i64)> {
    sqlx::query(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
    )
    .execute(&mut *connection)
    .await
    .unwrap();
    let rows = sqlx::query(
        "SELECT relname::text, seq_scan FROM pg_stat_user_tables WHERE schemaname = 'products' ORDER BY 1",
    );
    let rows = rows.fetch_all(connection).await.unwrap().into_iter();
    let rows = rows.map(|row| (row.get::<String, _>(0), row.get::<i64, _>(1)));
    rows.filter(|(table, _)| BIG[..4].contains(&table.as_str())).collect()
}
