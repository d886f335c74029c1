//! One exchange with the provider: what is sent with every request, how its answer is read, and how it is measured.
//!
//! Only two kinds of error are about the payment: `card_error`, and `invalid_request_error`. All others are about us,
//! or about the provider, and leave open what becomes of it. <https://docs.stripe.com/api/errors>

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use order_core::ids::OrderId;
use service::telemetry::{Timer, label};
use sha2::{Digest, Sha256};

use super::alarms::Alarm;
use super::bodies::{List, Listed, parse};
use super::errors::{ErrorBody, ProviderError};
use super::{NoAnswer, Payments};

/// The version of the API whose parameters, statuses and errors are used here:
/// <https://docs.stripe.com/upgrades>.
const API_VERSION: &str = "2025-08-27.basil";

/// Of a hundred each: more refunds than any order has, more intents than are made while one order waits.
const MOST_PAGES: usize = 100;

/// After our key was refused, no orders are taken for this long. Then one order shows whether it is still
/// refused.
const FAULT_HOLDS: Duration = Duration::from_secs(10);

/// What the provider refused because of a mistake of ours, and when; cleared once it accepts the same.
#[derive(Default)]
pub struct Faults {
    pub key: Mutex<Option<Instant>>,
    /// By order: other orders are not affected.
    pub requests: Mutex<HashMap<OrderId, Instant>>,
}

impl Faults {
    pub fn record_request(&self, order: OrderId, is: bool) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.retain(|_, at| at.elapsed() < FAULT_HOLDS);
        if is {
            requests.insert(order, Instant::now());
        } else {
            requests.remove(&order);
        }
    }

    pub fn is_of_request(&self, order: OrderId) -> bool {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.get(&order).is_some_and(|at| at.elapsed() < FAULT_HOLDS)
    }
}

pub fn record(fault: &Mutex<Option<Instant>>, is: bool) {
    *fault.lock().unwrap_or_else(PoisonError::into_inner) = is.then(Instant::now);
}

pub fn holds(fault: &Mutex<Option<Instant>>) -> bool {
    let at = *fault.lock().unwrap_or_else(PoisonError::into_inner);
    at.is_some_and(|at| at.elapsed() < FAULT_HOLDS)
}

/// What the provider answered, if it did.
pub enum Answer {
    Done(String),
    /// It will not do this, now or later.
    Refused(Box<ProviderError>),
    /// Our key came with another request before, from an earlier version of ours. The result of that has to
    /// be looked up.
    KeyTaken,
    /// There is nothing at this path, and the answer may not even come from the provider.
    NoPath,
    None,
}

impl Payments {
    /// The wanted items of a list, newest first. The caller has a deadline.
    pub async fn list<T: Listed>(
        &self,
        path: &'static str,
        filter: &[(&str, String)],
        wanted: impl Fn(&T) -> bool,
    ) -> Result<Vec<T>, NoAnswer> {
        let mut found = Vec::new();
        let mut last: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let mut query = filter.to_vec();
            query.push(("limit", "100".to_owned()));
            query.extend(last.take().map(|last| ("starting_after", last)));
            let request = self.client.get(format!("{}{path}", self.url)).query(&query);
            let Answer::Done(body) = self.send("GET", path, request).await else { return Err(NoAnswer) };
            let page = parse::<List<T>>(&body)?;
            last = page.data.last().map(|last| last.id().to_owned());
            found.extend(page.data.into_iter().filter(&wanted));
            if !page.has_more || last.is_none() {
                return Ok(found);
            }
        }
        tracing::error!(path, ?filter, "payment.too_many_listed");
        Alarm::AnswerUnknown.count();
        Err(NoAnswer)
    }

    pub async fn post(
        &self,
        path: &str,
        template: impl Into<String>,
        form: &[(&str, String)],
        key: String,
    ) -> Answer {
        let request = self.client.post(format!("{}{path}", self.url));
        self.send("POST", template, request.header("Idempotency-Key", key).form(form)).await
    }

    /// Measured by its path as a `template`, without ids.
    pub async fn send(
        &self,
        method: &'static str,
        template: impl Into<String>,
        request: reqwest::RequestBuilder,
    ) -> Answer {
        let template: String = template.into();
        let labels = vec![label("http.request.method", method), label("url.template", template)];
        let timer = Timer::start(&self.calls, labels, label("error.type", "given_up"));
        let request = match service::telemetry::traceparent() {
            Some(traceparent) => request.header("traceparent", traceparent),
            None => request,
        };
        let exchange = async {
            let response =
                request.bearer_auth(&self.secret_key).header("Stripe-Version", API_VERSION).send().await?;
            Ok::<_, reqwest::Error>((response.status(), response.text().await?))
        };
        let (status, body) = match exchange.await {
            Ok(answer) => answer,
            Err(error) => {
                timer.stop(label("error.type", "no_answer"));
                tracing::warn!(error = %error.without_url(), "payment.no_answer");
                return Answer::None;
            }
        };
        timer.stop(label("http.response.status_code", i64::from(status.as_u16())));
        if matches!(status.as_u16(), 401 | 403) {
            record(&self.faults.key, true);
            tracing::error!(http.response.status_code = status.as_u16(), "payment.key_refused");
            Alarm::KeyRefused.count();
            return Answer::None;
        }
        record(&self.faults.key, false);
        if status.is_success() {
            return Answer::Done(body);
        }
        // 409: the same call is under way; 429: too many requests. Neither is an answer about the payment.
        let about_us = matches!(status.as_u16(), 409 | 429);
        let error = (status.is_client_error() && !about_us)
            .then(|| serde_json::from_str::<ErrorBody>(&body).ok())
            .flatten();
        let status = status.as_u16();
        let Some(ErrorBody { mut error }) = error else {
            tracing::warn!(http.response.status_code = status, "payment.no_answer");
            return if status == 404 { Answer::NoPath } else { Answer::None };
        };
        match error.kind.as_str() {
            "card_error" | "invalid_request_error" => {
                tracing::info!(http.response.status_code = status, code = error.code, "payment.refused");
                error.status = status;
                Answer::Refused(Box::new(error))
            }
            "idempotency_error" => {
                tracing::warn!(http.response.status_code = status, "payment.key_taken");
                Answer::KeyTaken
            }
            kind => {
                tracing::warn!(
                    http.response.status_code = status,
                    kind,
                    code = error.code,
                    "payment.no_answer"
                );
                Answer::None
            }
        }
    }
}

/// Differs between requests with different parameters.
pub fn digest(form: &[(&str, String)]) -> String {
    let mut hash = Sha256::new();
    for (name, value) in form {
        hash.update(format!("{name}={value}\n"));
    }
    hex::encode(&hash.finalize()[..8])
}
