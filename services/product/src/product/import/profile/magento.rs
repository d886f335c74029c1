//! Magento 2's products: a configurable product names its variants, which mostly come before it.
//! <https://experienceleague.adobe.com/en/docs/commerce-admin/systems/data-transfer/data-attributes-product>

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Column, Item, Left, MOST_WAITING, NOT_PUBLISHED, PAIR, Row};

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

/// Most bytes of what is known of variants that are yet to come.
const MOST_NAMED: usize = MOST_WAITING / 4;

/// Products that are not shown by themselves, and so may be variants.
#[derive(Default)]
pub struct Waiting {
    /// By their lines, which the SKUs lead to.
    items: BTreeMap<u64, Item>,
    lines: HashMap<String, u64>,
    /// Variants that are yet to come, by their SKUs.
    named: HashMap<String, Variant>,
    /// Bytes of the items and of what is named.
    bytes: [usize; 2],
}

/// What a configurable product says of a variant.
struct Variant {
    product: Arc<Item>,
    options: Vec<(String, String)>,
}

impl Waiting {
    pub fn first(&self) -> Option<u64> {
        self.items.keys().next().copied()
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
        for (name, value) in pairs(&row.take(&["additional_attributes"])) {
            item.attribute(name, value.trim());
        }
        item.attribute("weight", row.take(&["weight"]));
        let variations = row.take(&["configurable_variations"]);
        let visibility = row.take(&["visibility"]);
        if row.take(&["product_online"]) == "2" {
            left.out(NOT_PUBLISHED);
            if kind == "configurable" {
                let variants = variations.split('|').filter_map(|variation| self.take(sku(variation)?));
                variants.for_each(|_| left.out(NOT_PUBLISHED));
            }
            return Vec::new();
        }
        match kind.as_str() {
            "configurable" => self.configured(item.fit(left), &variations),
            "grouped" | "bundle" => {
                left.out(format!("products of type {kind}"));
                Vec::new()
            }
            _ if visibility == "Not Visible Individually" => self.wait(item.fit(left), left),
            _ => vec![item],
        }
    }

    /// Keeps the product until another one names it, or returns it if one has.
    fn wait(&mut self, item: Item, left: &mut Left) -> Vec<Item> {
        if let Some(variant) = self.named.remove(&item.sku) {
            self.bytes[1] -= variant.weight(&item.sku);
            let item = variant.of(item);
            if let Some(product) = Arc::into_inner(variant.product) {
                self.bytes[1] -= product.weight();
            }
            return vec![item];
        }
        // Of two with one SKU the later wins.
        drop(self.take(&item.sku));
        self.bytes[0] += weight(&item);
        self.lines.insert(item.sku.clone(), item.line);
        self.items.insert(item.line, item);
        while self.bytes[0] > MOST_WAITING
            && let Some(line) = self.first()
        {
            drop(self.take_at(line));
            left.out("variants whose product comes too late");
        }
        Vec::new()
    }

    fn take(&mut self, sku: &str) -> Option<Item> {
        let line = *self.lines.get(sku)?;
        self.take_at(line)
    }

    fn take_at(&mut self, line: u64) -> Option<Item> {
        let item = self.items.remove(&line)?;
        self.lines.remove(&item.sku);
        self.bytes[0] -= weight(&item);
        Some(item)
    }

    /// The variants of a product among those that wait. Others are used when they come.
    fn configured(&mut self, product: Item, variations: &str) -> Vec<Item> {
        let product = Arc::new(product);
        let mut variants = Vec::new();
        for variation in variations.split('|') {
            let Some(sku) = sku(variation) else { continue };
            let options = options(variation).filter(|(name, _)| *name != "sku");
            let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let variant = Variant { product: product.clone(), options };
            let bytes = variant.weight(sku);
            if let Some(item) = self.take(sku) {
                variants.push(variant.of(item));
            } else if self.bytes[1] + bytes + product.weight() <= MOST_NAMED && !self.named.contains_key(sku)
            {
                self.bytes[1] += bytes;
                self.named.insert(sku.to_owned(), variant);
            }
        }
        // It is kept for those that are yet to come.
        if Arc::strong_count(&product) > 1 {
            self.bytes[1] += product.weight();
        }
        variants
    }

    /// A product that no other has named is not in the shop there.
    pub fn end(&mut self, left: &mut Left) {
        let Self { items, .. } = std::mem::take(self);
        items.values().for_each(|_| left.out("products that are neither shown by themselves nor variants"));
    }
}

impl Variant {
    fn weight(&self, sku: &str) -> usize {
        let options = self.options.iter().map(|(name, value)| PAIR + name.len() + value.len());
        size_of::<(String, Self)>() + sku.len() + options.sum::<usize>()
    }

    /// The product with what the configurable one says of it.
    fn of(&self, mut item: Item) -> Item {
        item.attribute("group", self.product.sku.as_str());
        for (name, value) in &self.options {
            item.attributes.retain(|(other, _)| other != name);
            item.attribute(name.as_str(), value.as_str());
        }
        if item.description.is_empty() {
            item.description.clone_from(&self.product.description);
        }
        if item.category.is_empty() {
            item.category.clone_from(&self.product.category);
        }
        item
    }
}

/// Bytes of a product that waits, and of its SKU, which leads to it.
fn weight(item: &Item) -> usize {
    item.weight() + size_of::<(String, u64)>() + item.sku.len()
}

/// `sku=MH-S,size=S`
fn options(variation: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = variation.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.trim(), value.trim()))
}

fn sku(variation: &str) -> Option<&str> {
    options(variation).find(|(name, _)| *name == "sku").map(|(_, sku)| sku)
}

/// `color=Red,features="a, ""b"""`: values are quoted if the export was told so ("Fields Enclosure"), or else a pair
/// is. Without quotes a part that has no name goes on with the value before it, as in Magento's own import.
/// <https://github.com/magento/magento2/blob/2.4/app/code/Magento/CatalogImportExport/Model/Import/Product.php>
fn pairs(mut cell: &str) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    while !cell.is_empty() {
        let mut end = cell.find(',').unwrap_or(cell.len());
        let quoted = |text: &str| text.trim_start().starts_with('"');
        let part = &cell[..end];
        if quoted(part) || part.split_once('=').is_some_and(|(_, value)| quoted(value)) {
            let mut open = false;
            let ends = cell.find(|c: char| {
                open ^= c == '"';
                c == ',' && !open
            });
            end = ends.unwrap_or(cell.len());
        }
        let part = &cell[..end];
        cell = cell.get(end + 1..).unwrap_or_default();
        let text = unquoted(part.trim());
        if let Some((name, value)) = text.split_once('=') {
            pairs.push((name.trim().to_owned(), unquoted(value.trim())));
        } else if let Some((_, value)) = pairs.last_mut() {
            value.push(',');
            value.push_str(part);
        }
    }
    pairs
}

/// Of several values each is quoted.
fn unquoted(text: &str) -> String {
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(text) => text.replace("\"|\"", "|").replace("\"\"", "\""),
        None => text.to_owned(),
    }
}

/// Of several categories the one with most levels: others may be those above it.
fn deepest(categories: &str) -> String {
    let levels = |category: &&str| category.split('/').count();
    // The first of those that are as deep.
    let deepest = categories.split(',').rev().max_by_key(levels);
    deepest.unwrap_or_default().to_owned()
}
