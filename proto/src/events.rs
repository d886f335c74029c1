//! The types of events, and who gets them. Their bodies are the messages of the same names.

pub const ORDER_PLACED: &str = "order.placed.v1";
pub const ORDER_CONFIRMED: &str = "order.confirmed.v1";
pub const ORDER_CANCELLED: &str = "order.cancelled.v1";
pub const ORDER_SHIPPED: &str = "order.shipped.v1";
pub const ORDER_DELIVERED: &str = "order.delivered.v1";
pub const ORDER_REFUNDED: &str = "order.refunded.v1";
pub const PRODUCT_UPDATED: &str = "product.updated.v1";
pub const USER_REGISTERED: &str = "user.registered.v1";
pub const USER_DELETED: &str = "user.deleted.v1";

/// A consuming service and the event types it gets.
pub const SUBSCRIPTIONS: &[(&str, &[&str])] = &[
    (
        "user",
        &[ORDER_PLACED, ORDER_CONFIRMED, ORDER_CANCELLED, ORDER_SHIPPED, ORDER_DELIVERED, ORDER_REFUNDED],
    ),
    ("product", &[ORDER_CANCELLED, ORDER_REFUNDED]),
    ("order", &[PRODUCT_UPDATED, USER_DELETED]),
];
