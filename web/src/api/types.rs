//! The API's answers, as far as pages show them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Money {
    /// Minor units.
    pub amount: i64,
    pub currency: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Tokens {
    pub access_token: String,
    pub refresh_token: String,
    /// Seconds.
    pub expires_in: i64,
    /// For this browser to keep.
    #[serde(default)]
    pub device_token: Option<String>,
}

#[derive(Deserialize)]
pub struct Account {
    pub email: String,
    pub name: String,
    pub role: String,
    pub language: String,
}

#[derive(Deserialize)]
pub struct SignIn {
    pub id: Uuid,
    pub current: bool,
    pub user_agent: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub last_used_at: OffsetDateTime,
}

#[derive(Deserialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next_cursor: Option<String>,
}

#[derive(Deserialize)]
pub struct Categories {
    pub items: Vec<Category>,
}

/// Of the tree, or of the facets' tree.
#[derive(Deserialize)]
pub struct Category {
    pub slug: String,
    pub name: String,
    #[serde(alias = "product_count")]
    pub count: i64,
    pub children: Vec<Category>,
}

impl Category {
    /// From the top down to the one with the slug; empty when it is not below.
    pub fn path<'a>(tree: &'a [Self], slug: &str) -> Vec<&'a Self> {
        for category in tree {
            if category.slug == slug {
                return vec![category];
            }
            let mut below = Self::path(&category.children, slug);
            if !below.is_empty() {
                below.insert(0, category);
                return below;
            }
        }
        Vec::new()
    }
}

#[derive(Deserialize)]
pub struct CategoryPlace {
    pub name: String,
    pub parent: Option<String>,
}

#[derive(Clone, Deserialize)]
pub struct Product {
    pub id: Uuid,
    pub sku: String,
    pub slug: String,
    pub name: String,
    pub description: String,
    pub price: Money,
    pub category: String,
    pub attributes: BTreeMap<String, String>,
    pub images: Vec<String>,
    pub stock: Stock,
}

#[derive(Clone, Deserialize)]
pub struct Stock {
    pub available: i32,
}

impl Product {
    /// The addresses of its pictures that this site serves: a page takes nothing from elsewhere.
    pub fn pictures(&self) -> Vec<&str> {
        let ours = |image: &&String| image.starts_with("/api/v1/products/") && !image.contains("..");
        self.images.iter().filter(ours).map(String::as_str).collect()
    }

    pub fn picture(&self) -> Option<&str> {
        self.pictures().first().copied()
    }
}

#[derive(Deserialize)]
pub struct Products {
    pub items: Vec<Product>,
    pub next_cursor: Option<String>,
    pub did_you_mean: Option<String>,
    pub facets: Option<Facets>,
}

#[derive(Deserialize)]
pub struct Facets {
    pub categories: Vec<Category>,
    pub price_bands: Vec<PriceBand>,
    pub price_currency: Option<String>,
    #[serde(default)]
    pub attributes: Vec<AttributeFacet>,
}

#[derive(Deserialize)]
pub struct PriceBand {
    pub min_price: i64,
    pub max_price: Option<i64>,
    pub count: i64,
}

#[derive(Deserialize)]
pub struct AttributeFacet {
    pub name: String,
    pub values: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
pub struct Cart {
    pub items: Vec<CartItem>,
    pub total: Money,
}

#[derive(Deserialize)]
pub struct CartItem {
    pub product_id: Uuid,
    pub name: String,
    pub unit_price: Money,
    pub quantity: i32,
    pub available: i32,
}

/// A postal address, as it is sent and as it comes back.
#[derive(Clone, Default, Deserialize, Serialize)]
pub struct PostalAddress {
    pub name: String,
    pub line1: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line2: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postal_code: Option<String>,
    pub country: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
}

impl PostalAddress {
    /// Without the name, in one line.
    pub fn line(&self) -> String {
        let postal_city = [self.postal_code.as_deref(), self.city.as_deref()].into_iter().flatten();
        let postal_city = postal_city.collect::<Vec<_>>().join(" ");
        let parts =
            [Some(self.line1.as_str()), self.line2.as_deref(), Some(&postal_city), self.region.as_deref()];
        let parts = parts.into_iter().flatten().chain([self.country.as_str()]);
        parts.filter(|part| !part.trim().is_empty()).collect::<Vec<_>>().join(", ")
    }
}

#[derive(Clone, Deserialize)]
pub struct Address {
    pub id: Uuid,
    #[serde(flatten)]
    pub postal: PostalAddress,
}

#[derive(Deserialize)]
pub struct Order {
    pub id: Uuid,
    pub number: String,
    pub status: String,
    pub cancel_reason: Option<String>,
    pub items: Vec<OrderItem>,
    pub total: Money,
    pub refunded: Money,
    pub payment: Payment,
    pub shipping_address: Option<PostalAddress>,
    pub parcels: Vec<Parcel>,
    pub history: Vec<StatusChange>,
    pub next_actions: Vec<String>,
    /// Only staff get it.
    pub customer: Option<Customer>,
    #[serde(with = "time::serde::rfc3339")]
    pub placed_at: OffsetDateTime,
}

#[derive(Deserialize)]
pub struct Customer {
    pub id: Uuid,
    pub email: Option<String>,
    pub name: Option<String>,
}

#[derive(Deserialize)]
pub struct OrderItem {
    pub product_id: Uuid,
    pub sku: String,
    pub name: String,
    pub quantity: i32,
    pub unit_price: Money,
    pub line_total: Money,
}

#[derive(Deserialize)]
pub struct Payment {
    pub status: String,
    pub decline_reason: Option<String>,
    pub dispute: Option<String>,
    pub next_action: Option<PaymentAction>,
}

#[derive(Deserialize)]
pub struct PaymentAction {
    pub redirect_url: Option<String>,
}

#[derive(Deserialize)]
pub struct Parcel {
    pub id: Uuid,
    pub tracking: Option<Tracking>,
    #[serde(with = "time::serde::rfc3339")]
    pub shipped_at: OffsetDateTime,
    pub items: Vec<OrderLine>,
}

#[derive(Deserialize)]
pub struct Tracking {
    pub carrier: String,
    pub tracking_number: String,
}

#[derive(Deserialize)]
pub struct OrderLine {
    pub product_id: Uuid,
    pub quantity: i32,
}

#[derive(Deserialize)]
pub struct StatusChange {
    pub status: String,
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

#[derive(Deserialize)]
pub struct Refund {
    pub status: String,
    pub amount: Money,
    pub reason: String,
    pub restock: Vec<OrderLine>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// A problem document (RFC 9457).
#[derive(Clone, Debug, Deserialize)]
pub struct Problem {
    pub status: u16,
    pub code: String,
    #[serde(default)]
    pub detail: String,
    #[serde(default)]
    pub errors: Vec<FieldError>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct FieldError {
    pub pointer: String,
    pub code: String,
    pub detail: String,
}
