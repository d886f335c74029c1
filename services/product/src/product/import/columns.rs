//! CSV's columns: the header names the fields, and a record becomes the JSON that NDJSON would have sent.

use std::sync::Arc;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use serde_json::{Map, Value};
use service::money::Currency;
use service::{FieldError, Problem};

use super::price::{Decimal, Refused, Unit, minor_units};
use super::profile::Profile;

/// What a column's cells are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Column {
    /// Text; an empty cell is an empty text.
    Text(&'static str),
    /// Text that need not be given; an empty cell gives none.
    Optional(&'static str),
    /// A whole number.
    Number(&'static str),
    /// In the unit that the file's options name, or money as JSON.
    Price,
    PriceMinor,
    Currency,
    /// All attributes, a JSON object.
    Attributes,
    /// One of them.
    Attribute(String),
    /// Addresses with blanks or commas between, or a JSON list.
    Images,
    /// For people.
    Remark,
}

/// Most columns of a file: each is looked up among those before it.
const MOST: usize = 1000;

const REQUIRED: [&str; 5] = ["sku", "name", "description", "price", "category"];

impl Column {
    /// By a name in any case; those of attributes keep theirs.
    fn of(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "sku" => Self::Text("sku"),
            "name" => Self::Text("name"),
            "description" => Self::Text("description"),
            "category" => Self::Text("category"),
            "category_name" => Self::Optional("category_name"),
            "category_parent" => Self::Optional("category_parent"),
            "price" => Self::Price,
            "price_minor" | "price.amount" | "price_amount" => Self::PriceMinor,
            "currency" | "price.currency" | "price_currency" => Self::Currency,
            "stock" => Self::Number("stock"),
            "stock_change" => Self::Number("stock_change"),
            "stock_if_version" => Self::Number("stock_if_version"),
            "attributes" => Self::Attributes,
            "images" => Self::Images,
            other if other.starts_with("attributes.") => {
                Self::Attribute(name["attributes.".len()..].to_owned())
            }
            other if other.starts_with('_') => Self::Remark,
            _ => return None,
        })
    }

    /// The field that the column is of.
    fn field(&self) -> &str {
        match self {
            Self::Text(name) | Self::Optional(name) | Self::Number(name) => name,
            Self::Price | Self::PriceMinor | Self::Currency => "price",
            Self::Attributes | Self::Attribute(_) => "attributes",
            Self::Images => "images",
            Self::Remark => "",
        }
    }

    /// Whether two columns can't both be there.
    fn contradicts(&self, other: &Self) -> bool {
        let price = |column: &Self| matches!(column, Self::Price | Self::PriceMinor);
        *self != Self::Remark && (self == other || (price(self) && price(other)))
    }

    /// How well the column fits the field that an error's pointer (RFC 6901) leads to; 0 for another field.
    fn rank_for(&self, pointer: &str) -> u8 {
        let mut segments = pointer.split('/').skip(1);
        let (field, within) = (segments.next().unwrap_or_default(), segments.next());
        let within = within.map(|name| name.replace("~1", "/").replace("~0", "~"));
        match (self, within.as_deref()) {
            _ if self.field() != field || field.is_empty() => 0,
            (Self::Currency, Some("currency")) => 2,
            (Self::Currency, _) => 0,
            (Self::Attribute(name), Some(within)) if name == within => 2,
            (Self::Attribute(_), _) => 0,
            _ => 1,
        }
    }
}

/// The columns with their names in the file.
pub struct Names(Vec<(Column, String)>);

impl Names {
    /// Of columns that fields were read from.
    pub fn of_fields(fields: impl Iterator<Item = (&'static str, String)>) -> Self {
        let column = |field| if field == "price" { Column::Price } else { Column::Text(field) };
        Self(fields.map(|(field, name)| (column(field), name)).collect())
    }

    /// The name of the column that an error's pointer leads to.
    pub fn of(&self, pointer: &str) -> Option<&str> {
        let ranked = self.0.iter().map(|(column, name)| (column.rank_for(pointer), name.as_str()));
        ranked.filter(|(rank, _)| *rank > 0).max_by_key(|(rank, _)| *rank).map(|(_, name)| name)
    }
}

/// How cells are read that could mean several things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub unit: Unit,
    pub decimal: Decimal,
    /// Of prices without one.
    pub currency: Option<Currency>,
    /// For prices of other platforms that name none either: the currency that the shop sells in.
    pub usual: Option<Currency>,
    /// The platform that exported it, if that is given.
    pub profile: Option<Profile>,
}

