//! Carts: what a user means to buy, shown at today's prices.

pub mod store;

use order_core::ids::ProductId;
use serde::Serialize;
use service::{Money, Problem};
use utoipa::ToSchema;

use crate::catalogue::Catalogue;
use crate::order::Line;

/// What the caller means to buy, at prices of now.
#[derive(Debug, Serialize, ToSchema)]
pub struct Cart {
    #[schema(max_items = 100)]
    items: Vec<CartItem>,
    total: Money,
}

#[derive(Debug, Serialize, ToSchema)]
struct CartItem {
    #[schema(inline)]
    product_id: ProductId,
    name: String,
    unit_price: Money,
    #[schema(minimum = 1, maximum = 999)]
    quantity: u32,
    /// How many could be bought now.
    available: u32,
}

/// The cart of these lines with names, prices and stock of now.
pub async fn show(catalogue: &Catalogue, lines: &[Line]) -> Result<Cart, Problem> {
    let ids: Vec<ProductId> = lines.iter().map(|line| line.product_id).collect();
    let products = catalogue.look_up(&ids).await?;
    let mut items = Vec::with_capacity(lines.len());
    let mut total = Money::new(0, catalogue.currency());
    for line in lines {
        let Some(product) = products.get(&line.product_id) else { continue };
        if items.is_empty() {
            total.currency = product.price.currency;
        }
        let price = product.price.checked_mul(line.quantity);
        total = price.and_then(|price| total.checked_add(price)).unwrap_or(total);
        items.push(CartItem {
            product_id: product.id,
            name: product.name.clone(),
            unit_price: product.price,
            quantity: line.quantity,
            available: if product.archived { 0 } else { product.available },
        });
    }
    Ok(Cart { items, total })
}
