//! The product service: the catalogue, and the stock that orders reserve.
//!
//! The path of one request, as reading order: [`start`] opens the database and the ports. A visitor's search
//! comes in at [`http`], which reads the [`product`] store. An order's `Reserve` comes in at [`grpc`], queues
//! up with others for one transaction, and is decided in [`stock`]. Later events about an order come in at
//! [`consumer`]. All three adapters call the same operations, which borrow a connection; the adapter owns the
//! transaction.

mod app;
mod category;
mod config;
mod consumer;
mod demo;
mod failpoints;
mod grpc;
mod http;
mod image;
mod objects;
mod product;
mod retention;
mod schema;
mod stock;

pub use app::start;
pub use config::Config;
pub use http::document as openapi;

#[cfg(test)]
mod tests {
    #[test]
    fn no_module_leads_back_to_itself() {
        assert_eq!(testing::arrows::circles(env!("CARGO_MANIFEST_DIR")), Vec::<String>::new());
    }

    #[test]
    fn every_statement_is_in_a_store() {
        assert_eq!(testing::statements::outside_stores(env!("CARGO_MANIFEST_DIR")), Vec::<String>::new());
    }
}
