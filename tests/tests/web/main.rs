//! The shop in a browser: Debian's Chromium, driven by its own driver, buys as a person does.
//!
//! `cargo dockside test web` starts a shop with its storefront and runs these tests, one at a time.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic as the test may")]

mod browser;
mod driver;
mod office;
mod pages;
mod purchase;
mod site;
mod trouble;
