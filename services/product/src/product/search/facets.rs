//! Counts that come with a search: by category and by price band.
//!
//! Each honours all filters but its own: the categories' counts the price range
//! and not the category, the bands' counts the category and not the range. So
//! each tells what choosing something else would give.
//!
//! Counting ends somewhere, lest a search that fits the whole shop reads it all:
//! a count is exact unless it is `capped`, when there are at least so many.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use service::db::Connection;
use utoipa::ToSchema;

use super::Counts as Wanted;
use super::attributes::{self, AttributeFacet};
use super::lists::Scope;
use crate::category::{self, Category};

/// Up to which each count goes where an index has the products by category and price.
const MOST_EACH: i64 = 500;

/// How many products are counted in all where none has.
pub const MOST_IN_ALL: i64 = 2_000;

/// Where the price bands begin, in minor units.
const FLOORS: [i64; 6] = [0, 1_000, 2_500, 5_000, 10_000, 25_000];

#[derive(Debug, Serialize, ToSchema)]
pub struct Facets {
    /// The tree, without categories in which nothing was found.
    categories: Vec<Node>,
    /// All bands, cheapest first; none where the shop has prices in several currencies and none is named.
    price_bands: Vec<Band>,
    /// What the bands' prices are in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    price_currency: Option<String>,
    /// The currencies of what was found, where the shop has several and none is named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    currencies: Vec<CurrencyFacet>,
    /// With `facets=attributes`: the most common attributes, and their most common values.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    attributes: Option<Vec<AttributeFacet>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct CurrencyFacet {
    currency: String,
    #[serde(flatten)]
    count: Count,
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
pub struct Count {
    #[schema(minimum = 0)]
    pub count: i64,
    /// There may be more.
    pub capped: bool,
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

/// What was counted.
#[derive(Debug, Default)]
struct Counts {
    /// By slug.
    categories: HashMap<String, Count>,
    /// By their number.
    bands: [Count; FLOORS.len()],
    currencies: BTreeMap<String, Count>,
}

pub async fn count(connection: &mut Connection, scope: &Scope<'_>, wanted: Wanted) -> sqlx::Result<Facets> {
    let by_words = scope.words.is_some() || scope.also.is_some();
    let mut counts = match (by_words, scope.filters.in_stock) {
        (false, None | Some(true)) => Counts {
            categories: categories(connection, scope).await?,
            bands: bands(connection, scope).await?,
            currencies: currencies(connection, scope).await?,
        },
        // Few of the shop's products, it is to be hoped.
        (true, _) | (false, Some(false)) => together(connection, scope).await?,
    };
    let tree = category::uncounted(connection).await?;
    let categories = tree.into_iter().filter_map(|category| node(category, &mut counts.categories)).collect();
    let price_currency = scope.prices.bands.clone();
    let bands =
        counts.bands.into_iter().enumerate().filter(|_| !scope.prices.are_mixed || price_currency.is_some());
    let bands = bands.map(|(index, count)| {
        let next = FLOORS.get(index + 1);
        Band { min_price: FLOORS[index], max_price: next.map(|floor| floor - 1), count }
    });
    let attributes = match wanted {
        Wanted::All => Some(attributes::count(connection, scope).await?),
        Wanted::Some | Wanted::None => None,
    };
    let currencies = counts.currencies.into_iter().filter(|_| scope.prices.are_mixed);
    Ok(Facets {
        categories,
        price_bands: bands.collect(),
        price_currency,
        currencies: currencies.map(|(currency, count)| CurrencyFacet { currency, count }).collect(),
        attributes,
    })
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
        scope.prices.within.as_deref(),
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

async fn categories(connection: &mut Connection, scope: &Scope<'_>) -> sqlx::Result<HashMap<String, Count>> {
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

async fn bands(connection: &mut Connection, scope: &Scope<'_>) -> sqlx::Result<[Count; FLOORS.len()]> {
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
async fn currencies(connection: &mut Connection, scope: &Scope<'_>) -> sqlx::Result<BTreeMap<String, Count>> {
    if !scope.prices.are_mixed {
        return Ok(BTreeMap::new());
    }
    // One look into the index for each.
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
                   LIMIT $3) hits) n
           WHERE each.currency IS NOT NULL"#,
        scope.categories.as_deref() as _,
        scope.filters.in_stock,
        MOST_EACH + 1,
    );
    let rows = rows.fetch_all(connection).await?.into_iter();
    let counts = rows.map(|row| (row.currency, Count::up_to(MOST_EACH, row.count)));
    Ok(counts.filter(|(_, count)| count.count > 0).collect())
}
