//! Why there is no order.

use order_core::ids::ProductId;
use service::batch::Overloaded;

use crate::clients::product::Shortage;
use crate::idempotency::KeyError;
use crate::order::{Items, NoLines, NoTotal};

/// Why a request has made no order. Nothing is stored, so that it may be sent again.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    #[error("too many orders wait for their payment")]
    Backlog,
    #[error("the payment provider refuses the shop's key")]
    KeyRefused,
    /// For this many seconds from now.
    #[error("too many of the account's orders are unpaid")]
    TooManyUnpaid { seconds: u32 },
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Of the cart.
    #[error(transparent)]
    NoLines(#[from] NoLines),
    #[error("the user has no such address")]
    UnknownAddress,
    #[error("the request has no address")]
    NoAddress,
    #[error("the user service is away")]
    UserAway,
    #[error("the product service is away")]
    ProductAway,
    #[error("the stock could not be reserved")]
    NotReserved,
    #[error("too many orders are placed at once")]
    Overloaded(#[from] Overloaded),
    #[error(transparent)]
    Encode(#[from] serde_json::Error),
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

/// Why there is no order, for good: the key has this answer from now on.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("not enough is in stock")]
    OutOfStock(Vec<Shortage>),
    #[error("a product does not exist")]
    UnknownProducts(Vec<ProductId>),
    #[error(transparent)]
    NoTotal(#[from] NoTotal),
    #[error("the cart has changed since it was read")]
    CartChanged,
    /// These are the prices now; the customer agreed to others.
    #[error("a price has changed")]
    PriceChanged(Items),
}

impl Refusal {
    /// All that [`Self::as_str`] gives.
    pub const ALL: [&'static str; 5] =
        ["out_of_stock", "unknown_products", "no_total", "cart_changed", "price_changed"];

    /// As metrics name it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::OutOfStock(_) => "out_of_stock",
            Self::UnknownProducts(_) => "unknown_products",
            Self::NoTotal(_) => "no_total",
            Self::CartChanged => "cart_changed",
            Self::PriceChanged(_) => "price_changed",
        }
    }
}
