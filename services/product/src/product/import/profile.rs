//! Other platforms' own exports, read as they are: rows become what our own columns would have said.
//!
//! What has no place here is counted by the name of its column, and variants become products with a `group` and their
//! options as attributes.

mod google;
mod magento;
mod prestashop;
mod shopify;
mod woocommerce;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use service::money::Currency;
use service::{FieldError, Problem};
use utoipa::ToSchema;

use super::columns::{Fault, Names, Options, images, malformed};
use super::price::minor_units;
use crate::product::slug;
use crate::schema::{MAX_ATTRIBUTES, MAX_IMAGES};

/// Who has written a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    Shopify,
    Woocommerce,
    Magento,
    Prestashop,
    /// A feed for Google Merchant Center.
    Google,
}

/// Most of the addresses of a product's images together, in characters.
const LONGEST_IMAGES: usize = 20_000;

/// Most bytes of products that wait for other rows.
const MOST_WAITING: usize = 8 * 1024 * 1024;

/// Bytes of two texts without their characters.
const PAIR: usize = size_of::<(String, String)>();

const NOT_PUBLISHED: &str = "products that are not published";

/// Most names of what was left out.
const MOST_NAMES: usize = 1000;

/// Names of columns in lower case, the first that a file has counting.
type Column = &'static [&'static str];

impl Profile {
    const ALL: [Self; 5] = [Self::Shopify, Self::Woocommerce, Self::Magento, Self::Prestashop, Self::Google];

    /// The one that these columns are of.
    pub fn of(names: &[String]) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.lacks(names).is_empty())
    }

    /// Columns that tell the platform from others.
    fn marks(self) -> &'static [Column] {
        match self {
            Self::Shopify => shopify::MARKS,
            Self::Woocommerce => woocommerce::MARKS,
            Self::Magento => magento::MARKS,
            Self::Prestashop => prestashop::MARKS,
            Self::Google => google::MARKS,
        }
    }

    /// Where our fields come from.
    fn fields(self) -> &'static [(&'static str, Column)] {
        match self {
            Self::Shopify => shopify::FIELDS,
            Self::Woocommerce => woocommerce::FIELDS,
            Self::Magento => magento::FIELDS,
            Self::Prestashop => prestashop::FIELDS,
            Self::Google => google::FIELDS,
        }
    }

    /// Between the levels of a category.
    fn separators(self) -> &'static [char] {
        match self {
            Self::Magento | Self::Prestashop => &['/', '>'],
            Self::Shopify | Self::Woocommerce | Self::Google => &['>'],
        }
    }

    fn lacks(self, names: &[String]) -> Vec<&'static str> {
        let has = |column: &&Column| column.iter().any(|name| names.iter().any(|other| other == name));
        self.marks().iter().filter(|column| !has(column)).map(|column| column[0]).collect()
    }
}

/// A record by the names of its columns.
pub struct Row<'a> {
    line: u64,
    names: &'a HashMap<String, usize>,
    cells: Vec<String>,
    taken: Vec<bool>,
}

impl Row<'_> {
    /// A cell without blanks around it, empty if there is none of these columns.
    fn take(&mut self, column: Column) -> String {
        let Some(place) = column.iter().find_map(|name| self.names.get(*name)) else { return String::new() };
        self.taken[*place] = true;
        self.cells[*place].trim().to_owned()
    }

    fn take_named(&mut self, name: &str) -> String {
        let Some(place) = self.names.get(name) else { return String::new() };
        self.taken[*place] = true;
        self.cells[*place].trim().to_owned()
    }
}

/// A product as it was read.
#[derive(Clone, Debug, Default)]
struct Item {
    line: u64,
    sku: String,
    name: String,
    description: String,
    price: String,
    currency: String,
    category: String,
    stock: String,
    images: String,
    attributes: Vec<(String, String)>,
}

/// A line of an import: where it begins, what it says, and about how many bytes it takes.
pub struct Made {
    pub line: u64,
    pub body: Result<Value, Fault>,
    pub bytes: usize,
}

/// What a platform's rows have in common that are of several rows.
enum Rows {
    Shopify(Box<shopify::Group>),
    Woocommerce(woocommerce::Parents),
    Magento(magento::Waiting),
    Prestashop,
    Google,
}

pub struct Reader {
    profile: Profile,
    options: Options,
    columns: Vec<String>,
    by_name: HashMap<String, usize>,
    names: Arc<Names>,
    rows: Rows,
    /// Cells that have no place here, by their column.
    left_out: BTreeMap<String, u64>,
}

