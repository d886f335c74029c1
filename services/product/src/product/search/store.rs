//! The SQL of searches.

pub mod attributes;
pub mod facets;
pub mod lists;
pub mod spelling;
