//! Exports of other platforms, read as they are: rows become what our own columns would have said.
//!
//! Cells without a place here are counted by the name of their column, and variants become products with a
//! `group` and their options as attributes.

mod google;
mod item;
mod magento;
mod prestashop;
mod shopify;
mod woocommerce;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use service::{FieldError, Problem};
use utoipa::ToSchema;

use super::columns::{Fault, Names, Options, malformed};
use item::{Item, LONGEST_IMAGES, Left, PAIR};

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

/// Most bytes of products that wait for other rows.
const MOST_WAITING: usize = 8 * 1024 * 1024;

const NOT_PUBLISHED: &str = "products that are not published";

/// Most names of what was left out.
const MOST_NAMES: usize = 1000;

/// Names of columns in lower case, the first that a file has counting.
type Column = &'static [&'static str];

impl Profile {
    const ALL: [Self; 5] = [Self::Shopify, Self::Woocommerce, Self::Magento, Self::Prestashop, Self::Google];

    /// The platform that has these columns.
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

/// A line of an import: where it begins, what it says, and about how many bytes it takes.
pub struct Made {
    pub line: u64,
    pub body: Result<Value, Fault>,
    pub bytes: usize,
}

/// What is common to the rows of a platform whose products have several rows.
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
        self.count_left_out(left);
        made
    }

    /// Names are the sender's: a file has some dozens.
    fn count_left_out(&mut self, left: Left) {
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

    /// The line before the first row that waits for others.
    pub fn done(&self, line: u64) -> u64 {
        let first = match &self.rows {
            Rows::Shopify(group) => group.first(),
            Rows::Magento(waiting) => waiting.first(),
            _ => None,
        };
        first.map_or(line, |first| line.min(first - 1))
    }

    /// Takes a record, and returns the products that it completes.
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
        self.count_left_out(left);
        made
    }
}

#[cfg(test)]
mod tests;
