//! Carts, orders, payments.
//!
//! The path of `POST /orders`, as reading order: [`http::orders`](http) takes the request apart. [`checkout`] claims its
//! Idempotency-Key ([`idempotency`]), reserves the stock ([`clients::product`]), and writes the order ([`order`]) in one
//! transaction. From there on the [`saga`] sees it through: the rule is a pure function ([`order_core::saga`]), the store
//! applies facts by it, and the runner asks the product service and the payment provider for the next fact. What goes
//! wrong is an error of the use case; `http::problems` has the answer to each.

mod address;
mod app;
mod cart;
mod catalogue;
mod changes;
mod checkout;
mod clients;
mod config;
mod erasure;
mod events;
mod failpoints;
mod fulfilment;
mod http;
mod idempotency;
mod notes;
mod order;
mod refunds;
mod saga;
mod schema;
mod times;

pub use app::{keygen, start};
pub use config::Config;
pub use http::document as openapi;
pub use times::Times;

#[cfg(test)]
mod tests {
    #[test]
    fn every_statement_is_in_a_store() {
        assert_eq!(testing::statements::outside_stores(env!("CARGO_MANIFEST_DIR")), Vec::<String>::new());
    }

    #[test]
    fn no_module_leads_back_to_itself() {
        assert_eq!(testing::arrows::circles(env!("CARGO_MANIFEST_DIR")), Vec::<String>::new());
    }
}
