//! `/v1/payment_intents`: <https://docs.stripe.com/api/payment_intents>.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use super::extract::{Form, Id, Query};
use super::paging::{self, Paging};
use super::{Provider, Result};
use crate::commands::{Command, Confirmation, Create, Unattended};
use crate::currencies;
use crate::error::ApiError;
use crate::intents::{CaptureMethod, Details, Intent, Methods};
use crate::params::Params;
use crate::sandbox::new_id;
use crate::version::Version;

const EXPANDABLE: &str = "latest_charge";

pub async fn create(State(sandbox): Provider, form: Form) -> Result<Response> {
    let (version, pages) = (form.version, sandbox.pages(&form.here));
    let command = |params: &mut Params| {
        let amount = params.amount("amount")?.ok_or_else(|| ApiError::missing("amount"))?;
        let currency = params.currency()?;
        currencies::check_payment(amount, &currency)?;
        let capture_method = capture_method(params, version)?;
        let methods = methods(params, version)?;
        let payment_method = params.payment_method()?;
        let confirm = params.flag("confirm")?.unwrap_or(false);
        let how = confirmation(params, pages)?;
        if confirm && payment_method.is_none() {
            return Err(ApiError::missing("payment_method"));
        }
        if let (false, Some(param)) = (confirm, named(&how)) {
            return Err(ApiError::bad(param, format!("You may only pass {param} when confirm=true.")));
        }
        let details = Details {
            confirmation_method: params.word("confirmation_method", &["automatic", "manual"])?,
            description: params.short("description", 1000)?,
            receipt_email: params.email("receipt_email")?,
            statement_descriptor_suffix: params.short("statement_descriptor_suffix", 22)?,
        };
        Ok(Command::Create(Create {
            id: new_id("pi"),
            amount,
            currency,
            capture_method,
            payment_method,
            methods,
            details,
            metadata: params.metadata()?,
            confirm: confirm.then_some(how),
        }))
    };
    form.run(&sandbox, EXPANDABLE, command).await
}

fn capture_method(params: &mut Params, version: Version) -> Result<CaptureMethod> {
    let methods = ["automatic", "automatic_async", "manual"];
    Ok(match params.word("capture_method", &methods)?.as_deref() {
        Some("manual") => CaptureMethod::Manual,
        Some("automatic") => CaptureMethod::Automatic,
        None if !version.captures_later() => CaptureMethod::Automatic,
        _ => CaptureMethod::AutomaticAsync,
    })
}

fn methods(params: &mut Params, version: Version) -> Result<Methods> {
    let mut types = None;
    for (name, taken) in [
        ("payment_method_types", version.has_method_types()),
        ("allowed_payment_method_types", version.has_allowed_types()),
    ] {
        // What a version does not have is left among the parameters, and refused with them.
        if let Some(given) = if taken { params.list(name)? } else { None } {
            if let Some(other) = given.iter().find(|kind| *kind != "card") {
                let message =
                    format!("The payment method type provided: {other} is invalid. The sandbox takes cards.");
                return Err(ApiError::bad(name, message));
            }
            if types.replace(name).is_some() {
                return Err(ApiError::exclusive("payment_method_types, allowed_payment_method_types"));
            }
        }
    }
    let enabled = params.flag("automatic_payment_methods[enabled]")?;
    let redirects = params.word("automatic_payment_methods[allow_redirects]", &["always", "never"])?;
    if redirects.is_some() && enabled.is_none() {
        return Err(ApiError::missing("automatic_payment_methods[enabled]"));
    }
    match (enabled, types) {
        (Some(true), Some(types)) => Err(ApiError::exclusive(&format!("automatic_payment_methods, {types}"))),
        (Some(true), None) if redirects.as_deref() == Some("never") => Ok(Methods::AllWithoutRedirects),
        (Some(true), None) => Ok(Methods::All),
        (None, None) if version.takes_all_methods() => Ok(Methods::All),
        _ => Ok(Methods::Card),
    }
}

fn confirmation(params: &mut Params, pages: String) -> Result<Confirmation> {
    let off_session = params.flag("off_session")?.unwrap_or(false);
    let error = params.flag("error_on_requires_action")?.unwrap_or(false);
    let unattended = match (off_session, error) {
        (true, _) => Some(Unattended::OffSession),
        (false, true) => Some(Unattended::ErrorOnRequiresAction),
        (false, false) => None,
    };
    let return_url = params.url("return_url")?;
    Ok(Confirmation { charge: new_id("ch"), action: new_id("src"), pages, return_url, unattended })
}

/// A parameter that only a confirmation has, if one was given.
fn named(how: &Confirmation) -> Option<&'static str> {
    match (&how.return_url, how.unattended) {
        (Some(_), _) => Some("return_url"),
        (None, Some(Unattended::OffSession)) => Some("off_session"),
        (None, Some(Unattended::ErrorOnRequiresAction)) => Some("error_on_requires_action"),
        (None, None) => None,
    }
}

pub async fn confirm(State(sandbox): Provider, Id(id): Id, form: Form) -> Result<Response> {
    let pages = sandbox.pages(&form.here);
    let command = |params: &mut Params| {
        let payment_method = params.payment_method()?;
        Ok(Command::Confirm { id, payment_method, how: confirmation(params, pages)? })
    };
    form.run(&sandbox, EXPANDABLE, command).await
}

pub async fn capture(State(sandbox): Provider, Id(id): Id, form: Form) -> Result<Response> {
    let command =
        |params: &mut Params| Ok(Command::Capture { id, amount: params.amount("amount_to_capture")? });
    form.run(&sandbox, EXPANDABLE, command).await
}

pub async fn cancel(State(sandbox): Provider, Id(id): Id, form: Form) -> Result<Response> {
    let reasons = ["duplicate", "fraudulent", "requested_by_customer", "abandoned"];
    let command = |params: &mut Params| {
        Ok(Command::Cancel { id, reason: params.word("cancellation_reason", &reasons)? })
    };
    form.run(&sandbox, EXPANDABLE, command).await
}

pub async fn one(State(sandbox): Provider, Id(id): Id, Query(mut params): Query) -> Result<Json<Value>> {
    let expand = params.expand(EXPANDABLE)?;
    params.end()?;
    let found = sandbox.read(|book| book.intent(&id).map(|intent| intent.expanded(expand))).await?;
    found.map(Json).ok_or_else(|| ApiError::not_found("payment_intent", "intent", &id))
}

pub async fn list(State(sandbox): Provider, Query(mut params): Query) -> Result<Json<Value>> {
    let paging = Paging::of(&mut params)?;
    let expand = params.expand("data.latest_charge")?;
    params.end()?;
    let page = sandbox
        .read(|book| {
            let place = |id: &str| book.place(id);
            let view = |intent: &Intent| intent.expanded(expand);
            let created = |intent: &Intent| intent.created;
            paging.page(book.intents(), "payment_intent", place, created, view)
        })
        .await??;
    Ok(paging::list(page, "/v1/payment_intents"))
}
