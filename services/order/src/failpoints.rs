//! Where tests have this service die, stall or fail: [`service::failpoint`].

/// All there are.
pub const ALL: &[&str] = &[
    // Placing an order.
    "order.place.claimed",    // the key is the request's, nothing is reserved
    "order.place.taken_over", // the same, of a request that died
    "order.place.reserved",
    "order.place.written",   // order, answer and event, before their commit
    "order.place.committed", // and not yet answered
    "order.place.refused",   // the refusal is stored, and not yet answered
    // The saga: a worker has taken it; each call, before it is made, and once it is answered and not yet
    // applied.
    "order.saga.leased",
    "order.saga.create.before",
    "order.saga.create.after",
    "order.saga.confirm.before",
    "order.saga.confirm.after",
    "order.saga.retrieve.before",
    "order.saga.retrieve.after",
    "order.saga.commit.before",
    "order.saga.commit.after",
    "order.saga.capture.before",
    "order.saga.capture.after",
    "order.saga.cancel.before",
    "order.saga.cancel.after",
    "order.saga.refund.before",
    "order.saga.refund.after",
    "order.saga.inquire.before", // before an inquiry, which a webhook or a refund by staff has caused
    "order.saga.inquire.after",
    "order.saga.written", // what an answer changes, before its commit
    "order.saga.committed",
    // A refund by staff: written with its answer.
    "order.refund.written",
    "order.refund.committed",
    // Recovery: abandoned claims, erased users.
    "order.sweep.taken",    // the sweeper holds them, their stock is still reserved
    "order.sweep.released", // and not yet released
    "order.erasure.written",
];
