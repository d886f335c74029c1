//! Finding products: what a query string may ask, and a page of answers.

mod facets;
mod lists;
mod spelling;

use serde::{Deserialize, Serialize};
use service::Problem;
use service::db::Connection;
use service::db::Pool;
use service::page::{Page, PageQuery, invalid_cursor};
use service::validate::Invalid;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use words::Query;

pub use facets::Facets;

use super::{Product, store};

/// The parameters of `GET /products` as they came.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// What people type, which is text: words, numbers, part of a SKU, in any script. Of all punctuation `"a phrase"`
    /// and `-without` mean something. Words that no product holds are respelt, and `did_you_mean` says so.
    #[param(max_length = 200, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    q: Option<String>,
    /// A category's slug; those below it are included.
    #[param(min_length = 1, max_length = 64, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    category: Option<String>,
    /// In minor units of whatever currency; not above `max_price`.
    #[param(value_type = Option<i64>, minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    min_price: Option<String>,
    /// In minor units of whatever currency.
    #[param(value_type = Option<i64>, minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    max_price: Option<String>,
    /// Only what is available, or only what is sold out.
    #[param(value_type = Option<bool>)]
    in_stock: Option<String>,
    /// `relevance` needs `q`, and is the default with it; without it `newest` is.
    #[param(value_type = Option<Sort>, inline)]
    sort: Option<String>,
    /// Whether to count what else could be chosen.
    #[param(value_type = Option<bool>, default = false)]
    facets: Option<String>,
    #[serde(flatten)]
    #[param(ignore)]
    page: PageQuery,
}

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

/// What is looked for, and in which order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Filters {
    q: Option<String>,
    category: Option<String>,
    min_price: Option<i64>,
    max_price: Option<i64>,
    in_stock: Option<bool>,
    sort: Sort,
}

/// A search that can be run.
#[derive(Debug)]
pub struct Search {
    filters: Filters,
    facets: bool,
    limit: i64,
    after: Option<Cursor>,
}

/// The place of a page's last item, and the search that it is a place in.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Cursor {
    filters: Filters,
    /// What was looked for in place of a misspelt `q`.
    respelt: Option<Vec<String>>,
    place: Place,
    id: Uuid,
}

/// A product's place in a sort, but for its id.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    /// Microseconds since the Unix epoch.
    Newest(i64),
    /// Where the words were found, then the time as above.
    Relevance(Tier, i64),
    Price(i64),
    Name(String),
}

/// Where a product holds the words, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Tier {
    /// They are its name or SKU.
    Exact,
    /// All in its name or SKU.
    Name,
    /// All there, some as the beginnings of others.
    Beginning,
    /// All there or in its attributes, some within others.
    Facts,
    /// Some only in its description.
    Description,
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

impl Params {
    /// 422 for values that no search can have; 400 `invalid_cursor`.
    pub fn parse(self) -> Result<Search, Problem> {
        let mut invalid = Invalid::new();
        let q = self.q.filter(|q| !q.trim().is_empty());
        let q = q.and_then(|q| invalid.text("/q", q, 1, 200));
        let sort = match self.sort.as_deref() {
            None if q.is_some() => Sort::Relevance,
            None | Some("newest") => Sort::Newest,
            Some("price") => Sort::Price,
            Some("-price") => Sort::PriceDown,
            Some("name") => Sort::Name,
            Some("relevance") if q.is_some() => Sort::Relevance,
            Some("relevance") => {
                invalid.push("/sort", "invalid_value", "Sorting by relevance needs q.");
                Sort::Newest
            }
            Some(_) => {
                let detail = "One of relevance (with q), newest, price, -price and name.";
                invalid.push("/sort", "invalid_value", detail);
                Sort::Newest
            }
        };
        let min_price = price(&mut invalid, "/min_price", self.min_price);
        let max_price = price(&mut invalid, "/max_price", self.max_price);
        if let (Some(min), Some(max)) = (min_price, max_price)
            && min > max
        {
            invalid.push("/min_price", "out_of_range", "Not above max_price.");
        }
        let in_stock = yes_or_no(&mut invalid, "/in_stock", self.in_stock.as_deref());
        let facets = yes_or_no(&mut invalid, "/facets", self.facets.as_deref()).unwrap_or(false);
        let limit = self.page.limit();
        invalid.check()?;
        let filters = Filters { q, category: self.category, min_price, max_price, in_stock, sort };
        let after: Option<Cursor> = self.page.after()?;
        if after.as_ref().is_some_and(|after| !after.fits(&filters)) {
            return Err(invalid_cursor());
        }
        Ok(Search { filters, facets, limit: limit?, after })
    }
}

fn price(invalid: &mut Invalid, pointer: &str, text: Option<String>) -> Option<i64> {
    let text = text?;
    let amount = text.parse().ok().filter(|amount: &i64| *amount >= 0);
    if amount.is_none() {
        invalid.push(pointer, "invalid_value", "A price in minor units, e.g. 1999.");
    }
    amount
}

