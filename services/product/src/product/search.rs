//! Finding products: what a query string may ask, and a page of answers.

use serde::{Deserialize, Serialize};
use service::Problem;
use service::page::{Page, PageQuery, invalid_cursor};
use service::validate::Invalid;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Product;
use super::store::{Row, select};

/// The parameters of `GET /products` as they came.
#[derive(Debug, Default, Deserialize)]
pub struct Params {
    q: Option<String>,
    category: Option<String>,
    min_price: Option<String>,
    max_price: Option<String>,
    in_stock: Option<String>,
    sort: Option<String>,
    #[serde(flatten)]
    page: PageQuery,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Sort {
    Relevance,
    Newest,
    Price,
    PriceDown,
    Name,
}

/// A search that can be run.
#[derive(Debug)]
pub struct Search {
    q: Option<String>,
    category: Option<String>,
    min_price: Option<i64>,
    max_price: Option<i64>,
    in_stock: Option<bool>,
    sort: Sort,
    limit: i64,
    after: Option<Cursor>,
}

/// The place of a page's last item, and the search that it is a place in.
#[derive(Debug, Serialize, Deserialize)]
struct Cursor {
    sort: Sort,
    q: Option<String>,
    /// Price, rank, or microseconds since the Unix epoch.
    number: i64,
    name: String,
    id: Uuid,
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
        let in_stock = match self.in_stock.as_deref() {
            None => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) => {
                invalid.push("/in_stock", "invalid_value", "true or false.");
                None
            }
        };
        let limit = self.page.limit();
        invalid.check()?;
        let after: Option<Cursor> = self.page.after()?;
        if after.as_ref().is_some_and(|after| !after.fits(sort, q.as_deref())) {
            return Err(invalid_cursor());
        }
        Ok(Search { q, category: self.category, min_price, max_price, in_stock, sort, limit: limit?, after })
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

impl Search {
    /// The words, when they are only that: a search that excludes words or
    /// quotes a phrase means it to the letter.
    fn plain_words(&self) -> Option<&str> {
        let exact = |q: &&str| q.contains('"') || q.split_whitespace().any(|word| word.starts_with('-'));
        self.q.as_deref().filter(|q| !exact(q))
    }
}

impl Cursor {
    fn new(search: &Search, row: &Row) -> Self {
        let number = match search.sort {
            Sort::Relevance => row.rank,
            Sort::Newest => micros(row.created_at),
            Sort::Price | Sort::PriceDown => row.price,
            Sort::Name => 0,
        };
        let name = if search.sort == Sort::Name { row.name.clone() } else { String::new() };
        Self { sort: search.sort, q: search.q.clone(), number, name, id: row.id }
    }

    /// A cursor is the client's to tamper with: what the database could not
    /// take (a NUL, a year that no calendar has) is refused here.
    fn fits(&self, sort: Sort, q: Option<&str>) -> bool {
        self.sort == sort
            && self.q.as_deref() == q
            && !self.name.chars().any(char::is_control)
            && (sort != Sort::Newest || from_micros(self.number).is_some())
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

/// What every sort's query filters by, and where the page starts.
macro_rules! sorted {
    ($rank:tt, $keyset:tt, $order:tt, $search:expr, $categories:expr $(, $key:expr)*) => {
        select!(
            $rank,
            [r#"WHERE p.archived_at IS NULL
                 AND ($1::text IS NULL OR p.search @@ websearch_to_tsquery('english', $1)
                      OR $8 OPERATOR(extensions.<%) p.name)
                 AND ($2::text[] IS NULL OR p.category = ANY($2))
                 AND ($3::bigint IS NULL OR p.price >= $3)
                 AND ($4::bigint IS NULL OR p.price <= $4)
                 AND ($5::bool IS NULL OR (s.on_hand > s.reserved) = $5)
                 AND ($6::uuid IS NULL OR "# + $keyset + ") ORDER BY " + $order + " LIMIT $7"],
            $search.q,
            $categories as _,
            $search.min_price,
            $search.max_price,
            $search.in_stock,
            $search.after.as_ref().map(|after| after.id),
            $search.limit + 1,
            $search.plain_words()
            $(, $key)*
        )
    };
}

/// How alike a name must be to a misspelt word of a search: one letter off in
/// six passes ("jaket"), another word with the same ending doesn't ("lamp", "damp").
const ALIKE: &str = "0.42";

/// One page. 422 for an unknown category.
pub async fn run(connection: &mut PgConnection, search: &Search) -> Result<Page<Product>, Problem> {
    let categories = match &search.category {
        None => None,
        Some(slug) => Some(crate::category::with_descendants(connection, slug).await?),
    };
    if categories.as_ref().is_some_and(Vec::is_empty) {
        return Err(super::unknown_category("/category"));
    }
    if search.q.is_some() {
        // The operator <% takes its threshold from the session:
        // https://www.postgresql.org/docs/current/pgtrgm.html
        sqlx::query!("SELECT set_config('pg_trgm.word_similarity_threshold', $1, false)", ALIKE)
            .fetch_one(&mut *connection)
            .await?;
    }
    let categories = categories.as_deref();
    let number = search.after.as_ref().map(|after| after.number);
    let rows = match search.sort {
        Sort::Newest => {
            let time = number.and_then(from_micros);
            sorted!(
                "0::bigint",
                "(p.created_at, p.id) < ($9, $6)",
                "p.created_at DESC, p.id DESC",
                search,
                categories,
                time
            )
            .fetch_all(connection)
            .await?
        }
        Sort::Price => {
            sorted!("0::bigint", "(p.price, p.id) > ($9, $6)", "p.price, p.id", search, categories, number)
                .fetch_all(connection)
                .await?
        }
        Sort::PriceDown => {
            sorted!(
                "0::bigint",
                "(p.price, p.id) < ($9, $6)",
                "p.price DESC, p.id DESC",
                search,
                categories,
                number
            )
            .fetch_all(connection)
            .await?
        }
        Sort::Name => {
            let name = search.after.as_ref().map(|after| after.name.as_str());
            sorted!(
                "0::bigint",
                r#"(lower(p.name) COLLATE "C", p.id) > (lower($9), $6)"#,
                r#"lower(p.name) COLLATE "C", p.id"#,
                search,
                categories,
                name
            )
            .fetch_all(connection)
            .await?
        }
        Sort::Relevance => by_relevance(connection, search, categories, number).await?,
    };
    let page = Page::new(rows, search.limit, |row| Cursor::new(search, row));
    let (items, next_cursor) = (page.items.into_iter(), page.next_cursor);
    let items = items.map(Product::try_from).collect::<sqlx::Result<_>>()?;
    Ok(Page { items, next_cursor })
}

async fn by_relevance(
    connection: &mut PgConnection,
    search: &Search,
    categories: Option<&[String]>,
    rank: Option<i64>,
) -> sqlx::Result<Vec<Row>> {
    // An integer, so that a cursor gives back exactly the rank that it was made of.
    sorted!(
        "(1e6 * (ts_rank(p.search, websearch_to_tsquery('english', $1))
                 + extensions.word_similarity($1, p.name)))::bigint",
        "((1e6 * (ts_rank(p.search, websearch_to_tsquery('english', $1))
                  + extensions.word_similarity($1, p.name)))::bigint, p.id) < ($9, $6)",
        "(1e6 * (ts_rank(p.search, websearch_to_tsquery('english', $1))
                 + extensions.word_similarity($1, p.name)))::bigint DESC, p.id DESC",
        search,
        categories,
        rank
    )
    .fetch_all(connection)
    .await
}
