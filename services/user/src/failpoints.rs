//! Where tests have this service die, stall or fail: [`service::failpoint`].

/// All there are.
pub const ALL: &[&str] = &[
    // Accounts.
    "user.erasure.written",
    "user.erasure.committed",
];
