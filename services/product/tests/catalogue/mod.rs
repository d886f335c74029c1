//! A big catalogue, for tests of what a shop of that size does.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Row};

use crate::common::Shop;

/// 100,000 products, with their words.
pub async fn fill(shop: &Shop) {
    sqlx::raw_sql(
        "INSERT INTO products.categories (slug, name, parent, position)
         SELECT 'g-' || t, 'Department ' || t, NULL, t FROM generate_series(1, 8) t
         UNION ALL
         SELECT format('g-%s-%s', t, c), format('Shelf %s of %s', c, t), 'g-' || t, c
         FROM generate_series(1, 8) t, generate_series(1, 6) c",
    )
    .execute(&shop.pool)
    .await
    .unwrap();
    let rows = include_str!("rows.sql");
    without_indexes(shop, [rows.replace("{part}", "1"), rows.replace("{part}", "2")]).await;
}

/// Runs two scripts side by side. Indexes are built after the rows, which takes half the time.
pub async fn without_indexes(shop: &Shop, scripts: [String; 2]) {
    let indexes = sqlx::query(
        "SELECT indexdef, format('DROP INDEX %I.%I', schemaname, indexname) FROM pg_indexes
         WHERE schemaname = 'products' AND tablename = 'products' AND indexdef NOT LIKE '%UNIQUE%'
           AND indexname <> 'products_without_words'
         ORDER BY indexdef LIKE '%gin%' DESC, indexname",
    );
    let indexes = indexes.fetch_all(&shop.pool).await.unwrap();
    let (create, drop): (Vec<String>, Vec<String>) =
        indexes.iter().map(|row| (row.get(0), row.get(1))).unzip();
    run(shop, drop).await;
    let [one, two] = scripts;
    tokio::join!(run(shop, vec![one]), run(shop, vec![two]));
    await_words(shop).await;
    run(shop, vec!["VACUUM FULL products.products".to_owned()]).await;
    let (odd, even): (Vec<_>, Vec<_>) = create.into_iter().enumerate().partition(|(index, _)| index % 2 == 1);
    let statements = |half: Vec<(usize, String)>| half.into_iter().map(|(_, create)| create).collect();
    tokio::join!(run(shop, statements(odd)), run(shop, statements(even)));
    run(shop, vec!["VACUUM ANALYZE".to_owned()]).await;
}

/// The service makes them by itself.
async fn await_words(shop: &Shop) {
    let without = "SELECT count(*) FROM products.products WHERE words_version < 1";
    let mut left = i64::MAX;
    for _ in 0..1200 {
        left = sqlx::query_scalar(without).fetch_one(&shop.pool).await.unwrap();
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("{left} products without words");
}

async fn run(shop: &Shop, scripts: Vec<String>) {
    let mut connection = shop.pool.acquire().await.unwrap();
    for script in scripts {
        sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut *connection).await.unwrap();
    }
}

pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
