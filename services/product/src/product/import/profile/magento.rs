//! Magento 2's products: the variants of a configurable product come before it, and it names them.
//! <https://experienceleague.adobe.com/en/docs/commerce-admin/systems/data-transfer/data-attributes-product>

use super::{Column, Item, Left, Row};

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

/// Most variants that wait for their product.
const MOST: usize = 5000;

/// Products that are not shown by themselves, and so may be variants.
#[derive(Default)]
pub struct Waiting(Vec<Item>);

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
            category: row.take(&["categories"]).split(',').next().unwrap_or_default().to_owned(),
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
                self.0.push(item);
                if self.0.len() >= MOST { self.end() } else { Vec::new() }
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
        std::mem::take(&mut self.0)
    }
}
