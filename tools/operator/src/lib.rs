//! What an operator of the shop looks at and sets right: dead letters
//! ([`dlq`]), outboxes ([`outbox`]), sagas ([`saga`]), one order's life
//! ([`trace`]), and whether orders, stock, money and events agree ([`reconcile`]).
//!
//! Nothing here writes an order, an amount or a stock level. What it changes,
//! it changes by having the services do their own work again, which they are
//! built to survive: a saga looks again, an event is published again.

pub mod certificates;
pub mod dlq;
pub mod outbox;
pub mod provider;
pub mod reconcile;
pub mod saga;
pub mod trace;

/// A service, and the schema that it owns.
pub const SERVICES: [(&str, &str); 3] = [("user", "users"), ("product", "products"), ("order", "orders")];
