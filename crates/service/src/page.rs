//! Keyset pages: a limit, an opaque cursor, and the answer's envelope.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{Array, ArrayBuilder, Ref};
use utoipa::{IntoParams, ToSchema};

use crate::Problem;

/// `?limit=` and `?cursor=`, to be flattened into a list's query.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PageQuery {
    pub limit: Option<String>,
    pub cursor: Option<String>,
}

impl PageQuery {
    /// Items wanted: 1..=100, 20 by default; 422 otherwise.
    pub fn limit(&self) -> Result<i64, Problem> {
        let Some(text) = &self.limit else { return Ok(20) };
        let limit = text.parse().ok().filter(|limit| (1..=100).contains(limit));
        limit.ok_or_else(|| {
            Problem::invalid(vec![crate::FieldError::new("/limit", "out_of_range", "From 1 to 100.")])
        })
    }

    /// The sort values of the last item seen; 400 `invalid_cursor` when the
    /// cursor is not one of ours.
    pub fn after<K: DeserializeOwned>(&self) -> Result<Option<K>, Problem> {
        let Some(cursor) = &self.cursor else {
            return Ok(None);
        };
        BASE64
            .decode(cursor)
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .map(Some)
            .ok_or_else(invalid_cursor)
    }
}

pub fn invalid_cursor() -> Problem {
    Problem::bad_request("invalid_cursor", "The cursor is not one that this list gave.")
}

/// [`PageQuery`] in the OpenAPI document.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only described")]
pub struct PageParams {
    /// How many items at most.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u8>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// The cursor for `key`, which [`PageQuery::after`] gives back. `None` for what JSON can't hold.
pub fn encode(key: &impl Serialize) -> Option<String> {
    serde_json::to_vec(key).ok().map(|json| BASE64.encode(json))
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    #[schema(schema_with = references::<T>)]
    pub items: Vec<T>,
    /// Where the next page begins; null on the last one.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// By their name, where utoipa would write the items out again in each page.
fn references<T: ToSchema>() -> Array {
    ArrayBuilder::new().items(Ref::from_schema_name(T::name())).build()
}

impl<T> Page<T> {
    /// From up to `limit + 1` rows: the additional one only shows that there is a next page. `key` gives the
    /// sort values of an item, unique together.
    pub fn new<K: Serialize>(mut rows: Vec<T>, limit: i64, key: impl Fn(&T) -> K) -> Self {
        let limit = usize::try_from(limit).unwrap_or(0);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let last = rows.last().filter(|_| more);
        let next_cursor = last.and_then(|item| encode(&key(item)));
        Self { items: rows, next_cursor }
    }

    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), next_cursor: self.next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_the_key_of_the_last_item() {
        let page = Page::new(vec![1, 2, 3], 2, |n| ("k", *n));
        assert_eq!(page.items, [1, 2]);
        let query = PageQuery { limit: None, cursor: page.next_cursor };
        assert_eq!(query.after::<(String, i32)>().unwrap(), Some(("k".to_owned(), 2)));
        assert!(query.after::<Vec<bool>>().is_err());
        assert_eq!(Page::new(vec![1, 2], 2, |n| *n).next_cursor, None);
    }

    #[test]
    fn a_limit_out_of_range_is_refused_not_clamped() {
        for bad in ["0", "101", "-1", "x", ""] {
            let query = PageQuery { limit: Some(bad.to_owned()), cursor: None };
            assert_eq!(query.limit().unwrap_err().status, 422, "{bad}");
        }
    }
}