/// Reads the cells of records.
pub struct Cells {
    /// Boxed for its size.
    reader: Box<Reader>,
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Cells {
    pub fn new(delimiter: u8) -> Self {
        let reader = Box::new(ReaderBuilder::new().delimiter(delimiter).build());
        Self { reader, text: Vec::new(), ends: Vec::new() }
    }

    /// A record's cells. It is UTF-8, and its quotes are closed.
    pub fn read(&mut self, record: &[u8]) -> Option<Vec<String>> {
        self.reader.reset();
        // Unquoting never makes text longer, and each cell but one has its delimiter.
        self.text.resize(record.len() + 1, 0);
        self.ends.resize(record.len() + 2, 0);
        let (result, read, written, count) = self.reader.read_record(record, &mut self.text, &mut self.ends);
        if !matches!(result, ReadRecordResult::InputEmpty) || read < record.len() {
            return None;
        }
        // Within a quote the record's end is text, and there is space for it.
        let (result, _, _, more) =
            self.reader.read_record(b"\n", &mut self.text[written..], &mut self.ends[count..]);
        if !matches!(result, ReadRecordResult::Record) {
            return None;
        }
        let mut start = 0;
        let cells = self.ends[..count + more].iter().map(|end| {
            let cell = self.text.get(start..*end).unwrap_or_default();
            start = *end;
            String::from_utf8_lossy(cell).into_owned()
        });
        Some(cells.collect())
    }
}

/// A file's columns.
pub struct Columns {
    names: Arc<Names>,
    options: Options,
}

/// The error of a record: where (a pointer), a code and a detail.
pub type Fault = (&'static str, &'static str, String);

impl Columns {
    /// From the header's cells; 422 when they name no product's fields.
    pub fn new(names: &[String], options: Options) -> Result<Self, Problem> {
        let refuse = |name: &str, code: &str, detail: &str| {
            let name: String = name.chars().take(100).collect();
            FieldError::new(format!("/{}", name.replace('~', "~0").replace('/', "~1")), code, detail)
        };
        let (mut known, mut errors): (Vec<(Column, String)>, _) = (Vec::new(), Vec::new());
        for name in names.iter().map(|name| name.trim()) {
            match Column::of(name) {
                Some(column) if known.iter().any(|(other, _)| column.contradicts(other)) => {
                    errors.push(refuse(name, "duplicate_field", "Two columns have this name."));
                }
                Some(column) => known.push((column, name.to_owned())),
                None => errors.push(refuse(name, "unknown_field", "The header names no field of a product.")),
            }
        }
        for name in REQUIRED {
            if !known.iter().any(|(column, _)| column.field() == name) {
                errors.push(refuse(name, "missing_field", "The header lacks this field."));
            }
        }
        // A header may be as long as a record, but an answer should not.
        errors.truncate(100);
        let names = Arc::new(Names(known));
        if errors.is_empty() { Ok(Self { names, options }) } else { Err(Problem::invalid(errors)) }
    }

    /// Whether a header's names, in lower case, are those of our own fields.
    pub fn is_own(names: &[String]) -> bool {
        REQUIRED.iter().all(|field| {
            names.iter().any(|name| Column::of(name).is_some_and(|column| column.field() == *field))
        }) && names.iter().all(|name| Column::of(name).is_some())
    }

    pub fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// What prices without a currency's sign count.
    pub fn unit(&self) -> Unit {
        let minor = self.names.0.iter().any(|(column, _)| *column == Column::PriceMinor);
        if minor { Unit::Minor } else { self.options.unit }
    }

    /// A record as JSON, which is of so many lines.
    pub fn record(&self, cells: Vec<String>, lines: usize) -> Result<Value, Fault> {
        if cells.len() != self.names.0.len() {
            return Err(malformed(cells.len(), self.names.0.len(), lines));
        }
        let (mut fields, mut price, mut currency) = (Map::new(), None, None);
        let (mut attributes, mut named) = (Map::new(), false);
        let unit = self.unit();
        for ((column, _), cell) in self.names.0.iter().zip(cells) {
            match column {
                Column::Text("sku") => drop(fields.insert("sku".to_owned(), text(cell.trim()))),
                Column::Text(name) => drop(fields.insert((*name).to_owned(), text(&cell))),
                Column::Attribute(name) => {
                    named = true;
                    if !cell.is_empty() {
                        attributes.insert(name.clone(), text(&cell));
                    }
                }
                _ if cell.is_empty() => {}
                Column::Optional(name) => drop(fields.insert((*name).to_owned(), text(&cell))),
                Column::Number(name) => drop(fields.insert((*name).to_owned(), number(cell))),
                Column::Price if cell.starts_with('{') => drop(fields.insert("price".to_owned(), json(cell))),
                Column::Price | Column::PriceMinor => price = Some(cell),
                Column::Currency => currency = Some(cell),
                Column::Attributes => drop(fields.insert("attributes".to_owned(), json(cell))),
                Column::Images => drop(fields.insert("images".to_owned(), images(cell))),
                Column::Remark => {}
            }
        }
        if price.is_some() || currency.is_some() {
            let money = self.money(price, currency, unit);
            let money = money.map_err(|(code, detail)| ("/price/amount", code, detail))?;
            fields.entry("price").or_insert(Value::Object(money));
        }
        if named && let Value::Object(all) = fields.entry("attributes").or_insert_with(|| Map::new().into()) {
            all.extend(attributes);
        }
        Ok(Value::Object(fields))
    }

