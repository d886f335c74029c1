//! Feeds for Google Merchant Center: <https://support.google.com/merchants/answer/7052112>

use super::{Column, Item, Row};

pub const MARKS: &[Column] = &[&["id"], &["title"], &["price"], &["link", "availability"]];

pub const FIELDS: &[(&str, Column)] = &[
    ("sku", &["id"]),
    ("name", &["title"]),
    ("description", &["description"]),
    ("price", &["price"]),
    ("category", &["product_type", "product type", "google_product_category", "google product category"]),
    ("stock", &["quantity"]),
    ("images", &["image_link", "image link"]),
];

const ATTRIBUTES: [(&str, Column); 11] = [
    ("group", &["item_group_id", "item group id"]),
    ("brand", &["brand"]),
    ("gtin", &["gtin"]),
    ("mpn", &["mpn"]),
    ("color", &["color"]),
    ("size", &["size"]),
    ("material", &["material"]),
    ("pattern", &["pattern"]),
    ("gender", &["gender"]),
    ("age_group", &["age_group", "age group"]),
    ("condition", &["condition"]),
];

pub fn row(row: &mut Row<'_>) -> Item {
    let mut item = Item {
        line: row.line,
        sku: row.take(&["id"]),
        name: row.take(&["title"]),
        description: row.take(&["description"]),
        stock: row.take(&["quantity"]),
        ..Item::default()
    };
    // `34.00 EUR`
    let price = row.take(&["price"]);
    let (amount, currency) = price.split_once(' ').unwrap_or((&price, ""));
    (item.price, item.currency) = (amount.to_owned(), currency.trim().to_owned());
    item.category = row.take(&["product_type", "product type"]);
    if item.category.is_empty() {
        item.category = row.take(&["google_product_category", "google product category"]);
    }
    let images = [
        row.take(&["image_link", "image link"]),
        row.take(&["additional_image_link", "additional image link"]),
    ];
    item.images = images.join(" ").trim().to_owned();
    for (name, column) in ATTRIBUTES {
        let value = row.take(column);
        item.attribute(name, value);
    }
    item
}
