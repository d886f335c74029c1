//! CSV (RFC 4180): the header names the fields, and a record becomes the JSON
//! that NDJSON would have sent.
//!
//! A record is one line. RFC 4180 lets quoted cells hold line breaks, but no
//! field of a product may, so an open quote ends with its line and takes no
//! other with it.

use csv_core::{ReadRecordResult, Reader};
use serde_json::{Map, Value};
use service::{FieldError, Problem};

/// What a column's cells are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Column {
    /// Text; an empty cell is an empty text.
    Text(&'static str),
    /// Text that need not be given; an empty cell gives none.
    Optional(&'static str),
    Stock,
    /// Minor units, or money as JSON.
    Price,
    Amount,
    Currency,
    /// All attributes, a JSON object.
    Attributes,
    /// One of them.
    Attribute(String),
    /// Addresses with spaces between, or a JSON list.
    Images,
}

/// Most columns of a file: each is looked up among those before it.
const MOST: usize = 1000;

const REQUIRED: [&str; 5] = ["sku", "name", "description", "price", "category"];

impl Column {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "sku" => Self::Text("sku"),
            "name" => Self::Text("name"),
            "description" => Self::Text("description"),
            "category" => Self::Text("category"),
            "category_name" => Self::Optional("category_name"),
            "category_parent" => Self::Optional("category_parent"),
            "price" => Self::Price,
            "price.amount" | "price_amount" => Self::Amount,
            "currency" | "price.currency" | "price_currency" => Self::Currency,
            "stock" => Self::Stock,
            "attributes" => Self::Attributes,
            "images" => Self::Images,
            _ => Self::Attribute(name.strip_prefix("attributes.")?.to_owned()),
        })
    }

    /// The field that the column is of.
    fn field(&self) -> &str {
        match self {
            Self::Text(name) | Self::Optional(name) => name,
            Self::Stock => "stock",
            Self::Price | Self::Amount | Self::Currency => "price",
            Self::Attributes | Self::Attribute(_) => "attributes",
            Self::Images => "images",
        }
    }
}

/// A file's columns, and what its lines are read with.
pub struct Columns {
    columns: Vec<Column>,
    /// Boxed for its size.
    reader: Box<Reader>,
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Columns {
    /// From the first line; 422 when it names no product's fields.
    pub fn parse(header: &[u8]) -> Result<Self, Problem> {
        let reader = Box::new(Reader::new());
        let mut columns = Self { columns: Vec::new(), reader, text: Vec::new(), ends: Vec::new() };
        let refuse = |name: &str, code: &str, detail: &str| {
            let name: String = name.chars().take(100).collect();
            FieldError::new(format!("/{}", name.replace('~', "~0").replace('/', "~1")), code, detail)
        };
        let names = std::str::from_utf8(header).ok().and_then(|header| columns.cells(header.as_bytes()));
        let Some(names) = names else {
            let detail = "The header row can't be read.";
            return Err(Problem::invalid(vec![FieldError::new("", "malformed_csv", detail)]));
        };
        if names.len() > MOST {
            let detail = format!("At most {MOST} columns.");
            return Err(Problem::invalid(vec![FieldError::new("", "too_many", detail)]));
        }
        let mut errors = Vec::new();
        for name in names.iter().map(|name| name.trim()) {
            match Column::of(name) {
                Some(column) if columns.columns.contains(&column) => {
                    errors.push(refuse(name, "duplicate_field", "Two columns have this name."));
                }
                Some(column) => columns.columns.push(column),
                None => errors.push(refuse(name, "unknown_field", "The header names no field of a product.")),
            }
        }
        for name in REQUIRED {
            if !columns.columns.iter().any(|column| column.field() == name) {
                errors.push(refuse(name, "missing_field", "The header lacks this field."));
            }
        }
        // A header may be as long as a line, and an answer need not.
        errors.truncate(100);
        if errors.is_empty() { Ok(columns) } else { Err(Problem::invalid(errors)) }
    }

    /// A record as JSON. `Err` says what is wrong with it. The line is UTF-8.
    pub fn record(&mut self, line: &[u8]) -> Result<Value, &'static str> {
        let cells = self.cells(line).ok_or("A quote is open at the end of the line.")?;
        if cells.len() != self.columns.len() {
            return Err("The line has more or fewer cells than the header.");
        }
        let (mut fields, mut price) = (Map::new(), Map::new());
        let (mut attributes, mut named) = (Map::new(), false);
        for (column, cell) in self.columns.iter().zip(cells) {
            match column {
                Column::Text(name) => drop(fields.insert((*name).to_owned(), cell.into())),
                Column::Attribute(name) => {
                    named = true;
                    if !cell.is_empty() {
                        attributes.insert(name.clone(), cell.into());
                    }
                }
                _ if cell.is_empty() => {}
                Column::Optional(name) => drop(fields.insert((*name).to_owned(), cell.into())),
                Column::Stock => drop(fields.insert("stock".to_owned(), number(cell))),
                Column::Price if cell.starts_with('{') => {
                    fields.insert("price".to_owned(), json(cell));
                }
                Column::Price | Column::Amount => drop(price.insert("amount".to_owned(), number(cell))),
                Column::Currency => drop(price.insert("currency".to_owned(), cell.into())),
                Column::Attributes => drop(fields.insert("attributes".to_owned(), json(cell))),
                Column::Images if cell.starts_with('[') => {
                    fields.insert("images".to_owned(), json(cell));
                }
                Column::Images => {
                    let addresses = cell.split_whitespace().map(Value::from).collect();
                    fields.insert("images".to_owned(), Value::Array(addresses));
                }
            }
        }
        if !price.is_empty() {
            fields.entry("price").or_insert(Value::Object(price));
        }
        if named && let Value::Object(all) = fields.entry("attributes").or_insert_with(|| Map::new().into()) {
            all.extend(attributes);
        }
        Ok(Value::Object(fields))
    }

