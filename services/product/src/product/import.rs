//! Imports: many products at once, told apart by SKU.
//!
//! A [`File`] is cut into lines ([`lines`]; of CSV, [`records`]), each read as the
//! JSON of a POST (CSV via [`columns`]) and [`apply`]ed in batches, each a transaction of a few
//! statements whatever its size. Lines count as if they were applied one after
//! another, however they fall into batches: of two with one SKU the later wins.

mod columns;
mod file;
mod lines;
mod price;
mod records;
mod store;
mod text;

use std::collections::{BTreeMap, HashMap};

use messaging::NewEvent;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service::Problem;
use service::db::Connection;
use service::validate::Invalid;
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use utoipa::ToSchema;
use uuid::Uuid;

pub use columns::{Names, Options};
pub use file::{File, Kind, Read};
pub use price::{Decimal, Unit};
pub use text::Encoding;

use store::Found;

use super::{Form, form, sku, slug, updated};
use crate::stock::{self, AdjustError};

use crate::category::MOST_LEVELS;

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

    /// The error with its column's name.
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
    form: Form,
    /// Of its SKU.
    key: String,
    /// Units to be on hand; left as they are without.
    stock: Option<i32>,
    /// Whether the line says anything of them; if not, a product keeps its own.
    attributes: bool,
    images: bool,
    new_category: NewCategory,
}

/// What makes a category that there is not yet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewCategory {
    category_name: Option<String>,
    category_parent: Option<String>,
}

impl Line {
    /// From the body of a POST, which may also name a category to make.
    pub fn parse(number: u64, mut body: Value) -> Result<Self, LineError> {
        let refused = |problem: Problem| LineError::of(number, &problem);
        let (mut attributes, mut images, mut extra) = (false, false, serde_json::Map::new());
        if let Some(fields) = body.as_object_mut() {
            (attributes, images) = (fields.contains_key("attributes"), fields.contains_key("images"));
            let names = ["category_name", "category_parent"];
            extra.extend(names.iter().filter_map(|name| fields.remove_entry(*name)));
        }
        let new_category: NewCategory = service::extract::fit(extra.into()).map_err(refused)?;
        let (form, stock) = form::with_stock(body).map_err(refused)?;
        if let Some(name) = &new_category.category_name {
            let mut invalid = Invalid::new();
            invalid.text("/category_name", name.clone(), 1, 100);
            invalid.check().map_err(refused)?;
        }
        let key = sku::key(&form.sku);
        Ok(Self { number, form, key, stock, attributes, images, new_category })
    }
}

/// What came of a batch.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    pub created: u64,
    /// Lines for a product that was there before them.
    pub updated: u64,
    /// Those of `updated` that said nothing new.
    pub unchanged: u64,
    pub errors: Vec<LineError>,
    /// Products that others are to hear of.
    pub changed: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Somebody else changed what was decided upon; roll back and try again.
    #[error("the products changed meanwhile")]
    Raced,
    #[error(transparent)]
    Database(sqlx::Error),
    /// The answer to COMMIT is lost. Orders may have come since, so that writing
    /// the stock of the lines once more could count what was sold anew.
    #[error("whether the lines were written is not known: {0}")]
    Unsure(sqlx::Error),
}

impl ApplyError {
    /// An error of COMMIT. One that PostgreSQL reports of the transaction rolled it back; one
    /// that ends the connection may come after the commit as well as before.
    pub fn at_commit(error: sqlx::Error) -> Self {
        let severity = error
            .as_database_error()
            .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
            .map(PgDatabaseError::severity);
        if severity == Some(PgSeverity::Error) { Self::Database(error) } else { Self::Unsure(error) }
    }
}

impl From<sqlx::Error> for ApplyError {
    fn from(error: sqlx::Error) -> Self {
        match service::db::violated_constraint(&error) {
            // It was there a moment ago, and was deleted meanwhile.
            Some("products_category_fkey" | "categories_parent_fkey") => Self::Raced,
            _ => Self::Database(error),
        }
    }
}

