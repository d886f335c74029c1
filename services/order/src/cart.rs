//! Carts: what a user means to buy, shown at today's prices.

pub mod store;

use order_core::ids::{ProductId, UserId};
use serde::Serialize;
use service::Money;
use service::db::Pool;
use service::idempotency::{Answer, KeyError, Request};
use utoipa::ToSchema;

use crate::catalogue::{Catalogue, CatalogueError};
use crate::order::{Line, Quantity};

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
    #[schema(inline)]
    quantity: Quantity,
    /// How many could be bought now.
    available: u32,
}

/// Why a cart is not shown, or stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum CartError {
    #[error("there is no such product, or it is archived")]
    UnknownProduct,
    #[error("the cart has products in another currency")]
    MixedCurrencies,
    #[error("the cart is full")]
    Full,
    #[error("the cart has changed")]
    Changed,
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

#[derive(Clone)]
pub struct Carts {
    pool: Pool,
    catalogue: Catalogue,
}

/// A product that may be put into a user's cart.
pub struct Candidate {
    user: UserId,
    product: ProductId,
    price: Money,
    /// The cart's other products have another currency.
    mixes: bool,
}

impl Carts {
    pub fn new(pool: Pool, catalogue: Catalogue) -> Self {
        Self { pool, catalogue }
    }

    pub async fn show(&self, user: UserId) -> Result<Cart, CartError> {
        let lines = store::lines(&mut *self.pool.acquire().await?, user).await?;
        let cart = show(&self.catalogue, &lines).await?;
        let prices: Vec<_> = cart.items.iter().map(|item| (item.product_id, item.unit_price)).collect();
        let mut connection = self.pool.acquire().await?;
        let shown = store::shown(&mut connection, user).await?;
        if prices.iter().any(|(product, price)| shown.get(product) != Some(price)) {
            store::show(&mut connection, user, &prices).await?;
        }
        Ok(cart)
    }

    /// Looks for a product that can be bought.
    pub async fn find(&self, user: UserId, product: ProductId) -> Result<Candidate, CartError> {
        let lines = store::lines(&mut *self.pool.acquire().await?, user).await?;
        let other = lines.iter().map(|line| line.product_id).find(|id| *id != product);
        let ids: Vec<ProductId> = other.into_iter().chain([product]).collect();
        let products = self.catalogue.look_up(&ids).await?;
        let found = products.get(&product).filter(|product| !product.archived);
        let found = found.ok_or(CartError::UnknownProduct)?;
        let other = other.and_then(|other| products.get(&other));
        let mixes = other.is_some_and(|other| other.price.currency != found.price.currency);
        Ok(Candidate { user, product, price: found.price, mixes })
    }

    /// Sets how many of a product are in the cart, if there are as many as `expected` before, and returns the cart. A
    /// request that was done before changes nothing.
    pub async fn put(
        &self,
        candidate: Candidate,
        quantity: Quantity,
        expected: Option<u32>,
        request: &Request,
    ) -> Result<Cart, CartError> {
        let Candidate { user, product: product_id, price, mixes } = candidate;
        if mixes {
            return Err(CartError::MixedCurrencies);
        }
        let mut transaction = service::db::begin(&self.pool).await?;
        if request.earlier(&mut transaction).await?.is_some() {
            transaction.commit().await?;
            return self.show(user).await;
        }
        if let Some(expected) = expected
            && store::locked_quantity(&mut transaction, user, product_id).await? != expected
        {
            return Err(CartError::Changed);
        }
        match store::put(&mut transaction, user, Line { product_id, quantity }, price).await? {
            store::Put::Done => {}
            store::Put::Full => return Err(CartError::Full),
            store::Put::MixedCurrencies => return Err(CartError::MixedCurrencies),
        }
        request.answered(&mut transaction, &Answer::done()).await?;
        transaction.commit().await?;
        self.show(user).await
    }

    /// Takes a product out, if it is in there, and returns the cart.
    pub async fn remove(&self, user: UserId, product: ProductId) -> Result<Cart, CartError> {
        store::remove(&mut *self.pool.acquire().await?, user, product).await?;
        self.show(user).await
    }

    pub async fn clear(&self, user: UserId) -> Result<(), CartError> {
        Ok(store::clear(&mut *self.pool.acquire().await?, user).await?)
    }
}

/// The cart of these lines with names, prices and stock of now.
async fn show(catalogue: &Catalogue, lines: &[Line]) -> Result<Cart, CatalogueError> {
    let ids: Vec<ProductId> = lines.iter().map(|line| line.product_id).collect();
    let products = catalogue.look_up(&ids).await?;
    let mut items = Vec::with_capacity(lines.len());
    let mut total = Money::zero(catalogue.currency());
    for line in lines {
        let Some(product) = products.get(&line.product_id) else { continue };
        if items.is_empty() {
            total.currency = product.price.currency;
        }
        // What is gone from the shop can't be bought, and costs nothing.
        if !product.archived {
            let price = product.price.checked_mul(line.quantity.into());
            total = price.and_then(|price| total.checked_add(price)).unwrap_or(total);
        }
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
