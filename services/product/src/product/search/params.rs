//! What a query string may ask.

use std::collections::BTreeMap;

use serde::Deserialize;
use service::money::Currency;
use service::page::{PageQuery, invalid_cursor};
use service::validate::Invalid;
use service::{FieldError, Problem};
use utoipa::IntoParams;

use super::place::Cursor;
use super::{Counts, Filters, Search, Sort};
use crate::product::Status;

/// The parameters of `GET /products` as they came.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// What people type, which is text: words, numbers, part of a SKU, in any script. Of all punctuation `"a phrase"`
    /// and `-without` mean something. Words that no product holds are respelt, and `did_you_mean` says so. Of a longer text
    /// the first 200 characters count.
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
    #[param(value_type = Option<Status>, inline, nullable = false, default = "published")]
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
    pub(super) page: PageQuery,
    #[serde(flatten)]
    #[param(ignore)]
    more: BTreeMap<String, String>,
}

/// Attributes that a search may filter by.
const MOST_ATTRIBUTES: usize = 10;

/// Characters of a query that are looked for.
const MOST_TYPED: usize = 200;

/// What was typed or pasted, in which nothing is an error.
fn typed(q: &str) -> String {
    let text: String = q.trim().chars().take(MOST_TYPED).collect();
    text.trim().to_owned()
}

impl Params {
    /// Whether only staff may ask for it.
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
        let q = self.q.as_deref().map(typed).filter(|q| !q.is_empty());
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
