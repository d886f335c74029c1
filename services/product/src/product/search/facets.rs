//! Counts that come with a search: by category and by price band.
//!
//! Each honours all filters but its own: the categories' counts the price range
//! and not the category, the bands' counts the category and not the range, the currencies' counts all but the currency. So
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
use super::scope::Scope;
use super::store::facets as store;
use crate::category::{self, Category};

/// The limit of each count where an index has the products by category and price.
pub const MOST_EACH: i64 = 500;

/// How many products are counted in all where no index has.
pub const MOST_IN_ALL: i64 = 2_000;

/// Where the price bands begin, in minor units.
pub const FLOORS: [i64; 6] = [0, 1_000, 2_500, 5_000, 10_000, 25_000];

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
    /// The currencies of what was found, whichever is named, where the shop has several.
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
    pub fn up_to(most: i64, count: i64) -> Self {
        Self { count: count.min(most), capped: count > most }
    }

    pub fn add(&mut self, other: Self) {
        self.count += other.count;
        self.capped |= other.capped;
    }
}

/// The results of counting.
#[derive(Debug, Default)]
pub struct Counts {
    /// By slug.
    pub categories: HashMap<String, Count>,
    /// By their number.
    pub bands: [Count; FLOORS.len()],
    pub currencies: BTreeMap<String, Count>,
}

pub async fn count(connection: &mut Connection, scope: &Scope<'_>, wanted: Wanted) -> sqlx::Result<Facets> {
    let by_words = scope.words.is_some() || scope.also.is_some();
    let mut counts = match (by_words, scope.filters.in_stock) {
        (false, None | Some(true)) => Counts {
            categories: store::categories(connection, scope).await?,
            bands: store::bands(connection, scope).await?,
            currencies: store::currencies(connection, scope).await?,
        },
        // Few of the shop's products, it is to be hoped.
        (true, _) | (false, Some(false)) => {
            let mut counts = store::together(connection, scope, scope.prices.within.as_deref()).await?;
            if scope.prices.are_several && scope.prices.within.is_some() {
                counts.currencies = store::together(connection, scope, None).await?.currencies;
            }
            counts
        }
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
    let currencies = counts.currencies.into_iter().filter(|_| scope.prices.are_several);
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
