//! The payment provider, as Stripe's PaymentIntents API: form-encoded requests
//! with an `Idempotency-Key`, intents created unconfirmed and captured by hand.
//! <https://docs.stripe.com/api/payment_intents>

use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use uuid::Uuid;

use crate::saga::money::{Heard, RefundStatus};
use crate::saga::{Input, Intent};

/// Of a hundred refunds each; more than any order has.
const MOST_PAGES: usize = 20;

#[derive(Clone)]
pub struct Payments {
    client: reqwest::Client,
    url: String,
    secret_key: String,
}

#[derive(Debug, Deserialize)]
struct IntentBody {
    id: String,
    status: String,
    last_payment_error: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct ErrorBody {
    error: ProviderError,
}

#[derive(Debug, Deserialize)]
struct ProviderError {
    #[serde(rename = "type")]
    kind: String,
    code: Option<String>,
    payment_intent: Option<IntentBody>,
}

#[derive(Debug, Deserialize)]
struct RefundBody {
    id: String,
    amount: i64,
    status: String,
    #[serde(default)]
    metadata: std::collections::HashMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct List<T> {
    data: Vec<T>,
    #[serde(default)]
    has_more: bool,
}

/// What the provider answered, if it did.
enum Answer {
    Done(String),
    /// 4xx: it will not do this, now or later.
    Refused(ProviderError),
    None,
}

impl Payments {
    pub fn new(url: &str, secret_key: &str, call_deadline: Duration) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(call_deadline)
            .connect_timeout(Duration::from_secs(2))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("the payment client can't be built")?;
        Ok(Self { client, url: url.trim_end_matches('/').to_owned(), secret_key: secret_key.to_owned() })
    }

    /// Creates the order's intent, unconfirmed: nothing is charged yet.
    pub async fn create(&self, order: Uuid, amount: i64, currency: &str, method: &str) -> Input {
        let form = [
            ("amount", amount.to_string()),
            ("currency", currency.to_ascii_lowercase()),
            ("payment_method", method.to_owned()),
            ("capture_method", "manual".to_owned()),
            ("metadata[order_id]", order.to_string()),
        ];
        match self.post("/v1/payment_intents", &form, format!("{order}-create")).await {
            Answer::Done(body) => {
                parse::<IntentBody>(&body).map_or(Input::NoAnswer, |intent| Input::Created(intent.id))
            }
            Answer::Refused(_) => Input::Refused,
            Answer::None => Input::NoAnswer,
        }
    }

    /// Asks for the money to be held. `attempt` tells attempts at one intent
    /// apart; the intent itself can be authorised once only.
    pub async fn confirm(&self, intent: &str, attempt: &str) -> Input {
        self.act(intent, "confirm", attempt).await
    }

    /// Takes the money that is held.
    pub async fn capture(&self, intent: &str, attempt: &str) -> Input {
        self.act(intent, "capture", attempt).await
    }

    /// Ends the intent, which frees held money.
    pub async fn cancel(&self, intent: &str, attempt: &str) -> Input {
        self.act(intent, "cancel", attempt).await
    }

    /// What has become of the intent.
    pub async fn retrieve(&self, intent: &str) -> Input {
        let request = self.client.get(format!("{}/v1/payment_intents/{intent}", self.url));
        self.fact(self.send(request).await)
    }

    /// Gives captured money back. `refund` is our id of it and the call's key, so
    /// that asking again, as long as the provider keeps its keys, makes no second one.
    pub async fn refund(&self, intent: &str, refund: Uuid, amount: i64) -> Input {
        let form = [
            ("payment_intent", intent.to_owned()),
            ("amount", amount.to_string()),
            ("metadata[refund_id]", refund.to_string()),
        ];
        match self.post("/v1/refunds", &form, refund.to_string()).await {
            Answer::Done(body) => {
                parse::<RefundBody>(&body).map_or(Input::NoAnswer, |made| Input::Heard(heard(made)))
            }
            // Another refund under our key: a look at them tells which.
            Answer::Refused(error) if error.kind == "idempotency_error" => Input::NoAnswer,
            Answer::Refused(_) => Input::Heard(Heard {
                ours: Some(refund),
                provider_id: None,
                amount,
                status: RefundStatus::Failed,
                fresh: refund,
            }),
            Answer::None => Input::NoAnswer,
        }
    }

