//! Imports: many products at once, identified by SKU.
//!
//! A [`File`] is cut into lines ([`lines`]; of CSV, [`records`]), each read as the JSON of a POST (CSV via
//! [`columns`]) and [`apply`]ed in batches. A batch is a transaction of a few statements whatever its size.
//! Lines count as if they were applied one after another, however they fall into batches: of two with one SKU
//! the later wins.

mod batch;
mod columns;
mod file;
mod items;
mod lines;
mod price;
mod profile;
pub mod progress;
mod records;
mod store;
mod text;

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use service::Problem;
use service::db::Connection;
use service::extract::not_null;
use service::validate::Invalid;
use utoipa::ToSchema;
use uuid::Uuid;

pub use columns::{Names, Options, is_formula};
pub use file::{File, Kind, Read};
pub use price::{Decimal, Unit};
pub use profile::Profile;
pub use store::{forget_changes, usual_currency};
pub use text::Encoding;

use batch::Batch;

use super::{Form, form, sku};
use crate::stock::MAX_DELTA;

/// Why a line was passed over.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ImportError)]
pub struct LineError {
    /// Counted from 1, in the file as it was sent: the first one of a record.
    #[schema(minimum = 1)]
    pub line: u64,
    /// What is wrong, where that is a cell or a field: the header's name of its column, or the field's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub column: Option<String>,
    pub code: String,
    pub detail: String,
    /// Of the field (RFC 6901), or empty.
    #[serde(skip)]
    pointer: String,
}

impl LineError {
    /// Of the whole line.
    pub fn new(line: u64, code: &str, detail: impl Into<String>) -> Self {
        let (column, pointer) = (None, String::new());
        Self { line, column, code: code.to_owned(), detail: detail.into(), pointer }
    }

    /// Of a field.
    pub fn at(line: u64, pointer: &str, code: &str, detail: &str) -> Self {
        let error = Self::new(line, code, format!("{pointer}: {detail}"));
        Self { pointer: pointer.to_owned(), ..error }
    }

    /// The first code, and what else is wrong. Pointers and details are short, however long a line is.
    fn of(line: u64, problem: &Problem) -> Self {
        let detail =
            problem.errors.iter().take(3).map(|error| format!("{}: {}", error.pointer, error.detail));
        let detail = detail.collect::<Vec<_>>().join(" ");
        let first = problem.errors.first();
        let error = Self::new(line, first.map_or("invalid_value", |error| &error.code), detail);
        Self { pointer: first.map_or(String::new(), |error| error.pointer.clone()), ..error }
    }

    /// The error with the name of its column.
    pub fn named(mut self, names: Option<&Names>) -> Self {
        self.column = match names {
            Some(names) => names.of(&self.pointer).map(str::to_owned),
            None => self.pointer.split('/').nth(1).map(|name| name.replace("~1", "/").replace("~0", "~")),
        };
        self
    }
}

/// A line that can't be wrong by itself.
#[derive(Clone, Debug)]
pub struct Line {
    pub number: u64,
    /// Unique among the lines that begin in the same line of the file; the first one's is that line's number.
    place: u64,
    form: Form,
    /// Of its SKU.
    key: String,
    /// What happens to the units on hand; they stay without it.
    units: Option<Units>,
    /// The line is only for a product whose stock has not changed since this entry of its ledger.
    if_version: Option<i64>,
    /// Whether the line has any; if not, a product keeps its own.
    attributes: bool,
    images: bool,
    more: More,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    Exactly(i32),
    Change(i32),
}

/// The fields of a line that a POST does not have.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct More {
    /// These make a category that does not exist yet.
    category_name: Option<String>,
    category_parent: Option<String>,
    #[serde(default, deserialize_with = "not_null")]
    stock_change: Option<i64>,
    #[serde(default, deserialize_with = "not_null")]
    stock_if_version: Option<i64>,
}

impl More {
    const FIELDS: [&str; 4] = ["category_name", "category_parent", "stock_change", "stock_if_version"];

    /// The units that are to be on hand; `stock` is the line's.
    fn units(&self, stock: Option<i32>, invalid: &mut Invalid) -> Option<Units> {
        let change = self.stock_change.and_then(|units| {
            invalid.range("/stock_change", units, -MAX_DELTA, MAX_DELTA)?;
            i32::try_from(units).ok()
        });
        if change.is_some() && stock.is_some() {
            let detail = "Either the units that are on hand, or those that come or go.";
            invalid.push("/stock_change", "invalid_value", detail);
        }
        stock.map(Units::Exactly).or(change.map(Units::Change))
    }
}

