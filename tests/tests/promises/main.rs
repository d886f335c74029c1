//! What Dockside promises, tested against a running shop: docs/reliability.md.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

mod p8;
