//! What an order is, and the rule by which it goes on: pure functions, without a database, a network or a clock.
//!
//! [`order`] has what an order is made of, [`saga`] its way from the placed order to its end. The feature `openapi` lets
//! the types describe themselves in an OpenAPI document, `sqlx` lets words be read from columns.

pub mod order;
pub mod saga;
mod words;