/// Applies the lines in the order given. On an error the transaction is spent.
pub async fn apply(connection: &mut Connection, lines: &[Line], actor: Uuid) -> Result<Applied, ApplyError> {
    super::store::take_turn_to_add_many(connection).await?;
    let keys = lines.iter().flat_map(|line| [line.key.clone(), sku::exact_key(&line.form.sku)]);
    let there = store::lock(connection, &keys.collect::<Vec<_>>()).await?;
    let mut named: Vec<String> = lines.iter().flat_map(Line::categories).cloned().collect();
    let redirects = store::redirects(connection, &named).await?;
    named.extend(redirects.values().cloned());
    let known = store::categories(connection, &named).await?;

    let mut applied = Applied::default();
    let mut batch = Batch { there, known, redirects, made: Vec::new(), drafts: BTreeMap::new() };
    for line in lines {
        match batch.add(line) {
            Ok(Counted::Created) => applied.created += 1,
            Ok(Counted::Updated) => applied.updated += 1,
            Ok(Counted::Unchanged) => {
                applied.updated += 1;
                applied.unchanged += 1;
            }
            Err(error) => applied.errors.push(error),
        }
    }
    applied.changed = batch.write(connection, actor).await?;
    Ok(applied)
}

impl Line {
    fn categories(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.form.category).chain(&self.new_category.category_parent)
    }
}

enum Counted {
    Created,
    Updated,
    Unchanged,
}

/// A product as the batch will leave it.
struct Draft {
    id: Uuid,
    key: String,
    created: bool,
    changed: bool,
    form: Form,
    /// Units on hand, for a product that was there: as last seen, and as wanted.
    on_hand: i32,
    stock: i32,
}

impl Draft {
    /// Whether a search finds the product by the same words as before.
    fn keeps_words(&self, there: &HashMap<String, Found>) -> bool {
        there.get(&self.key).is_some_and(|Found { form, .. }| {
            (&form.name, &form.description, &form.attributes)
                == (&self.form.name, &self.form.description, &self.form.attributes)
        })
    }
}

struct Batch<'a> {
    there: HashMap<String, Found>,
    /// Categories that there are, or will be, with their levels.
    known: HashMap<String, i32>,
    /// Slugs that categories had before, and the ones that they have.
    redirects: HashMap<String, String>,
    made: Vec<store::Category<'a>>,
    /// By the keys of SKUs, so that rows are inserted in that order.
    drafts: BTreeMap<String, Draft>,
}

impl<'a> Batch<'a> {
    fn add(&mut self, line: &'a Line) -> Result<Counted, LineError> {
        let refuse =
            |pointer: &str, code: &str, detail: &str| Err(LineError::at(line.number, pointer, code, detail));
        let exact = sku::exact_key(&line.form.sku);
        let key = if self.there.contains_key(&exact) { exact } else { line.key.clone() };
        let found = self.there.get(&key);
        let before = self.drafts.get(&key).map(|draft| (&draft.form, draft.stock));
        let before = before.or_else(|| found.map(|found| (&found.form, found.on_hand)));
        if before.is_some_and(|(form, _)| form.price.currency != line.form.price.currency) {
            let detail = "A product keeps its currency; create another product.";
            return refuse("/price/currency", "currency_fixed", detail);
        }
        if let (Some(found), Some(units)) = (found, line.stock)
            && units < found.reserved
        {
            let detail = "Less would be left than is reserved for orders.";
            return refuse("/stock", "insufficient_stock", detail);
        }
        let category = self.category(line)?;

        let (mut form, mut stock) = (line.form.clone(), line.stock.unwrap_or_default());
        form.category = self.now(&form.category).to_owned();
        let counted = match before {
            None => Counted::Created,
            Some((held, units)) => {
                // However the line spells it.
                form.sku.clone_from(&held.sku);
                if !line.attributes {
                    form.attributes.clone_from(&held.attributes);
                }
                // Uploaded ones are changed where they were uploaded.
                let kept = held.images.iter().filter(|image| !line.images || crate::image::is_own(image));
                form.images = kept.cloned().chain(form.images).collect();
                if form.images.len() > crate::schema::MAX_IMAGES {
                    let detail = "Too many together with those that were uploaded.";
                    return refuse("/images", "too_many", detail);
                }
                stock = line.stock.unwrap_or(units);
                let same = form == *held && stock == units;
                if same { Counted::Unchanged } else { Counted::Updated }
            }
        };
        if let Some((category, level)) = category {
            self.known.insert(category.slug.to_owned(), level);
            self.made.push(category);
        }
        let draft = self.drafts.entry(key.clone()).or_insert_with(|| Draft {
            key,
            id: found.map_or_else(Uuid::now_v7, |found| found.id),
            created: found.is_none(),
            changed: false,
            form: form.clone(),
            on_hand: found.map_or(0, |found| found.on_hand),
            stock,
        });
        draft.changed |= !matches!(counted, Counted::Unchanged);
        (draft.form, draft.stock) = (form, stock);
        Ok(counted)
    }