    /// All refunds of an intent, oldest first; `None` without an answer.
    pub async fn refunds(&self, intent: &str) -> Option<Vec<Heard>> {
        let mut made: Vec<RefundBody> = Vec::new();
        for _ in 0..MOST_PAGES {
            let mut query = vec![("payment_intent", intent.to_owned()), ("limit", "100".to_owned())];
            query.extend(made.last().map(|last| ("starting_after", last.id.clone())));
            let request = self.client.get(format!("{}/v1/refunds", self.url)).query(&query);
            let Answer::Done(body) = self.send(request).await else { return None };
            let page = parse::<List<RefundBody>>(&body)?; // newest first
            made.extend(page.data);
            if !page.has_more {
                return Some(made.into_iter().rev().map(heard).collect());
            }
        }
        tracing::error!(intent, "payment.too_many_refunds");
        None
    }

    async fn act(&self, intent: &str, verb: &str, attempt: &str) -> Input {
        let path = format!("/v1/payment_intents/{intent}/{verb}");
        self.fact(self.post(&path, &[], format!("{intent}-{verb}-{attempt}")).await)
    }

    /// The fact in an answer about an intent. A refusal tells the intent's state too.
    fn fact(&self, answer: Answer) -> Input {
        match answer {
            Answer::Done(body) => parse::<IntentBody>(&body).and_then(|intent| state(&intent)),
            Answer::Refused(error) if error.kind == "card_error" => Some(Intent::Declined),
            Answer::Refused(error) => error.payment_intent.as_ref().and_then(state),
            Answer::None => None,
        }
        .map_or(Input::NoAnswer, Input::Intent)
    }

    async fn post(&self, path: &str, form: &[(&str, String)], key: String) -> Answer {
        let request = self.client.post(format!("{}{path}", self.url));
        self.send(request.header("Idempotency-Key", key).form(form)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let request = match service::telemetry::traceparent() {
            Some(traceparent) => request.header("traceparent", traceparent),
            None => request,
        };
        let exchange = async {
            let response = request.bearer_auth(&self.secret_key).send().await?;
            Ok::<_, reqwest::Error>((response.status(), response.text().await?))
        };
        let (status, body) = match exchange.await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(error = %error.without_url(), "payment.no_answer");
                return Answer::None;
            }
        };
        if status.is_success() {
            return Answer::Done(body);
        }
        // 401, 403: our key; 409: the same call is under way; 429: too fast. None is
        // an answer about the payment.
        let about_us = matches!(status.as_u16(), 401 | 403 | 409 | 429);
        if status.is_client_error()
            && !about_us
            && let Some(ErrorBody { error }) = parse(&body)
        {
            tracing::info!(status = status.as_u16(), code = error.code, "payment.refused");
            return Answer::Refused(error);
        }
        tracing::warn!(status = status.as_u16(), "payment.no_answer");
        Answer::None
    }
}

fn parse<T: serde::de::DeserializeOwned>(body: &str) -> Option<T> {
    serde_json::from_str(body).map_err(|error| tracing::error!(%error, "payment.answer_malformed")).ok()
}

/// <https://docs.stripe.com/api/refunds/object#refund_object-status>
fn heard(refund: RefundBody) -> Heard {
    Heard {
        ours: refund.metadata.get("refund_id").and_then(|id| id.parse().ok()),
        provider_id: Some(refund.id),
        amount: refund.amount,
        status: match refund.status.as_str() {
            "succeeded" => RefundStatus::Succeeded,
            "failed" | "canceled" => RefundStatus::Failed,
            _ => RefundStatus::Pending, // pending, requires_action
        },
        fresh: Uuid::now_v7(),
    }
}

/// <https://docs.stripe.com/payments/paymentintents/lifecycle>
fn state(intent: &IntentBody) -> Option<Intent> {
    Some(match intent.status.as_str() {
        "requires_payment_method" if intent.last_payment_error.is_some() => Intent::Declined,
        "requires_payment_method" | "requires_confirmation" => Intent::Unconfirmed,
        "processing" | "requires_action" => Intent::Processing,
        "requires_capture" => Intent::Authorised,
        "succeeded" => Intent::Captured,
        "canceled" => Intent::Cancelled,
        other => {
            tracing::error!(status = other, "payment.status_unknown");
            return None;
        }
    })
}
