//! Whom the order service calls: product by gRPC, the payment provider by HTTP.

pub mod payment;
pub mod product;
