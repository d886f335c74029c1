//! `/v1/disputes`: <https://docs.stripe.com/api/disputes>.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use super::extract::{Form, Id, Query};
use super::paging::{self, Paging};
use super::{Provider, Result};
use crate::commands::Command;
use crate::error::ApiError;
use crate::intents::Dispute;
use crate::params::Params;

/// Nothing of a dispute is shown in full.
const EXPANDABLE: &str = "";

/// Takes evidence that is submitted at once, as text.
pub async fn submit(State(sandbox): Provider, Id(id): Id, form: Form) -> Result<Response> {
    let command = |params: &mut Params| {
        let text = params.short("evidence[uncategorized_text]", 150_000)?;
        if params.flag("submit")? == Some(false) {
            return Err(ApiError::bad("submit", "The sandbox keeps no evidence: submit it."));
        }
        Ok(Command::SubmitEvidence { id, text })
    };
    form.run(&sandbox, EXPANDABLE, command).await
}

pub async fn close(State(sandbox): Provider, Id(id): Id, form: Form) -> Result<Response> {
    form.run(&sandbox, EXPANDABLE, |_| Ok(Command::CloseDispute { id })).await
}

pub async fn one(State(sandbox): Provider, Id(id): Id, Query(params): Query) -> Result<Json<Value>> {
    params.end()?;
    let found = sandbox.read(|book| book.dispute(&id).map(Dispute::view)).await?;
    found.map(Json).ok_or_else(|| ApiError::not_found("dispute", "dispute", &id))
}

/// All, or those of `payment_intent`.
pub async fn list(State(sandbox): Provider, Query(mut params): Query) -> Result<Json<Value>> {
    let paging = Paging::of(&mut params)?;
    let intent = params.text("payment_intent")?;
    params.end()?;
    let page = sandbox
        .read(|book| {
            let of = |dispute: &&Dispute| intent.as_ref().is_none_or(|intent| dispute.intent == *intent);
            let all: Vec<&Dispute> = book.disputes().iter().filter(of).collect();
            let place = |id: &str| all.iter().position(|dispute| dispute.id == *id);
            paging.page(&all, "dispute", place, |dispute: &Dispute| dispute.created, Dispute::view)
        })
        .await??;
    Ok(paging::list(page, "/v1/disputes"))
}
