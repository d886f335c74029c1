//! Whom the order service calls: product and user by gRPC, the payment provider by HTTP.

pub mod payment;
pub mod product;
pub mod user;
