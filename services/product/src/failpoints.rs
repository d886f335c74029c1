//! Where tests have this service die, stall or fail: [`service::failpoint`].

/// All there are.
pub const ALL: &[&str] = &[
    // Stock, before and after the commit of each operation.
    "product.reserve.written",
    "product.reserve.committed",
    "product.commit.written",
    "product.commit.committed",
    "product.release.written",
    "product.release.committed",
    "product.expiry.written",
    "product.expiry.committed",
    "product.restock.written", // by an event; its commit is the consumer's
];
