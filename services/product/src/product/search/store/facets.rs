//! The SQL of counts by category, price band and currency.

use std::collections::{BTreeMap, HashMap};

use service::db::Connection;

use crate::product::search::facets::{Count, Counts, FLOORS, MOST_EACH, MOST_IN_ALL};
use crate::product::search::scope::Scope;

/// All in one statement, as finding the products takes most of the time. Of products with prices in one
/// currency, or of all.
pub async fn together(
    connection: &mut Connection,
    scope: &Scope<'_>,
    currency: Option<&str>,
) -> sqlx::Result<Counts> {
    let rows = sqlx::query!(
        r#"WITH found AS MATERIALIZED (
               SELECT p.category, p.currency, p.price
               FROM products.products p LEFT JOIN products.sold_out o ON o.product_id = p.id
               WHERE p.archived_at IS NULL AND ($1::text IS NULL OR p.search @@ $1::text::tsquery)
                 AND ($2::bool IS NULL OR (o.product_id IS NULL) = $2)
                 AND ($7::text IS NULL OR p.search @@ $7::text::tsquery)
                 AND ($8::text IS NULL OR p.currency = $8)
               LIMIT $3)
           SELECT category, currency, width_bucket(price, $4::bigint[]) - 1 AS "band!", count(*) AS "count!",
                  ($5::bigint IS NULL OR price >= $5) AND ($6::bigint IS NULL OR price <= $6) AS "in_range!"
           FROM found GROUP BY 1, 2, 3, 5"#,
        scope.words.as_deref(),
        scope.filters.in_stock,
        MOST_IN_ALL + 1,
        &FLOORS,
        scope.filters.min_price,
        scope.filters.max_price,
        scope.also.as_deref(),
        currency,
    );
    let rows = rows.fetch_all(connection).await?;
    let capped = rows.iter().map(|row| row.count).sum::<i64>() > MOST_IN_ALL;
    let mut counts = Counts::default();
    counts.bands.iter_mut().for_each(|band| band.capped = capped);
    let bands_in = scope.prices.bands.as_deref();
    for row in rows {
        let count = Count { count: row.count, capped };
        let within = scope.categories.as_ref().is_none_or(|within| within.contains(&row.category));
        if within
            && bands_in.is_none_or(|currency| currency == row.currency)
            && let Some(band) = usize::try_from(row.band).ok().and_then(|band| counts.bands.get_mut(band))
        {
            band.add(count);
        }
        if within && row.in_range {
            counts.currencies.entry(row.currency).or_default().add(count);
        }
        if row.in_range {
            counts.categories.entry(row.category).or_default().add(count);
        }
    }
    Ok(counts)
}

pub async fn categories(
    connection: &mut Connection,
    scope: &Scope<'_>,
) -> sqlx::Result<HashMap<String, Count>> {
    // EXISTS, which becomes one hash table for all categories.
    let rows = sqlx::query!(
        r#"SELECT c.slug, n.count AS "count!" FROM products.categories c CROSS JOIN LATERAL (
               SELECT count(*) FROM (
                   SELECT FROM products.products p
                   WHERE p.archived_at IS NULL AND p.category = c.slug
                     AND ($1::bigint IS NULL OR p.price >= $1)
                     AND ($2::bigint IS NULL OR p.price <= $2)
                     AND ($5::text IS NULL OR p.currency = $5)
                     AND ($3::bool IS NULL
                          OR EXISTS (SELECT FROM products.sold_out o WHERE o.product_id = p.id) <> $3)
                   LIMIT $4) hits) n"#,
        scope.filters.min_price,
        scope.filters.max_price,
        scope.filters.in_stock,
        MOST_EACH + 1,
        scope.prices.within.as_deref(),
    );
    let rows = rows.fetch_all(connection).await?.into_iter();
    Ok(rows.map(|row| (row.slug, Count::up_to(MOST_EACH, row.count))).collect())
}

pub async fn bands(connection: &mut Connection, scope: &Scope<'_>) -> sqlx::Result<[Count; FLOORS.len()]> {
    if scope.prices.are_mixed && scope.prices.bands.is_none() {
        return Ok([Count::default(); FLOORS.len()]);
    }
    let ceilings: Vec<i64> = FLOORS[1..].iter().copied().chain([i64::MAX]).collect();
    let counts = sqlx::query_scalar!(
        r#"SELECT n.count AS "count!"
           FROM UNNEST($1::bigint[], $2::bigint[]) AS b (floor, ceiling) CROSS JOIN LATERAL (
               SELECT count(*) FROM (
                   SELECT FROM products.products p
                   WHERE p.archived_at IS NULL AND p.price >= b.floor AND p.price < b.ceiling
                     AND ($3::text[] IS NULL OR p.category = ANY($3))
                     AND ($6::text IS NULL OR p.currency = $6)
                     AND ($4::bool IS NULL
                          OR EXISTS (SELECT FROM products.sold_out o WHERE o.product_id = p.id) <> $4)
                   LIMIT $5) hits) n
           ORDER BY b.floor"#,
        &FLOORS,
        &ceilings,
        scope.categories.as_deref() as _,
        scope.filters.in_stock,
        MOST_EACH + 1,
        scope.prices.bands.as_deref(),
    );
    let counts = counts.fetch_all(connection).await?;
    let mut bands = [Count::default(); FLOORS.len()];
    for (band, count) in bands.iter_mut().zip(counts) {
        *band = Count::up_to(MOST_EACH, count);
    }
    Ok(bands)
}

/// By currency, where there are several.
pub async fn currencies(
    connection: &mut Connection,
    scope: &Scope<'_>,
) -> sqlx::Result<BTreeMap<String, Count>> {
    if !scope.prices.are_several {
        return Ok(BTreeMap::new());
    }
    // One access to the index for each.
    let rows = sqlx::query!(
        r#"WITH RECURSIVE each AS (
               SELECT min(p.currency) AS currency FROM products.products p WHERE p.archived_at IS NULL
               UNION ALL
               SELECT (SELECT min(p.currency) FROM products.products p
                       WHERE p.archived_at IS NULL AND p.currency > each.currency)
               FROM each WHERE each.currency IS NOT NULL)
           SELECT each.currency AS "currency!", n.count AS "count!" FROM each CROSS JOIN LATERAL (
               SELECT count(*) FROM (
                   SELECT FROM products.products p
                   WHERE p.archived_at IS NULL AND p.currency = each.currency
                     AND ($1::text[] IS NULL OR p.category = ANY($1))
                     AND ($2::bool IS NULL
                          OR EXISTS (SELECT FROM products.sold_out o WHERE o.product_id = p.id) <> $2)
                     AND ($4::bigint IS NULL OR p.price >= $4)
                     AND ($5::bigint IS NULL OR p.price <= $5)
                   LIMIT $3) hits) n
           WHERE each.currency IS NOT NULL"#,
        scope.categories.as_deref() as _,
        scope.filters.in_stock,
        MOST_EACH + 1,
        scope.filters.min_price,
        scope.filters.max_price,
    );
    let rows = rows.fetch_all(connection).await?.into_iter();
    let counts = rows.map(|row| (row.currency, Count::up_to(MOST_EACH, row.count)));
    Ok(counts.filter(|(_, count)| count.count > 0).collect())
}
