//! What an operator of the shop inspects and repairs: dead letters ([`dlq`]), outboxes ([`outbox`]), sagas
//! ([`saga`]), one order's history ([`trace`]), and whether orders, stock, money and events agree
//! ([`reconcile`]).
//!
//! Nothing here writes an order, an amount or a stock level. It only has the services do their own work
//! again, which they are built to survive: a saga is rescheduled, an event is published again.

pub mod certificates;
pub mod dlq;
pub mod outbox;
pub mod provider;
pub mod reconcile;
pub mod saga;
pub mod trace;

/// A service, and the schema that it owns.
pub const SERVICES: [(&str, &str); 3] = [("user", "users"), ("product", "products"), ("order", "orders")];
