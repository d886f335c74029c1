//! The catalogue as a file. An import takes it as it is, and finds nothing new in it.

pub mod store;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::json;
use service::Money;
use utoipa::ToSchema;
use uuid::Uuid;

use super::import::is_formula;

/// What a file is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    #[default]
    Csv,
    Ndjson,
    /// A product feed for Google Merchant Center: RSS 2.0.
    Google,
}

/// A product with all that a line of an import may contain.
pub struct Row {
    pub id: Uuid,
    sku: String,
    slug: String,
    name: String,
    description: String,
    price: Money,
    category: String,
    category_name: String,
    category_parent: Option<String>,
    attributes: BTreeMap<String, String>,
    images: Vec<String>,
    on_hand: i32,
    reserved: i32,
    /// The last entry of the ledger of its stock, 0 without any.
    stock_version: i64,
}

impl Format {
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Ndjson => "application/x-ndjson",
            Self::Google => "application/rss+xml; charset=utf-8",
        }
    }

    pub fn file_name(self) -> &'static str {
        match self {
            Self::Csv => "products.csv",
            Self::Ndjson => "products.ndjson",
            Self::Google => "products.xml",
        }
    }

    /// The text before the first product.
    pub fn head(self) -> &'static str {
        match self {
            Self::Csv => {
                "sku,name,description,price,currency,category,category_name,category_parent,stock,\
                 stock_if_version,images,attributes\r\n"
            }
            Self::Ndjson => "",
            Self::Google => {
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                 <rss version=\"2.0\" xmlns:g=\"http://base.google.com/ns/1.0\">\n<channel>\n\
                 <title>Products</title>\n<description>The catalogue</description>\n"
            }
        }
    }

    /// The text after the last one.
    pub fn tail(self) -> &'static str {
        if self == Self::Google { "</channel>\n</rss>\n" } else { "" }
    }

    /// Appends a product. `link` is what a feed's addresses of products begin with.
    pub fn write(self, row: &Row, link: &str, text: &mut String) {
        match self {
            Self::Csv => csv(row, text),
            Self::Ndjson => {
                let Row { sku, name, description, price, category, attributes, images, .. } = row;
                let mut line = json!({"sku": sku, "name": name, "description": description, "price": price,
                    "category": category, "category_name": row.category_name, "attributes": attributes,
                    "images": images, "stock": row.on_hand, "stock_if_version": row.stock_version});
                if let Some(parent) = &row.category_parent {
                    line["category_parent"] = json!(parent);
                }
                text.push_str(&line.to_string());
                text.push('\n');
            }
            Self::Google => google(row, link, text),
        }
    }
}

fn csv(row: &Row, text: &mut String) {
    let attributes = json!(row.attributes).to_string();
    let (major, currency) = major(row.price);
    let (stock, version) = (row.on_hand.to_string(), row.stock_version.to_string());
    // As JSON: an address may contain the character at which a cell of addresses is split.
    let images = if row.images.is_empty() { String::new() } else { json!(row.images).to_string() };
    let (sku, name, description) = (as_text(&row.sku), as_text(&row.name), as_text(&row.description));
    let category_name = as_text(&row.category_name);
    let cells: [&str; 12] = [
        &sku,
        &name,
        &description,
        &major,
        &currency,
        &row.category,
        &category_name,
        row.category_parent.as_deref().unwrap_or_default(),
        &stock,
        &version,
        &images,
        &attributes,
    ];
    for (n, cell) in cells.into_iter().enumerate() {
        if n > 0 {
            text.push(',');
        }
        // Blanks at the ends as well, as some programs remove them from cells without quotes.
        let plain = cell.trim() == cell && !cell.contains([',', '"', '\n', '\r', ';', '\t']);
        if plain {
            text.push_str(cell);
        } else {
            text.push('"');
            text.push_str(&cell.replace('"', "\"\""));
            text.push('"');
        }
    }
    text.push_str("\r\n");
}

/// A cell that no spreadsheet takes for a formula; an import removes the sign again.
fn as_text(cell: &str) -> Cow<'_, str> {
    if is_formula(cell) { format!("'{cell}").into() } else { cell.into() }
}

/// `19.99` and `EUR`.
fn major(price: Money) -> (String, String) {
    let text = price.to_string();
    let (major, currency) = text.split_once(' ').unwrap_or((&text, ""));
    (major.to_owned(), currency.to_owned())
}