impl Reader {
    /// 422 when the header is not the profile's.
    pub fn new(profile: Profile, header: &[String], options: Options) -> Result<Self, Problem> {
        let lower: Vec<String> = header.iter().map(|name| name.trim().to_lowercase()).collect();
        let lacks = profile.lacks(&lower);
        if !lacks.is_empty() {
            let refuse = |name: &&str| {
                FieldError::new(format!("/{name}"), "missing_field", "The platform's files have this column.")
            };
            return Err(Problem::invalid(lacks.iter().map(refuse).collect()));
        }
        let mut by_name = HashMap::new();
        for (place, name) in lower.into_iter().enumerate() {
            by_name.entry(name).or_insert(place);
        }
        let named = profile.fields().iter().filter_map(|(field, column)| {
            let place = column.iter().find_map(|name| by_name.get(*name))?;
            Some((*field, header[*place].trim().to_owned()))
        });
        let names = Arc::new(Names::of_fields(named));
        let rows = match profile {
            Profile::Shopify => Rows::Shopify(Box::default()),
            Profile::Woocommerce => Rows::Woocommerce(woocommerce::Parents::default()),
            Profile::Magento => Rows::Magento(magento::Waiting::default()),
            Profile::Prestashop => Rows::Prestashop,
            Profile::Google => Rows::Google,
        };
        let columns = header.iter().map(|name| name.trim().to_owned()).collect();
        Ok(Self { profile, options, columns, by_name, names, rows, left_out: BTreeMap::new() })
    }

    /// For a feed in XML, whose items name their fields themselves.
    pub fn of_feed(options: Options) -> Self {
        let named = google::FIELDS.iter().map(|(field, column)| (*field, column[0].to_owned()));
        let (names, rows) = (Arc::new(Names::of_fields(named)), Rows::Google);
        let (columns, by_name, left_out) = (Vec::new(), HashMap::new(), BTreeMap::new());
        Self { profile: Profile::Google, options, columns, by_name, names, rows, left_out }
    }

    /// An item of a feed, by the names of its fields.
    pub fn item(&mut self, line: u64, fields: Vec<(String, String)>) -> Made {
        let (names, cells): (Vec<String>, Vec<String>) = fields.into_iter().unzip();
        let by_name = names.iter().enumerate().map(|(place, name)| (name.to_lowercase(), place)).collect();
        let taken = vec![false; cells.len()];
        let mut row = Row { line, names: &by_name, cells, taken };
        let mut left = Left::default();
        let made = google::row(&mut row).made(self.options, Profile::Google.separators(), &mut left);
        let others = names.iter().zip(&row.cells).zip(&row.taken);
        let others = others.filter(|((_, cell), taken)| !**taken && !cell.is_empty());
        others.for_each(|((name, _), _)| left.out(name.as_str()));
        self.note(left);
        made
    }

    /// Names are the sender's: a file has some dozens.
    fn note(&mut self, left: Left) {
        for (name, count) in left.0 {
            if self.left_out.len() < MOST_NAMES || self.left_out.contains_key(&name) {
                *self.left_out.entry(name).or_default() += count;
            }
        }
    }

    pub fn profile(&self) -> Profile {
        self.profile
    }

    pub fn names(&self) -> &Arc<Names> {
        &self.names
    }

    pub fn left_out(&self) -> &BTreeMap<String, u64> {
        &self.left_out
    }

    /// The line before the first one that waits for others.
    pub fn done(&self, line: u64) -> u64 {
        let first = match &self.rows {
            Rows::Shopify(group) => group.first(),
            Rows::Magento(waiting) => waiting.first(),
            _ => None,
        };
        first.map_or(line, |first| line.min(first - 1))
    }

    /// Takes a record, and returns the products that are complete with it.
    pub fn record(&mut self, line: u64, cells: Vec<String>) -> Vec<Made> {
        if cells.len() != self.columns.len() {
            let body = Err(malformed(cells.len(), self.columns.len(), 1));
            return vec![Made { line, body, bytes: 0 }];
        }
        let taken = vec![false; cells.len()];
        let mut row = Row { line, names: &self.by_name, cells, taken };
        let mut left = Left::default();
        let items = match &mut self.rows {
            Rows::Shopify(group) => group.row(&mut row, &mut left),
            Rows::Woocommerce(parents) => parents.row(&mut row, &mut left),
            Rows::Magento(waiting) => waiting.row(&mut row, &mut left),
            Rows::Prestashop => prestashop::row(&mut row, &mut left),
            Rows::Google => vec![google::row(&mut row)],
        };
        let Row { cells, taken, .. } = row;
        for ((name, cell), taken) in self.columns.iter().zip(&cells).zip(taken) {
            if !taken && !cell.trim().is_empty() && !name.starts_with('_') {
                left.out(name.as_str());
            }
        }
        self.make(items, left)
    }

    /// The products that were waiting for more rows.
    pub fn end(&mut self) -> Vec<Made> {
        let mut left = Left::default();
        let items = match &mut self.rows {
            Rows::Shopify(group) => group.end(&mut left),
            Rows::Magento(waiting) => {
                waiting.end(&mut left);
                Vec::new()
            }
            _ => Vec::new(),
        };
        self.make(items, left)
    }

    fn make(&mut self, items: Vec<Item>, mut left: Left) -> Vec<Made> {
        let make = |item: Item| item.made(self.options, self.profile.separators(), &mut left);
        let made = items.into_iter().map(make).collect();
        self.note(left);
        made
    }
}