    /// The line's cells; `None` when a quote stays open.
    fn cells(&mut self, line: &[u8]) -> Option<Vec<String>> {
        self.reader.reset();
        // Unquoting never makes text longer, and each cell but one has its comma.
        self.text.resize(line.len() + 1, 0);
        self.ends.resize(line.len() + 2, 0);
        let (result, read, written, count) = self.reader.read_record(line, &mut self.text, &mut self.ends);
        if !matches!(result, ReadRecordResult::InputEmpty) || read < line.len() {
            return None; // a carriage return within the line
        }
        // Within a quote the line's end is text, for which there is room.
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

/// What is no number stays text, for the form to refuse.
fn number(cell: String) -> Value {
    cell.trim().parse::<i64>().map_or_else(|_| cell.into(), Value::from)
}

fn json(cell: String) -> Value {
    serde_json::from_str(&cell).unwrap_or_else(|_| cell.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_what_json_would_have_said() {
        let header =
            b"sku,name,description,price,currency,category,stock,attributes.color,attributes.size,images";
        let mut columns = Columns::parse(header).unwrap();
        let line = r#"A-1,"Lamp, ""big""",,1999,EUR,sea,7,red,,https://a.example/1 https://a.example/2"#;
        assert_eq!(
            columns.record(line.as_bytes()).unwrap(),
            json!({"sku": "A-1", "name": "Lamp, \"big\"", "description": "", "category": "sea", "stock": 7,
                "price": {"amount": 1999, "currency": "EUR"}, "attributes": {"color": "red"},
                "images": ["https://a.example/1", "https://a.example/2"]})
        );
        let bare = columns.record("B,Größe,d,x,EUR,sea,,,,".as_bytes()).unwrap();
        assert_eq!(bare["price"]["amount"], "x");
        assert_eq!((bare.get("stock"), bare.get("images"), &bare["name"]), (None, None, &json!("Größe")));
    }

    #[test]
    fn columns_may_hold_json() {
        let mut columns = Columns::parse(b"sku,name,description,price,category,attributes,images").unwrap();
        let line =
            r#"A,n,d,"{""amount"":1,""currency"":""EUR""}",sea,"{""a"":""b""}","[""https://a.example/1""]""#;
        let record = columns.record(line.as_bytes()).unwrap();
        assert_eq!(record["price"], json!({"amount": 1, "currency": "EUR"}));
        assert_eq!(record["attributes"], json!({"a": "b"}));
        assert_eq!(record["images"], json!(["https://a.example/1"]));
    }

    #[test]
    fn an_open_quote_ends_with_its_line() {
        let mut columns = Columns::parse(b"sku,name,description,price,category").unwrap();
        for bad in ["A,\"n,d,1,sea", "\"", "A,n,d,1", "A,n,d,1,sea,more", "A,n\rB,n,d,1,sea"] {
            assert!(columns.record(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(columns.record(b"A,n,d,1,sea").is_ok());
        assert!(columns.record(b"A,n,d,1,\"sea\"").is_ok());
    }

    #[test]
    fn a_header_that_names_no_product_is_refused() {
        let codes = |header: &[u8]| -> Vec<(String, String)> {
            let problem = Columns::parse(header).err().unwrap();
            problem.errors.into_iter().map(|error| (error.pointer, error.code)).collect()
        };
        let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(pointer, code)| ((*pointer).to_owned(), (*code).to_owned())).collect()
        };
        assert_eq!(codes(b"sku,name,description,price"), own(&[("/category", "missing_field")]));
        assert_eq!(
            codes(b"sku,sku,role,name,description,price,category"),
            own(&[("/sku", "duplicate_field"), ("/role", "unknown_field")])
        );
        let wide = |columns: usize| (0..columns).map(|n| format!(",attributes.a{n}")).collect::<String>();
        let header = |columns| format!("sku,name,description,price,category{}", wide(columns));
        assert_eq!(codes(header(MOST - 4).as_bytes()), own(&[("", "too_many")]));
        assert!(Columns::parse(header(MOST - 5).as_bytes()).is_ok());
        assert_eq!(codes(b"\"sku"), own(&[("", "malformed_csv")]));
        assert_eq!(codes(b"sk\xFF"), own(&[("", "malformed_csv")]));
    }
}
