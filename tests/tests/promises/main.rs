//! The ten promises of docs/reliability.md, tried against a running shop.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

mod faults;
mod p1;
mod p10;
mod p4;
mod p7;
mod p8;
mod p9;
