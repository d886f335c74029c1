//! WooCommerce's products: a variable product comes before its variations, which name it.
//! <https://github.com/woocommerce/woocommerce/wiki/Product-CSV-Import-Schema>

use std::collections::HashMap;
use std::sync::Arc;

use super::{Column, Item, Left, MOST_WAITING, Row};

pub const MARKS: &[Column] = &[&["type"], &["sku"], &["name"], &["regular price"], &["published"]];

pub const FIELDS: &[(&str, Column)] = &[
    ("sku", &["sku"]),
    ("name", &["name"]),
    ("description", &["description"]),
    ("price", &["regular price"]),
    ("category", &["categories"]),
    ("stock", &["stock"]),
    ("images", &["images"]),
];

/// Variable products by their SKU, and by `id:` and their number; and the bytes of them.
#[derive(Default)]
pub struct Parents(HashMap<String, Arc<Item>>, usize);

impl Parents {
    pub fn row(&mut self, row: &mut Row<'_>, left: &mut Left) -> Vec<Item> {
        let kind = row.take(&["type"]).to_lowercase();
        let id = format!("id:{}", row.take(&["id"]));
        let parent = row.take(&["parent"]);
        let published = row.take(&["published"]);
        let mut item = Item {
            line: row.line,
            sku: row.take(&["sku"]),
            name: row.take(&["name"]),
            description: text(&row.take(&["description"])),
            price: row.take(&["regular price"]),
            category: row.take(&["categories"]).split(',').next().unwrap_or_default().to_owned(),
            // The export puts a sign before what a spreadsheet would take for a formula.
            stock: row.take(&["stock"]).trim_start_matches('\'').to_owned(),
            images: row.take(&["images"]),
            ..Item::default()
        };
        let short = text(&row.take(&["short description"]));
        if item.description.is_empty() {
            item.description = short;
        } else if !short.is_empty() && !item.description.contains(&short) {
            item.description = format!("{short}\n\n{}", item.description);
        }
        for n in 1..=50 {
            let name = row.take_named(&format!("attribute {n} name"));
            let values = row.take_named(&format!("attribute {n} value(s)"));
            item.attribute(name, values);
        }
        item.attribute("brand", row.take(&["brands"]));
        item.attribute("gtin", row.take(&["gtin, upc, ean, or isbn"]));
        item.attribute("tags", row.take(&["tags"]));
        item.attribute("weight_kg", row.take(&["weight (kg)"]));
        if kind.contains("variable") {
            let item = item.fit(left);
            self.1 += item.weight();
            if self.1 > MOST_WAITING {
                left.out("what variable products have in common");
                return Vec::new();
            }
            let (sku, item) = (item.sku.to_lowercase(), Arc::new(item));
            if !sku.is_empty() {
                self.0.insert(sku, item.clone());
            }
            self.0.insert(id, item);
            return Vec::new();
        }
        if published != "1" && !published.eq_ignore_ascii_case("true") {
            left.out("products that are not published");
            return Vec::new();
        }
        if kind.contains("grouped") || kind.contains("external") {
            left.out(format!("products of type {kind}"));
            return Vec::new();
        }
        // Without either it is refused.
        if item.sku.is_empty() && id != "id:" {
            item.sku = format!("woo-{}", id.trim_start_matches("id:"));
        }
        if kind.contains("variation") {
            item.attribute("group", parent.as_str());
            if let Some(parent) = self.0.get(&parent.to_lowercase()) {
                item.inherit(parent);
            }
        }
        vec![item]
    }
}

impl Item {
    /// A variation says what is its own.
    fn inherit(&mut self, parent: &Self) {
        for (own, theirs) in [
            (&mut self.name, &parent.name),
            (&mut self.description, &parent.description),
            (&mut self.price, &parent.price),
            (&mut self.category, &parent.category),
            (&mut self.images, &parent.images),
        ] {
            if own.is_empty() {
                own.clone_from(theirs);
            }
        }
        for (name, value) in &parent.attributes {
            // The parent's values of an option are those of all variations.
            if !self.attributes.iter().any(|(own, _)| own == name) && !value.contains(',') {
                self.attributes.push((name.clone(), value.clone()));
            }
        }
    }
}

/// Line breaks are written as two characters.
fn text(cell: &str) -> String {
    cell.replace("\\n", "\n")
}
