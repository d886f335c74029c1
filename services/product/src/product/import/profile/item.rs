//! A product of another platform, as a line of an import.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use service::money::Currency;

use super::Made;
use crate::product::import::columns::{Fault, Options, images};
use crate::product::import::price::minor_units;
use crate::product::slug;
use crate::schema::{MAX_ATTRIBUTES, MAX_IMAGES};

/// Most of the addresses of a product's images together, in characters.
pub const LONGEST_IMAGES: usize = 20_000;

/// Bytes of two texts without their characters.
pub const PAIR: usize = size_of::<(String, String)>();

/// A product as it was read.
#[derive(Clone, Debug, Default)]
pub struct Item {
    pub line: u64,
    pub sku: String,
    pub name: String,
    pub description: String,
    pub price: String,
    pub currency: String,
    pub category: String,
    pub stock: String,
    pub images: String,
    pub attributes: Vec<(String, String)>,
}

/// What was left out of products: how often, by the first 100 characters of its name.
#[derive(Default)]
pub struct Left(pub(super) BTreeMap<String, u64>);

impl Left {
    pub fn out(&mut self, what: impl AsRef<str>) {
        *self.0.entry(what.as_ref().chars().take(100).collect()).or_default() += 1;
    }
}

/// A text that fits our limit; the rest is left out.
fn cut(text: String, most: usize, what: &str, left: &mut Left) -> String {
    match text.char_indices().nth(most) {
        None => text,
        Some((end, _)) => {
            left.out(format!("{what} beyond {most} characters"));
            text[..end].trim_end().to_owned()
        }
    }
}

impl Item {
    /// Leaves out what exceeds our limits, before it waits for other rows.
    pub fn fit(mut self, left: &mut Left) -> Self {
        self.name = cut(self.name, 200, "names", left);
        self.description = cut(self.description, 5000, "descriptions", left);
        let all = self.attributes.len();
        let fits =
            |(name, value): &(String, String)| name.chars().count() <= 64 && value.chars().count() <= 200;
        self.attributes.retain(fits);
        self.attributes.truncate(MAX_ATTRIBUTES);
        (self.attributes.len()..all).for_each(|_| left.out("attributes that are too long or too many"));
        self.images = cut(self.images, LONGEST_IMAGES, "images", left);
        self
    }

    /// Bytes that it takes.
    pub fn weight(&self) -> usize {
        let attributes = self.attributes.iter().map(|(name, value)| PAIR + name.len() + value.len());
        let texts = [&self.sku, &self.name, &self.description, &self.price, &self.category, &self.images];
        let texts = texts.into_iter().chain([&self.currency, &self.stock]).map(String::len);
        size_of::<Self>() + texts.chain(attributes).sum::<usize>()
    }

    pub fn attribute(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        if !name.is_empty() && !value.is_empty() {
            self.attributes.push((name, value));
        }
    }

    /// As a line of JSON, without what exceeds our limits.
    pub fn made(self, options: Options, separators: &[char], left: &mut Left) -> Made {
        let item = self.fit(left);
        Made { line: item.line, bytes: item.weight(), body: item.json(options, separators, left) }
    }

    fn json(self, options: Options, separators: &[char], left: &mut Left) -> Result<Value, Fault> {
        let mut attributes = Map::new();
        for (name, value) in self.attributes {
            if attributes.len() >= MAX_ATTRIBUTES {
                left.out("attributes that are too long or too many");
            } else {
                attributes.insert(name, value.into());
            }
        }
        let (category, category_name) = category(&self.category, separators, left);
        let mut fields = json!({"sku": self.sku, "name": self.name, "description": self.description,
            "category": category, "category_name": category_name, "attributes": attributes});
        let code = if self.currency.is_empty() {
            options.currency.or(options.usual).map(|currency| currency.code().to_owned())
        } else {
            Some(self.currency)
        };
        if !self.price.is_empty() {
            let amount = match code.as_deref().and_then(Currency::from_code) {
                Some(currency) => minor_units(&self.price, currency, options.decimal)
                    .map_err(|(code, detail)| ("/price/amount", code, detail))?,
                None => 0,
            };
            fields["price"] = json!({ "amount": amount });
            if let Some(code) = code {
                fields["price"]["currency"] = code.into();
            } else {
                let detail = "The file names no currency: add one to the address, such as ?currency=EUR.";
                return Err(("/price/currency", "missing_field", detail.to_owned()));
            }
        }
        if let Some(stock) = whole_number(&self.stock) {
            fields["stock"] = stock;
        }
        let Value::Array(mut addresses) = images(self.images) else { return Ok(fields) };
        let before = addresses.len();
        addresses.retain(|address| address.as_str().is_some_and(|address| address.starts_with("http")));
        addresses.truncate(MAX_IMAGES);
        (addresses.len()..before).for_each(|_| left.out("images"));
        if !addresses.is_empty() {
            fields["images"] = addresses.into();
        }
        Ok(fields)
    }
}

/// `100.0000` is 100, and what was sold without being there is nothing.
fn whole_number(text: &str) -> Option<Value> {
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if zeros.bytes().all(|byte| byte == b'0') => whole,
        _ => text,
    };
    match whole.parse::<i64>() {
        Ok(number) => Some(number.max(0).into()),
        Err(_) if text.is_empty() => None,
        Err(_) => Some(text.into()),
    }
}

/// The slug and the name of the last of some levels; those above it have no place.
fn category(path: &str, separators: &[char], left: &mut Left) -> (String, String) {
    let mut levels = path.split(separators).map(str::trim).filter(|level| !level.is_empty());
    let name = levels.next_back().unwrap_or("Other");
    levels.for_each(|_| left.out("levels above a category"));
    let name: String = name.chars().take(100).collect();
    let mut slug = slug(&name);
    while slug.len() > 64 || slug.ends_with('-') {
        slug.pop();
    }
    (slug, name)
}
