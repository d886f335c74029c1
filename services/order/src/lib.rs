//! Carts, orders, payments.
//!
//! The path of `POST /orders`, as reading order:
//! [`http::orders`](http) takes the request apart, [`place`] walks it through
//! claim ([`claim`]), reservation ([`clients::product`]) and the transaction
//! that places the order ([`order`]). From there on the [`saga`] owns it: a pure
//! transition function, a store that applies facts to it, and a runner that
//! asks product and payment provider for the next fact.

mod address;
mod app;
mod cart;
mod catalogue;
mod claim;
mod clients;
mod config;
mod consumer;
mod erasure;
mod http;
mod live;
mod order;
mod place;
mod refund;
mod saga;
mod schema;
mod text;
mod times;

pub use app::{keygen, start};
pub use config::Config;
pub use http::document as openapi;
pub use times::Times;
