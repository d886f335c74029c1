//! The bank's page on which customers prove who they are (3-D Secure), or fail to.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};

use super::Provider;
use super::extract::Form;
use crate::commands::Command;
use crate::error::ApiError;
use crate::sandbox::{Asked, new_id};

/// An action of a customer that is still to be taken: in words, and where the page leads back to.
struct Open {
    sum: String,
    client_secret: String,
    return_url: Option<String>,
}

pub async fn show(
    State(sandbox): Provider,
    Path((intent, action)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let Some(open) = find(&sandbox, &intent, &action).await? else { return Ok(over()) };
    let button = |outcome: &str, text: &str| {
        format!("<form method=post><button name=outcome value={outcome}>{text}</button></form>")
    };
    let text = format!(
        "<h1>Is it you who pays {}?</h1>{}{}",
        open.sum,
        button("complete", "Complete authentication"),
        button("fail", "Fail authentication"),
    );
    Ok(page(StatusCode::OK, &text))
}

/// `outcome` is `complete` or `fail`. Leads back to the shop, or says how it ended where no way back was named.
pub async fn act(
    State(sandbox): Provider,
    Path((intent, action)): Path<(String, String)>,
    form: Form,
) -> Result<Response, ApiError> {
    let outcome = form.only("outcome", &["complete", "fail"])?;
    let Some(open) = find(&sandbox, &intent, &action).await? else { return Ok(over()) };
    let proved = outcome == "complete";
    let command = Command::Authenticate { id: intent.clone(), action, charge: new_id("ch"), proved };
    sandbox.run(Asked { command, expand: false }, None).await?;
    let status = if proved { "succeeded" } else { "failed" };
    let back = open.return_url.and_then(|back| url::Url::parse(&back).ok());
    let Some(mut back) = back else {
        return Ok(page(StatusCode::OK, &format!("<h1>Authentication has {status}.</h1>")));
    };
    back.query_pairs_mut()
        .append_pair("payment_intent", &intent)
        .append_pair("payment_intent_client_secret", &open.client_secret)
        .append_pair("redirect_status", status);
    Ok(Redirect::to(back.as_str()).into_response())
}

async fn find(
    sandbox: &crate::sandbox::Sandbox,
    intent: &str,
    action: &str,
) -> Result<Option<Open>, ApiError> {
    let open = |book: &crate::book::Book| {
        let intent = book.intent(intent)?;
        let open = intent.action.as_ref().filter(|open| open.id == action)?;
        Some(Open {
            sum: format!("{} {} in its smallest unit", intent.amount, intent.currency),
            client_secret: intent.client_secret(),
            return_url: open.return_url.clone(),
        })
    };
    sandbox.read(open).await
}

fn over() -> Response {
    page(StatusCode::NOT_FOUND, "<h1>There is nothing to authenticate here, or not any more.</h1>")
}

fn page(status: StatusCode, text: &str) -> Response {
    let text = format!("<!doctype html><meta charset=utf-8><title>3-D Secure sandbox</title>{text}\n");
    (status, Html(text)).into_response()
}
