//! What an order is, and the rule by which it goes on: pure functions, without a database, a network or a clock.
//!
//! [`ids`] has the ids, [`number`] the numbers that people read out, [`order`] what an order is made of,
//! [`saga`] its way from the placed order to its end. With the feature `openapi` the types have schemas for
//! an OpenAPI document; with `sqlx` ids and words can be columns.

pub mod ids;
pub mod number;
pub mod order;
pub mod saga;
mod words;
