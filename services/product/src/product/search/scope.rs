//! The filters of a search, as tsqueries and conditions.

use words::Query;

use super::{Filters, Prices};

/// What is looked for.
pub struct Scope<'a> {
    pub filters: &'a Filters,
    pub query: Option<Query>,
    /// The tsquery of all that the query finds, without its exclusions.
    pub words: Option<String>,
    /// The tsquery of further conditions, wherever a product contains the words.
    pub also: Option<String>,
    /// The category with all below it.
    pub categories: Option<Vec<String>>,
    pub prices: Prices,
}

impl<'a> Scope<'a> {
    pub fn new(
        filters: &'a Filters,
        query: Option<Query>,
        categories: Option<Vec<String>>,
        prices: Prices,
    ) -> Self {
        let mut also = conditions(filters, query.as_ref(), None);
        let mut words = query.as_ref().and_then(of_words);
        if words.is_none() && !filters.attributes.is_empty() {
            words = also.take();
        }
        Self { filters, query, words, also, categories, prices }
    }
}

/// The tsquery of all that the query finds, without its exclusions; `None` when it has only exclusions.
pub fn of_words(query: &Query) -> Option<String> {
    match &query.without {
        Some(_) => query.found(),
        None => Some(query.found().unwrap_or_else(|| query.exact.clone())),
    }
}

/// The tsquery of the conditions besides the words, without the attribute of the name `except`.
pub fn conditions(filters: &Filters, query: Option<&Query>, except: Option<&str>) -> Option<String> {
    let attributes = filters.attributes.iter().filter(|(name, _)| Some(name.as_str()) != except);
    let attributes = attributes.map(|(name, value)| words::with_attribute(name, value));
    // A product may be called `Tee -Red`: its own name finds it all the same.
    let but = |query: &Query| Some(format!("(!({}) | {})", query.without.as_deref()?, query.exact));
    let conditions: Vec<String> = attributes.chain(query.and_then(but)).collect();
    (!conditions.is_empty()).then(|| conditions.join(" & "))
}
