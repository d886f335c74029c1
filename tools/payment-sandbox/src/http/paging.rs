//! Lists, newest first, a page at a time: <https://docs.stripe.com/api/pagination>.

use std::borrow::Borrow;

use axum::Json;
use serde_json::{Value, json};

use super::Result;
use crate::error::ApiError;
use crate::params::Params;

/// Which part of a list is asked for.
pub struct Paging {
    limit: usize,
    cursor: Option<Cursor>,
    /// Unix seconds of when what is listed was made.
    since: u64,
    until: u64,
}

enum Cursor {
    After(String),
    Before(String),
}

impl Paging {
    pub fn of(params: &mut Params) -> Result<Self> {
        let limit = params.integer("limit", 1..=100)?.unwrap_or(10);
        let cursor = match (params.text("starting_after")?, params.text("ending_before")?) {
            (Some(_), Some(_)) => return Err(ApiError::exclusive("starting_after, ending_before")),
            (Some(id), None) => Some(Cursor::After(id)),
            (None, Some(id)) => Some(Cursor::Before(id)),
            (None, None) => None,
        };
        let mut time = |name: &'static str| params.integer(name, 0..=u64::MAX);
        let (mut since, mut until) = (0, u64::MAX);
        if let Some(at) = time("created")? {
            (since, until) = (at, at);
        }
        since = since.max(time("created[gte]")?.unwrap_or(0));
        since = since.max(time("created[gt]")?.map_or(0, |at| at.saturating_add(1)));
        until = until.min(time("created[lte]")?.unwrap_or(u64::MAX));
        until = until.min(time("created[lt]")?.map_or(u64::MAX, |at| at.saturating_sub(1)));
        Ok(Self { limit: usize::try_from(limit).unwrap_or(100), cursor, since, until })
    }

    /// The page of what is `all`, oldest first, and `wanted`. `place` finds an id's there, `created` is in milliseconds.
    pub fn page<T, R: Borrow<T>>(
        &self,
        all: &[R],
        what: &str,
        place: impl Fn(&str) -> Option<usize>,
        created: impl Fn(&T) -> u64,
        view: impl Fn(&T) -> Value,
    ) -> Result<(Vec<Value>, bool)> {
        // Not up to the first older one: the clock may have been set back.
        let wanted = |item: &&T| (self.since..=self.until).contains(&(created(item) / 1000));
        let find = |id: &str, param: &'static str| {
            let missing = || ApiError::param("resource_missing", param, format!("No such {what}: '{id}'"));
            place(id).ok_or_else(missing)
        };
        let most = self.limit + 1;
        let mut found: Vec<&T> = match &self.cursor {
            None => all.iter().rev().map(Borrow::borrow).filter(wanted).take(most).collect(),
            Some(Cursor::After(id)) => {
                let older = all.get(..find(id, "starting_after")?).unwrap_or_default();
                older.iter().rev().map(Borrow::borrow).filter(wanted).take(most).collect()
            }
            Some(Cursor::Before(id)) => {
                let newer = all.get(find(id, "ending_before")? + 1..).unwrap_or_default();
                newer.iter().map(Borrow::borrow).filter(wanted).take(most).collect()
            }
        };
        let has_more = found.len() > self.limit;
        found.truncate(self.limit);
        if matches!(self.cursor, Some(Cursor::Before(_))) {
            found.reverse();
        }
        Ok((found.into_iter().map(view).collect(), has_more))
    }
}

pub fn list((page, has_more): (Vec<Value>, bool), url: &str) -> Json<Value> {
    Json(json!({ "object": "list", "data": page, "has_more": has_more, "url": url }))
}