    /// The slug of the category that has, or had, this one.
    fn now<'b>(&'b self, slug: &'b str) -> &'b str {
        self.redirects.get(slug).map_or(slug, String::as_str)
    }

    /// The category to make for the line and its level, if it has to be.
    fn category(&self, line: &'a Line) -> Result<Option<(store::Category<'a>, i32)>, LineError> {
        let slug = line.form.category.as_str();
        if self.known.contains_key(self.now(slug)) {
            return Ok(None);
        }
        let refuse =
            |pointer: &str, code: &str, detail: &str| Err(LineError::at(line.number, pointer, code, detail));
        let Some(name) = line.new_category.category_name.as_deref() else {
            let detail = "There is no such category; category_name would make it.";
            return refuse("/category", "unknown_category", detail);
        };
        if !(1..=64).contains(&slug.len()) || super::slug(slug) != slug {
            let detail = "1 to 64 of letters and digits in lower case, and '-' between them.";
            return refuse("/category", "invalid_value", detail);
        }
        let parent = line.new_category.category_parent.as_deref().map(|parent| self.now(parent).to_owned());
        // So a tree it stays: a parent is there before its children.
        let above = match parent.as_ref().map(|parent| self.known.get(parent)) {
            None => 0,
            Some(Some(level)) => *level,
            Some(None) => {
                return refuse("/category_parent", "unknown_category", "There is no such category.");
            }
        };
        if above >= MOST_LEVELS {
            let detail = format!("Categories have {MOST_LEVELS} levels at most.");
            return refuse("/category_parent", "too_deep", &detail);
        }
        Ok(Some((store::Category { slug, name, parent }, above + 1)))
    }

    /// Writes the drafts with their events, and returns how many changed.
    async fn write(self, connection: &mut Connection, actor: Uuid) -> Result<usize, ApplyError> {
        store::add_categories(connection, &self.made).await?;
        let (new, mut there): (Vec<&Draft>, Vec<&Draft>) =
            self.drafts.values().partition(|draft| draft.created);
        there.retain(|draft| draft.changed);

        let mut slugs: Vec<String> = new.iter().map(|draft| slug(&draft.form.name)).collect();
        let mut taken = store::slugs(connection, &slugs).await?;
        for (slug, draft) in slugs.iter_mut().zip(&new) {
            if !taken.insert(slug.clone()) {
                // As for a POST: the end of a UUIDv7 is random.
                *slug = format!("{slug}-{}", &draft.id.simple().to_string()[20..]);
            }
        }
        if store::insert(connection, &rows(&new), &slugs).await? < new.len() as u64 {
            return Err(ApplyError::Raced);
        }
        let (reworded, rest): (Vec<&Draft>, Vec<&Draft>) =
            there.iter().copied().partition(|draft| !draft.keeps_words(&self.there));
        store::update(connection, &rows(&reworded)).await?;
        store::update_all_but_words(connection, &rows(&rest)).await?;

        // Stock rows last, as orders wait for them.
        let opened: Vec<(Uuid, i32)> = new.iter().map(|draft| (draft.id, draft.stock)).collect();
        stock::open(connection, &opened).await?;
        let set = there.iter().filter(|draft| draft.stock != draft.on_hand);
        let set: BTreeMap<Uuid, i32> = set.map(|draft| (draft.id, draft.stock)).collect();
        stock::set(connection, &set, "import", actor).await.map_err(|error| match error {
            AdjustError::Database(error) => ApplyError::Database(error),
            AdjustError::Insufficient | AdjustError::TooMuch => ApplyError::Raced,
        })?;

        let ids: Vec<Uuid> = new.iter().chain(&there).map(|draft| draft.id).collect();
        let products = super::store::by_ids(connection, &ids).await?;
        let events: Vec<NewEvent> = products.iter().map(updated).collect();
        messaging::outbox::enqueue(connection, &events).await?;
        Ok(events.len())
    }
}

fn rows<'a>(drafts: &[&'a Draft]) -> store::Rows<'a> {
    store::Rows::new(drafts.iter().map(|draft| (draft.id, &draft.form)))
}
