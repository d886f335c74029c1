//! A catalogue that grows from 100,000 products to 1,000,000: a search that finds as much as before takes as long as
//! before. For `cargo dockside bench growth`.

#![allow(clippy::unwrap_used, reason = "clippy knows a test by #[test], which helpers don't carry")]

mod catalogue;
#[path = "it/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::{Shop, shop};

/// How much longer a search may take.
const RATIO: f64 = 1.3;

/// Of each kind, at each size.
const TIMES: usize = 41;

/// What finds the same at both sizes: the products that are added have words and shelves of their own.
const SEARCHES: [(&str, &str); 18] = [
    ("newest", ""),
    ("shelf by price", "?category=g-8-1&sort=price"),
    ("department by price, in stock", "?category=g-8&sort=price&in_stock=true"),
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
    ("a SKU", "?q=G-000123"),
    ("the first parts of a SKU", "?q=G-0001"),
    ("an attribute", "?attributes.color=red"),
    ("facets of 20,000 matches", "?facets=true&q=waterproof"),
];

/// What counts more where there is more: all categories of the shop, of which there are ten times as many.
const COUNTS_MORE: (&str, &str) = ("facets of a department", "?facets=true&category=g-3&in_stock=true");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(debug_assertions, ignore = "many minutes: cargo dockside bench growth")]
async fn searches_that_find_as_much_take_as_long_with_ten_times_the_products() {
    let (small, large) = (shop().await, shop().await);
    let begun = Instant::now();
    catalogue::fill(&small).await;
    println!("100,000 products after {:.0} s", begun.elapsed().as_secs_f64());
    catalogue::fill(&large).await;
    grow(&large).await;
    println!("1,000,000 products after {:.0} s", begun.elapsed().as_secs_f64());
    let mut slower = Vec::new();
    for (kind, query) in SEARCHES.into_iter().chain([COUNTS_MORE]) {
        let (small, large) = measure([&small, &large], kind, query).await;
        let ratio = large.as_secs_f64() / small.as_secs_f64();
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        println!("{:>7.1} ms {:>7.1} ms {ratio:>6.2}  {kind}", ms(small), ms(large));
        // What takes less than a millisecond has no steady ratio.
        if ratio > RATIO && large.saturating_sub(small) > Duration::from_millis(1) && kind != COUNTS_MORE.0 {
            slower.push(format!("{kind}: {ratio:.2}"));
        }
    }
    assert!(slower.is_empty(), "more than {RATIO} times as long: {slower:#?}");
}

/// The median time of a search in each shop. They are asked in turn, so that a machine that is busy is so for both.
async fn measure(shops: [&Shop; 2], kind: &str, query: &str) -> (Duration, Duration) {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..TIMES {
        for (shop, times) in shops.iter().zip(&mut times) {
            let asked = Instant::now();
            let (status, page) = shop.get(&format!("/products{query}")).await;
            times.push(asked.elapsed());
            assert_eq!(status, 200, "{query} {page}");
            let found = page["items"].as_array().is_some_and(|items| !items.is_empty());
            assert!(found || kind == "nothing found", "{query} {page}");
        }
    }
    let [small, large] = times;
    (catalogue::median(small), catalogue::median(large))
}

/// Nine more of each product, on shelves of their own. Their letters are moved along in the alphabet, each time by
/// another number: so no word of theirs is one of before.
async fn grow(shop: &Shop) {
    let more = include_str!("catalogue/more.sql");
    let part = |first: u32, last: u32| {
        more.replace("{first}", &first.to_string()).replace("{last}", &last.to_string())
    };
    catalogue::without_indexes(shop, [part(1, 4), part(5, 9)]).await;
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM products.products").fetch_one(&shop.pool).await.unwrap();
    assert_eq!(count, 1_000_000);
}