/// What was left out of products: how often, by the first 100 characters of its name.
#[derive(Default)]
struct Left(BTreeMap<String, u64>);

impl Left {
    fn out(&mut self, what: impl AsRef<str>) {
        *self.0.entry(what.as_ref().chars().take(100).collect()).or_default() += 1;
    }
}

/// A text that fits our limit; the rest is left out.
fn cut(text: String, most: usize, what: &str, left: &mut Left) -> String {
    match text.char_indices().nth(most) {
        None => text,
        Some((end, _)) => {
            left.out(format!("{what} beyond {most} characters"));
            text[..end].trim_end().to_owned()
        }
    }
}

impl Item {
    /// Leaves out what our limits have no room for, before it waits for other rows.
    fn fit(mut self, left: &mut Left) -> Self {
        self.name = cut(self.name, 200, "names", left);
        self.description = cut(self.description, 5000, "descriptions", left);
        let all = self.attributes.len();
        let fits =
            |(name, value): &(String, String)| name.chars().count() <= 64 && value.chars().count() <= 200;
        self.attributes.retain(fits);
        self.attributes.truncate(MAX_ATTRIBUTES);
        (self.attributes.len()..all).for_each(|_| left.out("attributes that are too long or too many"));
        self.images = cut(self.images, LONGEST_IMAGES, "images", left);
        self
    }

    /// Bytes that it takes.
    fn weight(&self) -> usize {
        let attributes = self.attributes.iter().map(|(name, value)| PAIR + name.len() + value.len());
        let texts = [&self.sku, &self.name, &self.description, &self.price, &self.category, &self.images];
        let texts = texts.into_iter().chain([&self.currency, &self.stock]).map(String::len);
        size_of::<Self>() + texts.chain(attributes).sum::<usize>()
    }

    fn attribute(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        if !name.is_empty() && !value.is_empty() {
            self.attributes.push((name, value));
        }
    }

    /// As a line of JSON; what our limits leave no room for is left out.
    fn made(self, options: Options, separators: &[char], left: &mut Left) -> Made {
        let item = self.fit(left);
        Made { line: item.line, bytes: item.weight(), body: item.json(options, separators, left) }
    }

    fn json(self, options: Options, separators: &[char], left: &mut Left) -> Result<Value, Fault> {
        let mut attributes = Map::new();
        for (name, value) in self.attributes {
            if attributes.len() >= MAX_ATTRIBUTES {
                left.out("attributes that are too long or too many");
            } else {
                attributes.insert(name, value.into());
            }
        }
        let (category, category_name) = category(&self.category, separators, left);
        let mut fields = json!({"sku": self.sku, "name": self.name, "description": self.description,
            "category": category, "category_name": category_name, "attributes": attributes});
        let code = if self.currency.is_empty() {
            options.currency.or(options.usual).map(|currency| currency.code().to_owned())
        } else {
            Some(self.currency)
        };
        if !self.price.is_empty() {
            let amount = match code.as_deref().and_then(Currency::from_code) {
                Some(currency) => minor_units(&self.price, currency, options.decimal)
                    .map_err(|(code, detail)| ("/price/amount", code, detail))?,
                None => 0,
            };
            fields["price"] = json!({ "amount": amount });
            if let Some(code) = code {
                fields["price"]["currency"] = code.into();
            } else {
                let detail = "The file names no currency: add one to the address, such as ?currency=EUR.";
                return Err(("/price/currency", "missing_field", detail.to_owned()));
            }
        }
        if let Some(stock) = whole_number(&self.stock) {
            fields["stock"] = stock;
        }
        let Value::Array(mut addresses) = images(self.images) else { return Ok(fields) };
        let before = addresses.len();
        addresses.retain(|address| address.as_str().is_some_and(|address| address.starts_with("http")));
        addresses.truncate(MAX_IMAGES);
        (addresses.len()..before).for_each(|_| left.out("images"));
        if !addresses.is_empty() {
            fields["images"] = addresses.into();
        }
        Ok(fields)
    }
}

/// `100.0000` is 100, and what was sold without being there is nothing.
fn whole_number(text: &str) -> Option<Value> {
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if zeros.bytes().all(|byte| byte == b'0') => whole,
        _ => text,
    };
    match whole.parse::<i64>() {
        Ok(number) => Some(number.max(0).into()),
        Err(_) if text.is_empty() => None,
        Err(_) => Some(text.into()),
    }
}

/// The slug and the name of the last of some levels; those above it have no place.
fn category(path: &str, separators: &[char], left: &mut Left) -> (String, String) {
    let mut levels = path.split(separators).map(str::trim).filter(|level| !level.is_empty());
    let name = levels.next_back().unwrap_or("Other");
    levels.for_each(|_| left.out("levels above a category"));
    let name: String = name.chars().take(100).collect();
    let mut slug = slug(&name);
    while slug.len() > 64 || slug.ends_with('-') {
        slug.pop();
    }
    (slug, name)
}

#[cfg(test)]
mod tests;
