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
    use std::path::Path;

    /// A store is a file named `store` or `..._store`, or one in a folder of such a name.
    #[test]
    fn all_sql_is_in_stores() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let (mut folders, mut stores, mut others) = (vec![source.clone()], 0, vec![]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if std::fs::read_to_string(&path).unwrap().contains(concat!("sqlx", "::query")) {
                    let inside = path.strip_prefix(&source).unwrap().with_extension("");
                    let mut names = inside.iter().map(|name| name.to_string_lossy());
                    match names.any(|name| name == "store" || name.ends_with("_store")) {
                        true => stores += 1,
                        false => others.push(inside),
                    }
                }
            }
        }
        assert!(stores > 5, "only {stores} stores");
        assert!(others.is_empty(), "SQL outside of stores: {others:?}");
    }

    #[test]
    fn no_module_leads_back_to_itself() {
        assert_eq!(testing::arrows::circles(env!("CARGO_MANIFEST_DIR")), Vec::<String>::new());
    }
}