impl Line {
    /// From the body of a POST, which may also name a category to make.
    pub fn parse(number: u64, mut body: Value) -> Result<Self, LineError> {
        let refused = |problem: Problem| LineError::of(number, &problem);
        let (mut attributes, mut images, mut extra) = (false, false, serde_json::Map::new());
        if let Some(fields) = body.as_object_mut() {
            (attributes, images) = (fields.contains_key("attributes"), fields.contains_key("images"));
            extra.extend(More::FIELDS.iter().filter_map(|name| fields.remove_entry(*name)));
        }
        let more: More = service::extract::fit(extra.into()).map_err(refused)?;
        let (form, stock) = form::with_stock(body, None).map_err(refused)?;
        let mut invalid = Invalid::new();
        if let Some(name) = &more.category_name {
            invalid.text("/category_name", name.clone(), 1, 100);
        }
        let units = more.units(stock, &mut invalid);
        invalid.check().map_err(refused)?;
        let (key, if_version) = (sku::key(&form.sku), more.stock_if_version);
        Ok(Self { number, place: number, form, key, units, if_version, attributes, images, more })
    }
}

/// The outcome of a batch.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    pub created: u64,
    /// Lines for a product that was there before them.
    pub updated: u64,
    /// Those of `updated` that said nothing new.
    pub unchanged: u64,
    pub errors: Vec<LineError>,
    /// Products whose changes are announced.
    pub changed: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A concurrent transaction changed what was decided upon; roll back and try again.
    #[error("the products changed meanwhile")]
    Raced,
    #[error(transparent)]
    Database(sqlx::Error),
    /// The answer to COMMIT is lost. Orders may have come since, so writing the stock of the lines again
    /// could count sold units anew.
    #[error("whether the lines were written is not known: {0}")]
    Unsure(sqlx::Error),
}

impl ApplyError {
    pub fn at_commit(error: sqlx::Error) -> Self {
        match service::db::kind(&error) {
            service::db::Kind::OutcomeUnknown => Self::Unsure(error),
            _ => Self::Database(error),
        }
    }
}

impl From<sqlx::Error> for ApplyError {
    fn from(error: sqlx::Error) -> Self {
        match service::db::violated_constraint(&error) {
            // It existed a moment ago, and was deleted meanwhile.
            Some("products_category_fkey" | "categories_parent_fkey") => Self::Raced,
            _ => Self::Database(error),
        }
    }
}

/// The sender of an import.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    pub id: Uuid,
    /// The Idempotency-Key: with it a line's change of stock counts once.
    pub key: Option<&'a str>,
}

/// What a file's lines would have made so far, if they were applied.
#[derive(Debug, Default)]
pub struct DryRun {
    /// Of products: hashes of their keys, up to [`MOST_DRY_RUN_PRODUCTS`]. Two that share one are counted
    /// wrongly, no more.
    created: HashSet<u64>,
    /// Categories with their levels, up to [`MOST_CATEGORIES`].
    categories: HashMap<String, i32>,
}

/// New products that a dry run remembers, some 4 MiB of hashes while the set grows.
const MOST_DRY_RUN_PRODUCTS: usize = 200_000;
/// New categories that a dry run remembers.
const MOST_CATEGORIES: usize = 10_000;

/// As [`apply`] would, without a change of anything.
pub async fn dry_run(
    connection: &mut Connection,
    lines: &[Line],
    sender: Sender<'_>,
    before: &mut DryRun,
) -> Result<Applied, ApplyError> {
    // Rows are locked as in an import, and released at once.
    super::store::take_turn_to_add_many(connection).await?;
    let mut batch = Batch::find(connection, lines, sender).await?;
    batch.follow(lines, before);
    let mut applied = batch.add_all(lines);
    let again = batch.lead(before);
    applied.created -= again;
    applied.updated += again;
    Ok(applied)
}

/// Applies the lines in the order given. On an error the transaction is spent.
pub async fn apply(
    connection: &mut Connection,
    lines: &[Line],
    sender: Sender<'_>,
) -> Result<Applied, ApplyError> {
    super::store::take_turn_to_add_many(connection).await?;
    let mut batch = Batch::find(connection, lines, sender).await?;
    let mut applied = batch.add_all(lines);
    applied.changed = batch.write(connection, sender).await?;
    Ok(applied)
}

impl Line {
    fn categories(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.form.category).chain(&self.more.category_parent)
    }
}