fn yes_or_no(invalid: &mut Invalid, pointer: &str, text: Option<&str>) -> Option<bool> {
    match text {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => {
            invalid.push(pointer, "invalid_value", "true or false.");
            None
        }
    }
}

impl Cursor {
    /// A cursor is the client's to tamper with: what the database could not
    /// take (a NUL, a year that no calendar has) is refused here.
    fn fits(&self, filters: &Filters) -> bool {
        let time = |micros: i64| from_micros(micros).is_some();
        let place = match (&self.place, filters.sort) {
            (Place::Newest(micros), Sort::Newest) => time(*micros),
            (Place::Relevance(_, micros), Sort::Relevance) => time(*micros),
            (Place::Price(_), Sort::Price | Sort::PriceDown) => true,
            (Place::Name(name), Sort::Name) => !name.chars().any(char::is_control),
            _ => false,
        };
        place && self.filters == *filters && self.respelt.as_deref().is_none_or(spelling::is_sane)
    }
}

fn micros(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX)
}

fn from_micros(micros: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000)
        .ok()
        .filter(|time| (0..=9999).contains(&time.year()))
}

/// One snapshot for all statements of a search, and settings for them alone:
/// plans made for the values at hand, as each filter may be absent; and no
/// sequential scans, which a LIMIT makes look cheaper than they turn out.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;
    SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_seqscan = off; SET LOCAL jit = off";

/// One page. 422 for an unknown category.
pub async fn run(pool: &Pool, search: &Search) -> Result<Answer, Problem> {
    if search.is_of_all() {
        return newest(pool, search).await;
    }
    let mut transaction = service::db::begin_with(pool, BEGIN).await?;
    let answer = find(&mut transaction, search).await?;
    transaction.commit().await?;
    Ok(answer)
}

/// A page of the whole shop, newest first: what most visitors see first, by one statement.
async fn newest(pool: &Pool, search: &Search) -> Result<Answer, Problem> {
    let after = search.after.as_ref().and_then(|after| match after.place {
        Place::Newest(micros) => Some((from_micros(micros)?, after.id)),
        _ => None,
    });
    let mut items = store::newest(&mut *pool.acquire().await?, after, search.limit + 1).await?;
    let limit = usize::try_from(search.limit).unwrap_or(0);
    let more = items.len() > limit;
    items.truncate(limit);
    let page = search.page(items, more, None, |last| Place::Newest(micros(last.created_at)));
    Ok(Answer { page, facets: None, did_you_mean: None })
}

async fn find(connection: &mut Connection, search: &Search) -> Result<Answer, Problem> {
    let filters = &search.filters;
    let categories = match &filters.category {
        None => None,
        Some(slug) => Some(crate::category::with_descendants(connection, slug).await?),
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
    let mut scope = lists::Scope::new(filters, query, categories);
    let (mut found, mut tiers) = page(connection, &scope, search).await?;
    if let Some(query) = &scope.query
        && found.is_empty()
        && search.after.is_none()
    {
        respelt = spelling::correct(connection, query).await?;
        if let Some(words) = &respelt {
            scope = lists::Scope::new(filters, Some(Query::parse(&words.join(" "))), scope.categories);
            (found, tiers) = page(connection, &scope, search).await?;
        }
    }
    let facets = match search.facets {
        true => Some(facets::count(connection, &scope).await?),
        false => None,
    };

    let limit = usize::try_from(search.limit).unwrap_or(0);
    let more = found.len() > limit;
    found.truncate(limit);
    let items = store::in_order(connection, &found).await?;
    let tier = tiers.of(items.len().saturating_sub(1));
    let did_you_mean = respelt.as_ref().map(|words| words.join(" "));
    let page = search.page(items, more, respelt, |last| match filters.sort {
        Sort::Newest => Place::Newest(micros(last.created_at)),
        Sort::Relevance => Place::Relevance(tier, micros(last.created_at)),
        Sort::Price | Sort::PriceDown => Place::Price(last.price.amount),
        Sort::Name => Place::Name(last.name.clone()),
    });
    Ok(Answer { page, facets, did_you_mean })
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
        };
        !self.facets && self.filters == all
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
    scope: &lists::Scope<'_>,
    search: &Search,
) -> sqlx::Result<(Vec<Uuid>, Tiers)> {
    let (after, wanted) = (search.after.as_ref(), search.limit + 1);
    let Some(query) = scope.query.as_ref().filter(|_| search.filters.sort == Sort::Relevance) else {
        return Ok((lists::page(connection, scope, after, wanted).await?, Tiers::default()));
    };
    if query.any.is_none() && query.without.is_some() {
        // Only what is left out was named: all others are as good.
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
