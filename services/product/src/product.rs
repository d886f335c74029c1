//! The catalogue: products, what makes one valid, and how they change.

pub mod export;
mod form;
pub mod import;
pub mod indexing;
pub mod reads;
pub mod search;
mod sku;
pub mod store;

use std::collections::BTreeMap;

use messaging::NewEvent;
use proto::events::PRODUCT_UPDATED;
use proto::product::v1 as wire;
use serde::{Deserialize, Serialize};
use service::db::Connection;
use service::db::violated_constraint;
use service::{FieldError, Money, Problem};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

pub use form::{Form, NewProduct, Patch, TEXTS, merge_patch, split_status};

use crate::{schema, stock};

/// A product as the API shows it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Product {
    pub id: Uuid,
    #[schema(schema_with = schema::sku)]
    pub sku: String,
    pub slug: String,
    pub name: String,
    pub description: String,
    pub price: Money,
    /// A category's slug.
    pub category: String,
    pub attributes: BTreeMap<String, String>,
    /// Addresses: of other sites, or of uploaded images as paths on this one.
    #[schema(max_items = 20)]
    pub images: Vec<String>,
    pub stock: Stock,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: OffsetDateTime,
    /// Left out of products that are in the shop.
    #[serde(skip_serializing_if = "Status::is_published")]
    #[schema(required = false, nullable = false, inline)]
    pub status: Status,
    /// Grows with every change but sales.
    #[serde(skip)]
    pub version: i64,
}

/// Whether a product is in the shop. Only staff see others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    #[default]
    Published,
    /// Staff are at work on it.
    Draft,
    /// Its SKU may be used by another; its slug may not.
    Deleted,
}

impl Status {
    pub fn is_published(&self) -> bool {
        *self == Self::Published
    }
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Stock {
    /// On hand minus reserved.
    #[schema(minimum = 0)]
    pub available: i32,
}

impl From<&Product> for wire::Product {
    fn from(product: &Product) -> Self {
        Self {
            id: product.id.to_string(),
            sku: product.sku.clone(),
            slug: product.slug.clone(),
            name: product.name.clone(),
            price: Some(money(product.price)),
            available: u32::try_from(product.stock.available).unwrap_or(0),
            archived: !product.status.is_published(),
            version: product.version,
        }
    }
}

pub fn money(money: Money) -> wire::Money {
    wire::Money { amount: money.amount, currency: money.currency.code().to_owned() }
}

/// `product.updated.v1` for the product as it now is.
pub fn updated(product: &Product) -> NewEvent {
    let body = wire::ProductUpdated { product: Some(product.into()) };
    NewEvent::new(PRODUCT_UPDATED, product.id, product.version, &body)
}

/// Adds a product with its stock. 409 `sku_taken`, 422 `unknown_category`.
pub async fn create(connection: &mut Connection, mut new: NewProduct) -> Result<Product, Problem> {
    store::take_turn_to_add(connection).await?;
    new.form.category = require_category(connection, &new.form.category).await?;
    let id = Uuid::now_v7();
    let name = slug(&new.form.name);
    // The end of a UUIDv7 is random, so one suffix is enough.
    let unique = format!("{name}-{}", &id.simple().to_string()[20..]);
    let inserted = store::insert(connection, id, &name, &new).await.map_err(refused)?
        || store::insert(connection, id, &unique, &new).await.map_err(refused)?;
    if !inserted {
        return Err(Problem::conflict("slug_taken", "A product of this name is being added; try again."));
    }
    stock::open(connection, &[(id, new.stock)]).await?;
    announced(connection, id).await
}

/// Replaces what the form holds; the slug stays, so that links do. Uploaded
/// images that it leaves out are gone.
pub async fn update(connection: &mut Connection, product: Uuid, form: &Form) -> Result<Product, Problem> {
    store::update(connection, product, form).await.map_err(refused)?;
    crate::image::prune(connection, product, &form.images).await?;
    announced(connection, product).await
}

/// Puts the product into the shop or takes it out. 409 `sku_taken` when another has its SKU meanwhile.
pub async fn set_status(
    connection: &mut Connection,
    product: Uuid,
    status: Status,
) -> Result<Product, Problem> {
    store::set_status(connection, product, status).await.map_err(refused)?;
    announced(connection, product).await
}

/// Makes a deleted product what it was before. 409 `sku_taken` when another has its SKU meanwhile.
pub async fn restore(connection: &mut Connection, product: Uuid) -> Result<Product, Problem> {
    store::restore(connection, product).await.map_err(refused)?;
    announced(connection, product).await
}

/// The product with its event enqueued.
pub async fn announced(connection: &mut Connection, id: Uuid) -> Result<Product, Problem> {
    let product = store::by_ids(connection, &[id]).await?.pop();
    let product = product.ok_or_else(not_found)?;
    messaging::outbox::enqueue(connection, &[updated(&product)]).await?;
    Ok(product)
}

pub fn not_found() -> Problem {
    Problem::not_found("There is no such product.")
}

pub fn unknown_category(pointer: &str) -> Problem {
    let detail = "There is no such category; see GET /api/v1/categories.";
    Problem::invalid(vec![FieldError::new(pointer, "unknown_category", detail)])
}

/// The present slug of this category. 422 comes before 409, so this can't wait until the foreign key fails.
pub async fn require_category(connection: &mut Connection, slug: &str) -> Result<String, Problem> {
    let found = crate::category::store::current_slug(connection, slug).await?;
    found.ok_or_else(|| unknown_category("/category"))
}

fn refused(error: sqlx::Error) -> Problem {
    match violated_constraint(&error) {
        Some("products_sku_key") => Problem::conflict("sku_taken", "Another product has this SKU."),
        Some("products_category_fkey") => unknown_category("/category"),
        _ => error.into(),
    }
}

/// Letters and digits in lower case, everything else as single hyphens.
pub fn slug(name: &str) -> String {
    let lower = name.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let slug = words.collect::<Vec<_>>().join("-");
    if slug.is_empty() { "product".to_owned() } else { slug }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_readable_in_an_address() {
        assert_eq!(slug("  Skerry Waxed-Cotton Jacket (M)! "), "skerry-waxed-cotton-jacket-m");
        assert_eq!(slug("Müller's Äpfel"), "müller-s-äpfel");
        assert_eq!(slug("!?"), "product");
    }
}
