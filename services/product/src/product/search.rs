//! Finding products: a page of results for a query string.

mod attributes;
mod facets;
mod params;
mod place;
mod scope;
mod spelling;
mod store;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use service::db::{Connection, Pool};
use service::money::Currency;
use service::page::Page;
use service::{FieldError, Problem};
use utoipa::ToSchema;
use uuid::Uuid;
use words::Query;

pub use facets::Facets;
pub use params::Params;

use super::{Product, store as products};
use place::{Cursor, Place, Tier, from_micros, micros};
use scope::Scope;
use store::lists;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Sort {
    Relevance,
    Newest,
    Price,
    #[serde(rename = "-price")]
    PriceDown,
    Name,
}

/// What is counted with a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ToSchema)]
enum Counts {
    #[default]
    #[schema(rename = "false")]
    None,
    /// By category, price and currency.
    #[schema(rename = "true")]
    Some,
    /// By attribute too.
    #[schema(rename = "attributes")]
    All,
}

/// The filters of a search, and its order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Filters {
    q: Option<String>,
    category: Option<String>,
    min_price: Option<i64>,
    max_price: Option<i64>,
    in_stock: Option<bool>,
    sort: Sort,
    #[serde(default)]
    currency: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

/// A search that can be run.
#[derive(Debug)]
pub struct Search {
    filters: Filters,
    facets: Counts,
    limit: i64,
    after: Option<Cursor>,
}

/// A page, and the counts that were asked for with it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProductPage)]
pub struct Answer {
    #[serde(flatten)]
    page: Page<Product>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    facets: Option<Facets>,
    /// What was looked for instead of `q`, which no product holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    did_you_mean: Option<String>,
}

/// A page of drafts, or of deleted products.
pub async fn not_in_shop(pool: &Pool, params: Params, drafts: bool) -> Result<Answer, Problem> {
    let (limit, after) = (params.page.limit()?, params.page.after::<Uuid>()?);
    let products = products::not_in_shop(&mut *pool.acquire().await?, drafts, after, limit + 1).await?;
    let page = Page::new(products, limit, |product| product.id);
    Ok(Answer { page, facets: None, did_you_mean: None })
}

/// One snapshot for all statements of a search, and settings for them alone: plans are made for the actual
/// values, as each filter may be absent, and there are no sequential scans, which a LIMIT makes look cheaper
/// than they are.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;
    SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_seqscan = off; SET LOCAL jit = off";

/// One page. 422 for an unknown category, and for prices of several currencies with none named and no `default`.
pub async fn run(pool: &Pool, search: &Search, default: Option<Currency>) -> Result<Answer, Problem> {
    if search.is_of_all() {
        return newest(pool, search).await;
    }
    let mut transaction = service::db::begin_with(pool, BEGIN).await?;
    let answer = find(&mut transaction, search, default).await?;
    transaction.commit().await?;
    Ok(answer)
}

/// A page of the whole shop, newest first: what most visitors see first, by one statement.
async fn newest(pool: &Pool, search: &Search) -> Result<Answer, Problem> {
    let after = search.after.as_ref().and_then(|after| match after.place {
        Place::Newest(micros) => Some((from_micros(micros)?, after.id)),
        _ => None,
    });
    let mut items = products::newest(&mut *pool.acquire().await?, after, search.limit + 1).await?;
    let limit = usize::try_from(search.limit).unwrap_or(0);
    let more = items.len() > limit;
    items.truncate(limit);
    let page = search.page(items, more, None, |last| Place::Newest(micros(last.created_at)));
    Ok(Answer { page, facets: None, did_you_mean: None })
}

async fn find(
    connection: &mut Connection,
    search: &Search,
    default: Option<Currency>,
) -> Result<Answer, Problem> {
    let filters = &search.filters;
    let prices = prices(connection, search, default).await?;
    let categories = match &filters.category {
        None => None,
        Some(slug) => Some(crate::category::store::with_descendants(connection, slug).await?),
    };
    if categories.as_ref().is_some_and(Vec::is_empty) {
        return Err(super::unknown_category("/category"));
    }
    let mut respelt = search.after.as_ref().and_then(|after| after.respelt.clone());
    let query = match (&filters.q, &respelt) {
        (None, _) => None,
        (Some(_), Some(words)) => Some(Query::parse(&words.join(" "))),
        (Some(q), None) => Some(Query::parse(q)),
    };
    let mut scope = Scope::new(filters, query, categories, prices);
    let (mut found, mut tiers) = page(connection, &scope, search).await?;
    if let Some(query) = &scope.query
        && found.is_empty()
        && search.after.is_none()
    {
        respelt = spelling::correct(connection, query).await?;
        if let Some(words) = &respelt {
            scope = Scope::new(filters, Some(Query::parse(&words.join(" "))), scope.categories, scope.prices);
            (found, tiers) = page(connection, &scope, search).await?;
        }
    }
    let facets = match search.facets {
        Counts::None => None,
        counts => Some(facets::count(connection, &scope, counts).await?),
    };

    let limit = usize::try_from(search.limit).unwrap_or(0);
    let more = found.len() > limit;
    found.truncate(limit);
    let items = products::in_order(connection, &found).await?;
    let tier = tiers.of(items.len().saturating_sub(1));
    // Words that only drafts have are shown to nobody.
    let did_you_mean = respelt.as_ref().filter(|_| !items.is_empty()).map(|words| words.join(" "));
    let page = search.page(items, more, respelt, |last| match filters.sort {
        Sort::Newest => Place::Newest(micros(last.created_at)),
        Sort::Relevance => Place::Relevance(tier, micros(last.created_at)),
        Sort::Price | Sort::PriceDown => Place::Price(last.price.amount),
        Sort::Name => Place::Name(last.name.clone()),
    });
    Ok(Answer { page, facets, did_you_mean })
}

