//! The ten promises of docs/reliability.md, tried against a running shop.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

mod access;
mod crashes;
mod dead_letters;
mod faults;
mod idempotency;
mod overload;
mod rolling_restart;
