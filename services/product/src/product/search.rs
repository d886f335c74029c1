//! Finding products: what a query string may ask, and a page of answers.

mod attributes;
mod facets;
mod lists;
mod spelling;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use service::db::Connection;
use service::db::Pool;
use service::money::Currency;
use service::page::{Page, PageQuery, invalid_cursor};
use service::validate::Invalid;
use service::{FieldError, Problem};
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
    /// Only products with prices in this currency (ISO 4217). Price filters and sorting by price are within one
    /// currency: this one, or the shop's default, or the only one that it has prices in.
    #[param(pattern = "^[A-Z]{3}$")]
    currency: Option<String>,
    /// In minor units; not above `max_price`.
    #[param(value_type = Option<i64>, minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    min_price: Option<String>,
    /// In minor units.
    #[param(value_type = Option<i64>, minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    max_price: Option<String>,
    /// Only what is available, or only what is sold out.
    #[param(value_type = Option<bool>)]
    in_stock: Option<String>,
    /// `relevance` needs `q`, and is the default with it; without it `newest` is.
    #[param(value_type = Option<Sort>, inline, nullable = false)]
    sort: Option<String>,
    /// For staff: `draft` and `deleted` list the products that are not in the shop, newest first; only `limit` and
    /// `cursor` go with them.
    #[param(value_type = Option<super::Status>, inline, nullable = false, default = "published")]
    status: Option<String>,
    /// Whether to count what else could be chosen; `attributes` counts their values too.
    #[param(value_type = Option<Counts>, inline, nullable = false, default = "false")]
    facets: Option<String>,
    /// Only products with this attribute, whatever the case: `attributes.color=red`. Up to 10 of them.
    #[serde(rename = "attributes.NAME")]
    #[param(max_length = 200, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    named: Option<String>,
    #[serde(flatten)]
    #[param(ignore)]
    page: PageQuery,
    #[serde(flatten)]
    #[param(ignore)]
    more: BTreeMap<String, String>,
}

/// Attributes that a search may filter by.
const MOST_ATTRIBUTES: usize = 10;

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

/// What is looked for, and in which order.
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

/// A page of drafts, or of deleted products.
pub async fn not_in_shop(pool: &Pool, params: Params, drafts: bool) -> Result<Answer, Problem> {
    let (limit, after) = (params.page.limit()?, params.page.after::<Uuid>()?);
    let products = store::not_in_shop(&mut *pool.acquire().await?, drafts, after, limit + 1).await?;
    let page = Page::new(products, limit, |product| product.id);
    Ok(Answer { page, facets: None, did_you_mean: None })
}

impl Params {
    /// Whether it is for staff to ask.
    pub fn is_for_staff(&self) -> bool {
        matches!(self.status.as_deref(), Some("draft" | "deleted"))
    }

    /// Whether drafts or deleted products are asked for, which go with no other filter. 422 for another status.
    pub fn drafts_or_deleted(&self) -> Result<Option<bool>, Problem> {
        let refused = |name: &str, code: &str, detail: &str| {
            Err(Problem::invalid(vec![FieldError::new(format!("/{name}"), code, detail)]))
        };
        let drafts = match self.status.as_deref() {
            None | Some("published") => return Ok(None),
            Some("draft") => true,
            Some("deleted") => false,
            Some(_) => return refused("status", "invalid_value", "One of published, draft and deleted."),
        };
        let filters = [
            ("q", &self.q),
            ("category", &self.category),
            ("currency", &self.currency),
            ("min_price", &self.min_price),
            ("max_price", &self.max_price),
            ("in_stock", &self.in_stock),
            ("sort", &self.sort),
            ("facets", &self.facets),
            ("attributes.NAME", &self.named),
        ];
        let mut given = filters.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name);
        match given.next().or_else(|| self.more.keys().next().map(String::as_str)) {
            Some(name) => refused(name, "not_allowed", "Not with drafts or deleted products."),
            None => Ok(Some(drafts)),
        }
    }

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
        if self.currency.as_deref().is_some_and(|code| Currency::from_code(code).is_none()) {
            invalid.push("/currency", "unknown_currency", "A currency's code of ISO 4217, e.g. EUR.");
        }
        let attributes = attributes(&mut invalid, self.more, self.named);
        let facets = match self.facets.as_deref() {
            Some("attributes") => Counts::All,
            other => match yes_or_no(&mut invalid, "/facets", other) {
                Some(true) => Counts::Some,
                Some(false) | None => Counts::None,
            },
        };
        let limit = self.page.limit();
        invalid.check()?;
        let (category, currency) = (self.category, self.currency);
        let filters = Filters { q, category, min_price, max_price, in_stock, sort, currency, attributes };
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

/// Of parameters such as `attributes.color`; one may be called `NAME`. Others have been refused.
fn attributes(
    invalid: &mut Invalid,
    more: BTreeMap<String, String>,
    named: Option<String>,
) -> BTreeMap<String, String> {
    let of = |(name, value): (String, String)| Some((name.strip_prefix("attributes.")?.to_owned(), value));
    let mut attributes: BTreeMap<String, String> = more.into_iter().filter_map(of).collect();
    attributes.extend(named.map(|value| ("NAME".to_owned(), value)));
    for (name, value) in &attributes {
        if name.chars().count() > 64 || value.chars().count() > 200 {
            let detail = "A name has up to 64 characters, a value up to 200.";
            invalid.push(format!("/attributes.{name}"), "too_long", detail);
        }
    }
    if attributes.len() > MOST_ATTRIBUTES {
        invalid.push("/attributes", "too_many", format!("At most {MOST_ATTRIBUTES} attributes."));
    }
    attributes
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
    let mut items = store::newest(&mut *pool.acquire().await?, after, search.limit + 1).await?;
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
    let mut scope = lists::Scope::new(filters, query, categories, prices);
    let (mut found, mut tiers) = page(connection, &scope, search).await?;
    if let Some(query) = &scope.query
        && found.is_empty()
        && search.after.is_none()
    {
        respelt = spelling::correct(connection, query).await?;
        if let Some(words) = &respelt {
            scope = lists::Scope::new(
                filters,
                Some(Query::parse(&words.join(" "))),
                scope.categories,
                scope.prices,
            );
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
    let items = store::in_order(connection, &found).await?;
    let tier = tiers.of(items.len().saturating_sub(1));
    // Of words that only drafts have, nobody is told.
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
    /// The shop has several, and none is named.
    are_mixed: bool,
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
        return Ok(Prices { within: Some(named.clone()), bands: Some(named.clone()), are_mixed: false });
    }
    if !compares && search.facets == Counts::None {
        return Ok(Prices::default());
    }
    let default = default.map(|currency| currency.code().to_owned());
    match store::currencies(connection).await? {
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
            Ok(Prices { are_mixed: within.is_none(), within, bands: default })
        }
        (first, _) => {
            Ok(Prices { within: first.clone().filter(|_| compares), bands: first, are_mixed: false })
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
