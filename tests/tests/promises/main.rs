//! The promises of docs/reliability.md, each tried against a running shop.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

mod p7;