    /// Money as JSON. The form finds out what is missing.
    fn money(
        &self,
        price: Option<String>,
        currency: Option<String>,
        unit: Unit,
    ) -> Result<Map<String, Value>, Refused> {
        let code = currency.map(|code| code.trim().to_owned());
        let code = code.or_else(|| self.options.currency.map(|currency| currency.code().to_owned()));
        let mut money = Map::new();
        if let Some(price) = price {
            let known = code.as_deref().and_then(Currency::from_code);
            let amount = match (unit, known) {
                (Unit::Minor, _) => number(price),
                (Unit::Major, Some(currency)) => {
                    minor_units(price.trim(), currency, self.options.decimal)?.into()
                }
                // The number of decimals is not known, and the currency is refused.
                (Unit::Major, None) => 0.into(),
            };
            money.insert("amount".to_owned(), amount);
        }
        if let Some(code) = code {
            money.insert("currency".to_owned(), code.into());
        }
        Ok(money)
    }
}

/// A record whose number of cells differs from the header's.
pub fn malformed(cells: usize, wanted: usize, lines: usize) -> Fault {
    let mut detail = format!("The record has {cells} cells, and the header {wanted}.");
    if lines > 1 {
        detail.push_str(&format!(" It is of {lines} lines: see that its quotes are closed."));
    }
    ("", "malformed_csv", detail)
}

/// The header's cells; 422 when it can't be read.
pub fn header(cells: &mut Cells, record: &[u8]) -> Result<Vec<String>, Problem> {
    let names = std::str::from_utf8(record).ok().and_then(|record| cells.read(record.as_bytes()));
    let names = names.ok_or_else(unreadable)?;
    if names.len() > MOST {
        let detail = format!("At most {MOST} columns.");
        return Err(Problem::invalid(vec![FieldError::new("", "too_many", detail)]));
    }
    Ok(names)
}

/// 422: there is no header.
pub fn unreadable() -> Problem {
    let detail = "The header row can't be read.";
    Problem::invalid(vec![FieldError::new("", "malformed_csv", detail)])
}

/// Line breaks of a record: CRLF, LF or CR.
pub fn breaks(record: &[u8]) -> usize {
    let pairs = record.iter().zip(record.iter().skip(1).chain(b" "));
    pairs.filter(|(byte, next)| **byte == b'\n' || (**byte == b'\r' && **next != b'\n')).count()
}

/// Whether a spreadsheet would take the text for a formula, once the signs before it that say that it is text are off.
/// <https://owasp.org/www-community/attacks/CSV_Injection>
pub fn is_formula(text: &str) -> bool {
    text.trim_start_matches('\'').starts_with(['=', '+', '-', '@', '\t', '\r'])
}

/// A text without the sign that an export puts before a formula.
fn text(cell: &str) -> Value {
    cell.strip_prefix('\'').filter(|text| is_formula(text)).unwrap_or(cell).into()
}

/// What is not a number stays text, which the form refuses.
fn number(cell: String) -> Value {
    cell.trim().parse::<i64>().map_or_else(|_| cell.into(), Value::from)
}

fn json(cell: String) -> Value {
    serde_json::from_str(&cell).unwrap_or_else(|_| cell.into())
}

/// A list of addresses. A comma may be a part of one, but not at its end or before another.
pub fn images(cell: String) -> Value {
    if cell.starts_with('[') {
        return json(cell);
    }
    let apart =
        |text: &str| text.replace(",http", " http").replace(";http", " http").replace("|http", " http");
    let apart = apart(&cell);
    let addresses = apart.split_whitespace().map(|address| address.trim_matches([',', ';', '|']));
    addresses.filter(|address| !address.is_empty()).map(Value::from).collect()
}

#[cfg(test)]
mod tests;