/// <https://support.google.com/merchants/answer/7052112>
fn google(row: &Row, link: &str, text: &mut String) {
    let element = |text: &mut String, name: &str, value: &str| {
        // XML has no way to write these two (https://www.w3.org/TR/xml/#charsets); control characters no text has.
        let value = value.replace(['\u{FFFE}', '\u{FFFF}'], "");
        let value = value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        // Writing into a String does not fail.
        let _ = writeln!(text, "<{name}>{value}</{name}>");
    };
    let origin = link.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    let absolute = |image: &String| {
        if image.starts_with('/') { format!("{origin}{image}") } else { image.clone() }
    };
    text.push_str("<item>\n");
    element(text, "g:id", &row.sku);
    element(text, "g:title", &row.name);
    element(text, "g:description", if row.description.is_empty() { &row.name } else { &row.description });
    element(text, "g:link", &format!("{link}{}", row.slug));
    let mut images = row.images.iter().map(absolute);
    if let Some(first) = images.next() {
        element(text, "g:image_link", &first);
    }
    images.take(10).for_each(|image| element(text, "g:additional_image_link", &image));
    let available = if row.on_hand > row.reserved { "in_stock" } else { "out_of_stock" };
    element(text, "g:availability", available);
    element(text, "g:price", &row.price.to_string());
    element(text, "g:condition", "new");
    element(text, "g:product_type", &row.category_name);
    for (attribute, name) in [
        ("brand", "g:brand"),
        ("gtin", "g:gtin"),
        ("mpn", "g:mpn"),
        ("group", "g:item_group_id"),
        ("color", "g:color"),
        ("size", "g:size"),
        ("material", "g:material"),
    ] {
        if let Some(value) = row.attributes.get(attribute) {
            element(text, name, value);
        }
    }
    text.push_str("</item>\n");
}

#[cfg(test)]
mod tests {
    use service::money::Currency;

    use super::*;

    fn row() -> Row {
        Row {
            id: Uuid::nil(),
            sku: "A;1".to_owned(),
            slug: "lamp".to_owned(),
            name: " Lamp <\"big\"> & Co".to_owned(),
            description: "a,\n\"b\"".to_owned(),
            price: Money::new(3400, Currency::EUR),
            category: "sea".to_owned(),
            category_name: "Sea".to_owned(),
            category_parent: None,
            attributes: BTreeMap::from([("color".to_owned(), "red".to_owned())]),
            images: vec!["/api/v1/products/x/images/0".to_owned(), "https://a.example/1.jpg".to_owned()],
            on_hand: 3,
            reserved: 3,
            stock_version: 7,
        }
    }

    #[test]
    fn a_record_keeps_what_would_end_a_cell() {
        let mut text = String::new();
        Format::Csv.write(&row(), "", &mut text);
        assert_eq!(
            text,
            "\"A;1\",\" Lamp <\"\"big\"\"> & Co\",\"a,\n\"\"b\"\"\",34.00,EUR,sea,Sea,,3,7,\
             \"[\"\"/api/v1/products/x/images/0\"\",\"\"https://a.example/1.jpg\"\"]\",\"{\"\"color\"\":\"\"red\"\"}\"\r\n"
        );
    }

    #[test]
    fn no_text_in_a_record_is_a_formula() {
        for (name, cell) in
            [("=1+1", "'=1+1"), ("@a", "'@a"), ("'-1", "''-1"), ("'n", "'n"), ("a=1", "a=1"), ("+", "'+")]
        {
            let mut text = String::new();
            let named = Row { name: name.to_owned(), category_name: name.to_owned(), ..row() };
            Format::Csv.write(&Row { sku: "-1".to_owned(), ..named }, "", &mut text);
            assert!(text.starts_with(&format!("'-1,{cell},")), "{text}");
            assert!(text.contains(&format!(",sea,{cell},,3,7,")), "{text}");
        }
    }

    #[test]
    fn a_feed_has_no_character_that_is_none_of_xml() {
        let mut text = String::new();
        let name = "La\u{FFFE}mp\u{FFFF} \u{FFFD}".to_owned();
        let attributes = BTreeMap::from([("color".to_owned(), "\u{FFFF}red".to_owned())]);
        Format::Google.write(&Row { name, attributes, ..row() }, "https://shop.example/p/", &mut text);
        assert!(text.contains("<g:title>Lamp \u{FFFD}</g:title>"), "{text}");
        assert!(text.contains("<g:color>red</g:color>"), "{text}");
    }

    #[test]
    fn a_feed_is_well_formed_and_has_whole_addresses() {
        let mut text = String::new();
        Format::Google.write(&row(), "https://shop.example/p/", &mut text);
        for line in [
            "<g:title> Lamp &lt;\"big\"&gt; &amp; Co</g:title>",
            "<g:link>https://shop.example/p/lamp</g:link>",
            "<g:image_link>https://shop.example/api/v1/products/x/images/0</g:image_link>",
            "<g:additional_image_link>https://a.example/1.jpg</g:additional_image_link>",
            "<g:price>34.00 EUR</g:price>",
            "<g:availability>out_of_stock</g:availability>",
            "<g:color>red</g:color>",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
