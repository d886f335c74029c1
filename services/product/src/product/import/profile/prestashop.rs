//! PrestaShop's products: as its import takes them, and as its catalogue's list exports them.
//! <https://docs.prestashop-project.org/v.8-documentation/user-guide/configuring-shop/advanced-parameters/import>

use super::{Column, Item, Left, NOT_PUBLISHED, Row};

const PRICE: Column = &[
    "price tax included",
    "price (tax incl.)",
    "price tax excluded or price tax included",
    "price tax excluded",
    "price (tax excl.)",
];
const NAME: Column = &["name *", "name"];
const SKU: Column = &["reference #", "reference"];
const CATEGORY: Column = &["categories (x,y,z...)", "categories", "category"];
const IMAGES: Column = &["image urls (x,y,z...)", "image urls", "image"];

pub const MARKS: &[Column] = &[SKU, NAME, PRICE];

pub const FIELDS: &[(&str, Column)] = &[
    ("sku", SKU),
    ("name", NAME),
    ("description", &["description"]),
    ("price", PRICE),
    ("category", CATEGORY),
    ("stock", &["quantity"]),
    ("images", IMAGES),
];

pub fn row(row: &mut Row<'_>, left: &mut Left) -> Vec<Item> {
    let id = row.take(&["product id", "id"]);
    let mut item = Item {
        line: row.line,
        sku: row.take(SKU),
        name: row.take(NAME),
        description: row.take(&["description"]),
        price: row.take(PRICE),
        category: row.take(CATEGORY).split(',').next_back().unwrap_or_default().to_owned(),
        stock: row.take(&["quantity"]),
        images: row.take(IMAGES),
        ..Item::default()
    };
    // The list has a sign before its prices.
    item.price = item.price.trim_matches(|c: char| !c.is_ascii_digit() && c != '-').to_owned();
    let summary = row.take(&["short description", "summary"]);
    if item.description.is_empty() {
        item.description = summary;
    } else if !summary.is_empty() {
        item.description = format!("{summary}\n\n{}", item.description);
    }
    if item.sku.is_empty() && !id.is_empty() {
        item.sku = format!("ps-{id}");
    }
    item.attribute("brand", row.take(&["manufacturer", "brand"]));
    item.attribute("gtin", row.take(&["ean13", "ean-13"]));
    item.attribute("tags", row.take(&["tags (x,y,z...)", "tags"]));
    for feature in row.take(&["feature(name:value:position)", "feature (name:value:position)"]).split(',') {
        let mut parts = feature.split(':');
        if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            item.attribute(name.trim(), value.trim());
        }
    }
    let active = row.take(&["active (0/1)", "active", "status"]);
    if ["0", "false", "no"].contains(&active.to_lowercase().as_str()) {
        left.out(NOT_PUBLISHED);
        return Vec::new();
    }
    vec![item]
}
