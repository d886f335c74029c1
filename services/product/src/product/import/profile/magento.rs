//! Magento 2's products: the variants of a configurable product come before it, and it names them.
//! <https://experienceleague.adobe.com/en/docs/commerce-admin/systems/data-transfer/data-attributes-product>

use super::{Column, Item, Left, MOST_WAITING, Row};

pub const MARKS: &[Column] =
    &[&["sku"], &["product_type"], &["name"], &["price"], &["attribute_set_code", "store_view_code"]];

pub const FIELDS: &[(&str, Column)] = &[
    ("sku", &["sku"]),
    ("name", &["name"]),
    ("description", &["description"]),
    ("price", &["price"]),
    ("category", &["categories"]),
    ("stock", &["qty"]),
    ("images", &["base_image"]),
];

/// Products that are not shown by themselves, and so may be variants, and their bytes.
#[derive(Default)]
pub struct Waiting(Vec<Item>, usize);

impl Waiting {
    pub fn first(&self) -> Option<u64> {
        self.0.first().map(|item| item.line)
    }

    pub fn row(&mut self, row: &mut Row<'_>, left: &mut Left) -> Vec<Item> {
        // A row for another view of the shop has the same product in another language.
        let view = row.take(&["store_view_code"]);
        if !view.is_empty() && view != "default" {
            left.out("texts of other store views");
            row.taken.fill(true);
            return Vec::new();
        }
        let kind = row.take(&["product_type"]);
        let mut item = Item {
            line: row.line,
            sku: row.take(&["sku"]),
            name: row.take(&["name"]),
            description: row.take(&["description"]),
            price: row.take(&["price"]),
            category: deepest(&row.take(&["categories"])),
            stock: row.take(&["qty"]),
            ..Item::default()
        };
        if item.description.is_empty() {
            item.description = row.take(&["short_description"]);
        }
        let images = [row.take(&["base_image"]), row.take(&["additional_images"])];
        item.images = images.join(" ").trim().to_owned();
        for pair in row.take(&["additional_attributes"]).split(',') {
            if let Some((name, value)) = pair.split_once('=') {
                item.attribute(name.trim(), value.trim());
            }
        }
        item.attribute("weight", row.take(&["weight"]));
        let variations = row.take(&["configurable_variations"]);
        let visibility = row.take(&["visibility"]);
        if row.take(&["product_online"]) == "2" {
            left.out("products that are not published");
            return Vec::new();
        }
        match kind.as_str() {
            "configurable" => self.configured(&item, &variations),
            "grouped" | "bundle" => {
                left.out(format!("products of type {kind}"));
                Vec::new()
            }
            _ if visibility == "Not Visible Individually" => {
                let item = item.fit(left);
                self.1 += item.weight();
                self.0.push(item);
                if self.1 > MOST_WAITING { self.end() } else { Vec::new() }
            }
            _ => vec![item],
        }
    }

    /// The variants of a product, out of those that wait.
    fn configured(&mut self, product: &Item, variations: &str) -> Vec<Item> {
        let mut variants = Vec::new();
        for variation in variations.split('|') {
            let pairs = variation.split(',').filter_map(|pair| pair.split_once('='));
            let pairs: Vec<(&str, &str)> = pairs.map(|(name, value)| (name.trim(), value.trim())).collect();
            let sku = pairs.iter().find(|(name, _)| *name == "sku").map(|(_, sku)| *sku);
            let Some(place) = self.0.iter().position(|item| Some(item.sku.as_str()) == sku) else { continue };
            let mut item = self.0.remove(place);
            self.1 -= item.weight();
            item.attribute("group", product.sku.as_str());
            for (name, value) in pairs.iter().filter(|(name, _)| *name != "sku") {
                item.attributes.retain(|(other, _)| other != name);
                item.attribute(*name, *value);
            }
            if item.description.is_empty() {
                item.description.clone_from(&product.description);
            }
            if item.category.is_empty() {
                item.category.clone_from(&product.category);
            }
            variants.push(item);
        }
        variants
    }

    pub fn end(&mut self) -> Vec<Item> {
        self.1 = 0;
        std::mem::take(&mut self.0)
    }
}

/// Of several categories the one with most levels: others may be those above it.
fn deepest(categories: &str) -> String {
    let levels = |category: &&str| category.split('/').count();
    // The first of those that are as deep.
    let deepest = categories.split(',').rev().max_by_key(levels);
    deepest.unwrap_or_default().to_owned()
}
