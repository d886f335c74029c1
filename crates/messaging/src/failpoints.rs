//! Where tests have a relay or a consumer die, stall or fail: [`service::failpoint`].

/// All there are.
pub const ALL: &[&str] = &[
    // Every service's relay.
    "relay.claimed",
    "relay.published", // and confirmed, but not marked
    "relay.marked",
    // Every service's consumer.
    "consumer.received",
    "consumer.applied",   // before the commit
    "consumer.committed", // and not yet acknowledged
    "consumer.put_aside", // in its retry queue or among the dead letters, and not yet acknowledged
];
