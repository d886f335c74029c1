//! `/v1/refunds`: <https://docs.stripe.com/api/refunds>.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use super::extract::{Form, Id, Query};
use super::paging::{self, Paging};
use super::{Provider, Result};
use crate::commands::Command;
use crate::error::ApiError;
use crate::intents::Refund;
use crate::params::Params;
use crate::sandbox::new_id;

pub async fn create(State(sandbox): Provider, form: Form) -> Result<Response> {
    let command = |params: &mut Params| {
        let intent = params.required("payment_intent")?;
        let amount = params.amount("amount")?;
        let reason = params.word("reason", &["duplicate", "fraudulent", "requested_by_customer"])?;
        Ok(Command::Refund { id: new_id("re"), intent, amount, reason, metadata: params.metadata()? })
    };
    form.run(&sandbox, "payment_intent", command).await
}

pub async fn one(State(sandbox): Provider, Id(id): Id, Query(mut params): Query) -> Result<Json<Value>> {
    let expand = params.expand("payment_intent")?;
    params.end()?;
    let found = sandbox.read(|book| book.refund(&id).map(|refund| refund.expanded(book, expand))).await?;
    found.map(Json).ok_or_else(|| ApiError::not_found("refund", "refund", &id))
}

/// All, or those of `payment_intent`.
pub async fn list(State(sandbox): Provider, Query(mut params): Query) -> Result<Json<Value>> {
    let paging = Paging::of(&mut params)?;
    let intent = params.text("payment_intent")?;
    let expand = params.expand("data.payment_intent")?;
    params.end()?;
    let page = sandbox
        .read(|book| {
            let view = |refund: &Refund| refund.expanded(book, expand);
            let created = |refund: &Refund| refund.created;
            let Some(intent) = &intent else {
                let place = |id: &str| book.refund_place(id);
                return paging.page(book.refunds(), "refund", place, created, view);
            };
            if book.intent(intent).is_none() {
                return Err(ApiError::not_found("payment_intent", "payment_intent", intent));
            }
            let of = book.refunds_of(intent);
            let place = |id: &str| of.iter().position(|refund| refund.id == *id);
            paging.page(&of, "refund", place, created, view)
        })
        .await??;
    Ok(paging::list(page, "/v1/refunds"))
}
