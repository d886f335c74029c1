//! Shopify's products: the first row of a handle has the product, each row may have a variant and an image.
//! <https://help.shopify.com/en/manual/products/import-export/using-csv>

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use super::{Column, Item, LONGEST_IMAGES, Left, Row};
use crate::schema::MAX_IMAGES;

const HANDLE: Column = &["handle", "url handle"];
const SKU: Column = &["variant sku", "sku"];
const PRICE: Column = &["variant price", "price"];
const IMAGE: Column = &["image src", "product image url"];

pub const MARKS: &[Column] = &[HANDLE, &["title"], PRICE];

pub const FIELDS: &[(&str, Column)] = &[
    ("sku", SKU),
    ("name", &["title"]),
    ("description", &["body (html)", "description"]),
    ("price", PRICE),
    ("category", &["type"]),
    ("stock", &["variant inventory qty", "inventory quantity"]),
    ("images", IMAGE),
];

/// Most bytes of products that are made at once: each variant becomes one, with the texts of all.
const MOST_AT_ONCE: usize = 2 * 1024 * 1024;

/// The rows of one handle.
#[derive(Default)]
pub struct Group {
    handle: String,
    product: Item,
    options: [String; 3],
    images: Vec<String>,
    variants: Vec<Variant>,
    /// Bytes of these.
    bytes: usize,
    /// Variants of the product went before these.
    several: bool,
    /// A product that is not to be seen there.
    hidden: Option<String>,
}

struct Variant {
    item: Item,
    values: [String; 3],
}

impl Group {
    pub fn first(&self) -> Option<u64> {
        self.variants.first().map(|variant| variant.item.line)
    }

    pub fn row(&mut self, row: &mut Row<'_>, left: &mut Left) -> Vec<Item> {
        let handle = row.take(HANDLE);
        let mut done = Vec::new();
        if handle != self.handle {
            done = self.end(left);
            self.handle = handle;
        } else {
            // The row may have a text that all of them take.
            let row: usize = row.cells.iter().map(String::len).sum();
            if self.bytes + self.variants.len() * (self.weight() + row) > MOST_AT_ONCE {
                self.several = true;
                done = self.made(left);
            }
        }
        self.product(row, left);
        let image = row.take(IMAGE);
        if !image.is_empty() && !self.images.contains(&image) {
            let all: usize = self.images.iter().map(String::len).sum();
            if self.images.len() < MAX_IMAGES && all + image.len() <= LONGEST_IMAGES {
                self.images.push(image);
            } else {
                left.out("images");
            }
        }
        let (sku, price) = (row.take(SKU), row.take(PRICE));
        let values =
            [row.take(&["option1 value"]), row.take(&["option2 value"]), row.take(&["option3 value"])];
        // Else the row has but an image.
        if !price.is_empty() || !sku.is_empty() {
            let stock = row.take(&["variant inventory qty", "inventory quantity"]);
            let images = row.take(&["variant image", "variant image url"]);
            let mut item = Item { line: row.line, sku, price, stock, images, ..Item::default() };
            item.attribute("barcode", row.take(&["variant barcode", "barcode"]).trim_start_matches('\''));
            item.attribute("weight_grams", row.take(&["variant grams", "weight value (grams)"]));
            let item = item.fit(left);
            self.bytes +=
                item.weight() + size_of::<[String; 3]>() + values.iter().map(String::len).sum::<usize>();
            self.variants.push(Variant { item, values });
        }
        done
    }

    /// What is only in the first row.
    fn product(&mut self, row: &mut Row<'_>, left: &mut Left) {
        let name = row.take(&["title"]);
        if name.is_empty() {
            return;
        }
        self.product.name = name;
        self.product.description = row.take(&["body (html)", "description"]);
        let (kind, path) = (row.take(&["type"]), row.take(&["product category"]));
        self.product.category = if kind.is_empty() { path } else { kind.replace(['>', '/'], " ") };
        self.product.attribute("brand", row.take(&["vendor"]));
        self.product.attribute("tags", row.take(&["tags"]));
        self.product = std::mem::take(&mut self.product).fit(left);
        self.options =
            [row.take(&["option1 name"]), row.take(&["option2 name"]), row.take(&["option3 name"])];
        let status = row.take(&["status"]).to_lowercase();
        let published = row.take(&["published", "published on online store"]).to_lowercase();
        self.hidden = match (status.as_str(), published.as_str()) {
            ("" | "active", "" | "true") => None,
            ("" | "active", _) => Some("products that are not published".to_owned()),
            _ => Some(format!("products with status {status}")),
        };
    }

    /// Bytes of each product that it makes.
    fn weight(&self) -> usize {
        let others = self.options.iter().chain(&self.images).chain([&self.handle]);
        self.product.weight() + others.map(String::len).sum::<usize>()
    }

    /// The products that the rest of the handle's rows make.
    pub fn end(&mut self, left: &mut Left) -> Vec<Item> {
        let made = self.made(left);
        *self = Self::default();
        made
    }

    /// The products of the variants so far.
    fn made(&mut self, left: &mut Left) -> Vec<Item> {
        let variants = std::mem::take(&mut self.variants);
        self.bytes = 0;
        if let Some(hidden) = &self.hidden {
            variants.iter().for_each(|_| left.out(hidden));
            return Vec::new();
        }
        let Self { handle, product, options, images, several, .. } = &*self;
        let alone = !several
            && variants.len() == 1
            && variants.iter().all(|variant| ["", "Default Title"].contains(&variant.values[0].as_str()));
        let item = |Variant { mut item, values }: Variant| {
            let chosen: Vec<&str> =
                values.iter().map(String::as_str).filter(|value| !value.is_empty()).collect();
            if item.sku.is_empty() {
                let whole = if alone { handle.clone() } else { format!("{handle}-{}", chosen.join("-")) };
                item.sku = short(whole);
            }
            item.name.clone_from(&product.name);
            if !alone {
                item.name = format!("{} - {}", product.name, chosen.join(" / "));
                item.attribute("group", handle.as_str());
                for (name, value) in options.iter().zip(&values) {
                    item.attribute(name.as_str(), value.as_str());
                }
            }
            item.description.clone_from(&product.description);
            item.category.clone_from(&product.category);
            item.attributes.extend(product.attributes.clone());
            let own = std::mem::take(&mut item.images);
            let others = images.iter().filter(|image| **image != own).map(String::as_str);
            item.images = std::iter::once(own.as_str()).chain(others).collect::<Vec<_>>().join(" ");
            item
        };
        variants.into_iter().map(item).collect()
    }
}

/// A SKU of at most 64 characters; of a longer text the beginning, and a part that makes it unique.
fn short(text: String) -> String {
    if text.chars().count() <= 64 {
        return text;
    }
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&text);
    let beginning: String = text.chars().take(47).collect();
    format!("{beginning}-{hash:016x}")
}
