//! WooCommerce's products: a variable product comes before its variations, which name it.
//! <https://github.com/woocommerce/woocommerce/wiki/Product-CSV-Import-Schema>

use std::collections::HashMap;
use std::sync::Arc;

use super::{Column, Item, Left, MOST_WAITING, NOT_PUBLISHED, Row};

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

/// Variable products by their SKU, and by `id:` and their number: nothing of one that is not published.
#[derive(Default)]
pub struct Parents {
    items: HashMap<String, Option<Arc<Item>>>,
    /// Bytes of those that are published, and of the others.
    bytes: [usize; 2],
}

impl Parents {
    pub fn row(&mut self, row: &mut Row<'_>, left: &mut Left) -> Vec<Item> {
        let kind = row.take(&["type"]).to_lowercase();
        let id = format!("id:{}", row.take(&["id"]));
        let parent = row.take(&["parent"]);
        let published = ["1", "true"].contains(&row.take(&["published"]).to_lowercase().as_str());
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
            let sku = item.sku.to_lowercase();
            self.remember([sku, id], published.then(|| item.fit(left)), left);
            return Vec::new();
        }
        if !published {
            left.out(NOT_PUBLISHED);
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
            match self.items.get(&parent.to_lowercase()) {
                Some(Some(parent)) => item.inherit(parent),
                Some(None) => {
                    left.out(NOT_PUBLISHED);
                    return Vec::new();
                }
                // It may be one that was too much.
                None if self.bytes[1] > MOST_WAITING => {
                    left.out("variations of products that may not be published");
                    return Vec::new();
                }
                None => {}
            }
        }
        vec![item]
    }

    /// Of a product that is not published only that fact is kept.
    fn remember(&mut self, names: [String; 2], item: Option<Item>, left: &mut Left) {
        let names_bytes: usize = names.iter().map(|name| size_of::<(String, usize)>() + name.len()).sum();
        let bytes = &mut self.bytes[usize::from(item.is_none())];
        *bytes += names_bytes + item.as_ref().map_or(0, Item::weight);
        if *bytes > MOST_WAITING {
            if item.is_some() {
                left.out("what variable products have in common");
            }
            return;
        }
        let item = item.map(Arc::new);
        for name in names.into_iter().filter(|name| !name.is_empty()) {
            self.items.insert(name, item.clone());
        }
    }
}

impl Item {
    /// A variation has only its own values.
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