/// The currencies of a search.
#[derive(Clone, Debug, Default)]
struct Prices {
    /// Only products with prices in this one are found.
    within: Option<String>,
    /// Price bands are counted in this one; in none where the shop has several and none is named.
    bands: Option<String>,
    /// The shop has several, and results may be in any of them.
    are_mixed: bool,
    /// The shop has several. Known only where facets are counted.
    are_several: bool,
}

async fn prices(
    connection: &mut Connection,
    search: &Search,
    default: Option<Currency>,
) -> Result<Prices, Problem> {
    let filters = &search.filters;
    let sorts = matches!(filters.sort, Sort::Price | Sort::PriceDown);
    let compares = sorts || filters.min_price.is_some() || filters.max_price.is_some();
    if let Some(named) = &filters.currency {
        let are_several = search.facets != Counts::None
            && matches!(products::currencies(connection).await?, (Some(first), Some(last)) if first != last);
        let (within, bands) = (Some(named.clone()), Some(named.clone()));
        return Ok(Prices { within, bands, are_mixed: false, are_several });
    }
    if !compares && search.facets == Counts::None {
        return Ok(Prices::default());
    }
    let default = default.map(|currency| currency.code().to_owned());
    match products::currencies(connection).await? {
        (Some(first), Some(last)) if first != last => {
            if compares && default.is_none() {
                let detail = "The shop has prices in several currencies: name one to compare them in.";
                return Err(Problem::invalid(vec![FieldError::new(
                    "/currency",
                    "currency_required",
                    detail,
                )]));
            }
            let within = default.clone().filter(|_| compares);
            Ok(Prices { are_mixed: within.is_none(), within, bands: default, are_several: true })
        }
        (first, _) => {
            let within = first.clone().filter(|_| compares);
            Ok(Prices { within, bands: first, ..Prices::default() })
        }
    }
}

impl Search {
    /// Nothing is left out or counted, and the newest come first.
    fn is_of_all(&self) -> bool {
        let all = Filters {
            q: None,
            category: None,
            min_price: None,
            max_price: None,
            in_stock: None,
            sort: Sort::Newest,
            currency: None,
            attributes: BTreeMap::new(),
        };
        self.facets == Counts::None && self.filters == all
    }

    /// `place` is where the last of the items is in the sort.
    fn page(
        &self,
        items: Vec<Product>,
        more: bool,
        respelt: Option<Vec<String>>,
        place: impl Fn(&Product) -> Place,
    ) -> Page<Product> {
        let last = items.last().filter(|_| more).map(|last| Cursor {
            filters: self.filters.clone(),
            respelt,
            place: place(last),
            id: last.id,
        });
        Page { next_cursor: last.and_then(|cursor| service::page::encode(&cursor)), items }
    }
}

/// How many of a page's ids belong to each tier.
#[derive(Debug, Default)]
struct Tiers(Vec<(Tier, usize)>);

impl Tiers {
    fn of(&self, mut index: usize) -> Tier {
        for &(tier, ids) in &self.0 {
            if index < ids {
                return tier;
            }
            index -= ids;
        }
        Tier::Description
    }
}

/// Up to `limit + 1` ids.
async fn page(
    connection: &mut Connection,
    scope: &Scope<'_>,
    search: &Search,
) -> sqlx::Result<(Vec<Uuid>, Tiers)> {
    let (after, wanted) = (search.after.as_ref(), search.limit + 1);
    let Some(query) = scope.query.as_ref().filter(|_| search.filters.sort == Sort::Relevance) else {
        return Ok((lists::page(connection, scope, after, wanted).await?, Tiers::default()));
    };
    if query.any.is_none() && query.without.is_some() {
        // Only exclusions were named: all other products are equally good.
        return Ok((lists::page(connection, scope, after, wanted).await?, Tiers::default()));
    }
    let place = after.and_then(|after| match after.place {
        Place::Relevance(tier, micros) => Some((tier, (from_micros(micros)?, after.id))),
        _ => None,
    });
    let (mut found, mut tiers) = (Vec::new(), Tiers::default());
    for tier in [Tier::Exact, Tier::Name, Tier::Beginning, Tier::Facts, Tier::Description] {
        let left = wanted - i64::try_from(found.len()).unwrap_or(wanted);
        let after = place.filter(|(at, _)| *at == tier).map(|(_, after)| after);
        let passed = place.is_some_and(|(at, _)| at as u8 > tier as u8);
        if left > 0 && !passed {
            let ids = lists::tier(connection, scope, query, tier, after, left).await?;
            tiers.0.push((tier, ids.len()));
            found.extend(ids);
        }
    }
    Ok((found, tiers))
}
