//! What the shop promises, broken on purpose where that takes a fault: `docs/reliability.md`.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

mod p4;
mod p9;
