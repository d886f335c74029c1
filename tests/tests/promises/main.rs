//! The ten promises of docs/reliability.md, one file each, tried against a running shop.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

mod faults;
