//! What an order is, and the rule by which it goes on: pure functions, without a database, a network or a clock.
//!
//! [`ids`] has the ids, [`number`] the numbers that people read out, [`order`] what an order is made of, [`saga`] its way from the placed order to its end. The feature `openapi` lets
//! the types describe themselves in an OpenAPI document, `sqlx` lets ids and words be columns.

pub mod ids;
pub mod number;
pub mod order;
pub mod saga;
mod words;
