//! What docs/reliability.md promises, a file for each promise.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

mod p10;
