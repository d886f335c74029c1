//! `/v1/events`: the latest of them. <https://docs.stripe.com/api/events>

use axum::Json;
use axum::extract::State;
use serde_json::Value;

use super::extract::{Id, Query};
use super::paging::{self, Paging};
use super::{Provider, Result};
use crate::error::ApiError;
use crate::webhooks::Hook;

pub async fn one(State(sandbox): Provider, Id(id): Id, Query(params): Query) -> Result<Json<Value>> {
    params.end()?;
    let events = sandbox.events().await?;
    let found = events.iter().find(|event| event.id == id).map(|event| event.view(sandbox.version()));
    found.map(Json).ok_or_else(|| ApiError::not_found("event", "id", &id))
}

/// All, or those of `type` or of `types[]`.
pub async fn list(State(sandbox): Provider, Query(mut params): Query) -> Result<Json<Value>> {
    let paging = Paging::of(&mut params)?;
    let (one, several) = (params.text("type")?, params.list("types")?);
    if one.is_some() && several.is_some() {
        return Err(ApiError::exclusive("type, types"));
    }
    params.end()?;
    let kinds = several.or_else(|| one.map(|kind| vec![kind]));
    let mut events = sandbox.events().await?;
    events.retain(|event| kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|kind| kind == event.kind)));
    let all: Vec<&Hook> = events.iter().map(AsRef::as_ref).collect();
    let place = |id: &str| all.iter().position(|event| event.id == *id);
    let view = |event: &Hook| event.view(sandbox.version());
    let page = paging.page(&all, "event", place, |event: &Hook| event.at, view)?;
    Ok(paging::list(page, "/v1/events"))
}
