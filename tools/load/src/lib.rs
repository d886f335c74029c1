//! Load for a shop: shoppers who browse, search, fill carts, order, and follow their orders.
//!
//! A `Generator` carries out a `Plan` and returns an `Outcome`; a `Report` is made of that. The order to read it in:
//! `plan`, `arrivals`, `generator`, `journey`, `record`, `verdict`, `report`.

pub mod accounts;
pub mod arrivals;
pub mod follow;
pub mod generator;
pub mod goods;
pub mod http;
pub mod journey;
pub mod noise;
pub mod options;
pub mod plan;
pub mod processes;
pub mod progress;
pub mod record;
pub mod report;
pub mod shop;
pub mod verdict;

use std::fmt;

/// Why a run does not begin, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}
