//! Counts that come with a search: by category and by price band.
//!
//! Each honours all filters but its own: the categories' counts the price range
//! and not the category, the bands' counts the category and not the range. So
//! each tells what choosing something else would give.
//!
//! Counting ends somewhere, lest a search that fits the whole shop reads it all:
//! a count is exact unless it is `capped`, when there are at least so many.

use std::collections::HashMap;

use serde::Serialize;
use service::db::Connection;
use utoipa::ToSchema;

use super::lists::Scope;
use crate::category::{self, Category};

/// Up to which each count goes where an index has the products by category and price.
const MOST_EACH: i64 = 500;

/// How many products are counted in all where none has.
const MOST_IN_ALL: i64 = 2_000;

/// Where the price bands begin, in minor units.
const FLOORS: [i64; 6] = [0, 1_000, 2_500, 5_000, 10_000, 25_000];

#[derive(Debug, Serialize, ToSchema)]
pub struct Facets {
    /// The tree, without categories in which nothing was found.
    categories: Vec<Node>,
    /// All bands, cheapest first.
    price_bands: Vec<Band>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CategoryFacet)]
struct Node {
    slug: String,
    name: String,
    #[serde(flatten)]
    count: Count,
    #[schema(no_recursion)]
    children: Vec<Node>,
}

/// A band as `min_price` and `max_price` ask for it; the dearest has no end.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PriceBand)]
struct Band {
    #[schema(minimum = 0)]
    min_price: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0)]
    max_price: Option<i64>,
    #[serde(flatten)]
    count: Count,
}

#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
#[schema(as = FacetCount)]
struct Count {
    #[schema(minimum = 0)]
    count: i64,
    /// There may be more.
    capped: bool,
}

impl Count {
    fn up_to(most: i64, count: i64) -> Self {
        Self { count: count.min(most), capped: count > most }
    }

    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.capped |= other.capped;
    }
}

/// What was counted, by category and by band's number.
type Counts = (HashMap<String, Count>, [Count; FLOORS.len()]);

pub async fn count(connection: &mut Connection, scope: &Scope<'_>) -> sqlx::Result<Facets> {
    let (mut categories, bands) = match (&scope.query, scope.filters.in_stock) {
        (None, None | Some(true)) => (categories(connection, scope).await?, bands(connection, scope).await?),
        // Few of the shop's products, it is to be hoped.
        (Some(_), _) | (None, Some(false)) => together(connection, scope).await?,
    };
    let tree = category::uncounted(connection).await?;
    let categories = tree.into_iter().filter_map(|category| node(category, &mut categories)).collect();
    let bands = bands.into_iter().enumerate().map(|(index, count)| {
        let next = FLOORS.get(index + 1);
        Band { min_price: FLOORS[index], max_price: next.map(|floor| floor - 1), count }
    });
    Ok(Facets { categories, price_bands: bands.collect() })
}

/// The category with its sub-categories' counts added to its own.
fn node(category: Category, counts: &mut HashMap<String, Count>) -> Option<Node> {
    let mut count = counts.remove(&category.slug).unwrap_or_default();
    let children = category.children.into_iter().filter_map(|child| node(child, counts));
    let children: Vec<Node> = children.collect();
    children.iter().for_each(|child| count.add(child.count));
    (count.count > 0).then_some(Node { slug: category.slug, name: category.name, count, children })
}

/// Both in one go, for finding the products is what takes long.
async fn together(connection: &mut Connection, scope: &Scope<'_>) -> sqlx::Result<Counts> {
    let rows = sqlx::query!(
        r#"WITH found AS MATERIALIZED (
               SELECT p.category, p.price
               FROM products.products p LEFT JOIN products.sold_out o ON o.product_id = p.id
               WHERE p.archived_at IS NULL AND ($1::text IS NULL OR p.search @@ $1::text::tsquery)
                 AND ($2::bool IS NULL OR (o.product_id IS NULL) = $2)
                 AND ($7::text IS NULL OR p.search @@ $7::text::tsquery)
               LIMIT $3)
           SELECT category, width_bucket(price, $4::bigint[]) - 1 AS "band!", count(*) AS "count!",
                  ($5::bigint IS NULL OR price >= $5) AND ($6::bigint IS NULL OR price <= $6) AS "in_range!"
           FROM found GROUP BY 1, 2, 4"#,
        scope.words.as_deref(),
        scope.filters.in_stock,
        MOST_IN_ALL + 1,
        &FLOORS,
        scope.filters.min_price,
        scope.filters.max_price,
        scope.also.as_deref(),
    );
    let rows = rows.fetch_all(connection).await?;
    let capped = rows.iter().map(|row| row.count).sum::<i64>() > MOST_IN_ALL;
    let (mut categories, mut bands) = Counts::default();
    bands.iter_mut().for_each(|band| band.capped = capped);
    for row in rows {
        let count = Count { count: row.count, capped };
        if scope.categories.as_ref().is_none_or(|within| within.contains(&row.category))
            && let Some(band) = usize::try_from(row.band).ok().and_then(|band| bands.get_mut(band))
        {
            band.add(count);
        }
        if row.in_range {
            categories.entry(row.category).or_default().add(count);
        }
    }
    Ok((categories, bands))
}

async fn categories(connection: &mut Connection, scope: &Scope<'_>) -> sqlx::Result<HashMap<String, Count>> {
    // EXISTS, which becomes one hash table for all categories.
    let rows = sqlx::query!(
        r#"SELECT c.slug, n.count AS "count!" FROM products.categories c CROSS JOIN LATERAL (
               SELECT count(*) FROM (
                   SELECT FROM products.products p
                   WHERE p.archived_at IS NULL AND p.category = c.slug
                     AND ($1::bigint IS NULL OR p.price >= $1)
                     AND ($2::bigint IS NULL OR p.price <= $2)
                     AND ($3::bool IS NULL
                          OR EXISTS (SELECT FROM products.sold_out o WHERE o.product_id = p.id) <> $3)
                   LIMIT $4) hits) n"#,
        scope.filters.min_price,
        scope.filters.max_price,
        scope.filters.in_stock,
        MOST_EACH + 1,
    );
    let rows = rows.fetch_all(connection).await?.into_iter();
    Ok(rows.map(|row| (row.slug, Count::up_to(MOST_EACH, row.count))).collect())
}

async fn bands(connection: &mut Connection, scope: &Scope<'_>) -> sqlx::Result<[Count; FLOORS.len()]> {
    let ceilings: Vec<i64> = FLOORS[1..].iter().copied().chain([i64::MAX]).collect();
    let counts = sqlx::query_scalar!(
        r#"SELECT n.count AS "count!"
           FROM UNNEST($1::bigint[], $2::bigint[]) AS b (floor, ceiling) CROSS JOIN LATERAL (
               SELECT count(*) FROM (
                   SELECT FROM products.products p
                   WHERE p.archived_at IS NULL AND p.price >= b.floor AND p.price < b.ceiling
                     AND ($3::text[] IS NULL OR p.category = ANY($3))
                     AND ($4::bool IS NULL
                          OR EXISTS (SELECT FROM products.sold_out o WHERE o.product_id = p.id) <> $4)
                   LIMIT $5) hits) n
           ORDER BY b.floor"#,
        &FLOORS,
        &ceilings,
        scope.categories.as_deref() as _,
        scope.filters.in_stock,
        MOST_EACH + 1,
    );
    let counts = counts.fetch_all(connection).await?;
    let mut bands = [Count::default(); FLOORS.len()];
    for (band, count) in bands.iter_mut().zip(counts) {
        *band = Count::up_to(MOST_EACH, count);
    }
    Ok(bands)
}
