//! The payment provider, as Stripe's PaymentIntents API: form-encoded requests
//! with an `Idempotency-Key`, intents created unconfirmed and captured by hand.
//! <https://docs.stripe.com/api/payment_intents>

use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use uuid::Uuid;

use crate::saga::{Input, Intent};

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
    status: String,
    #[serde(default)]
    metadata: std::collections::HashMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct List<T> {
    data: Vec<T>,
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

    /// Gives captured money back; `refund` is our id of it. One that was asked
    /// for before is found by that id; only after it has failed for good is it
    /// asked for under another key.
    pub async fn refund(&self, intent: &str, refund: Uuid, amount: i64, attempts: i32) -> Input {
        let made = if attempts == 0 { None } else { self.find_refund(intent, refund).await };
        let key = match made.as_deref() {
            Some("succeeded") => return Input::Refunded,
            Some("failed" | "canceled") => format!("{refund}-{attempts}"),
            Some(_) => return Input::NoAnswer, // under way
            None => refund.to_string(),
        };
        let form = [
            ("payment_intent", intent.to_owned()),
            ("amount", amount.to_string()),
            ("metadata[refund_id]", refund.to_string()),
        ];
        let Answer::Done(body) = self.post("/v1/refunds", &form, key).await else { return Input::NoAnswer };
        let succeeded = parse::<RefundBody>(&body).is_some_and(|made| made.status == "succeeded");
        if succeeded { Input::Refunded } else { Input::NoAnswer }
    }

    /// The status of the latest refund that was made under our id.
    async fn find_refund(&self, intent: &str, refund: Uuid) -> Option<String> {
        let query = [("payment_intent", intent), ("limit", "100")];
        let request = self.client.get(format!("{}/v1/refunds", self.url)).query(&query);
        let Answer::Done(body) = self.send(request).await else { return None };
        let ours = refund.to_string();
        let made = parse::<List<RefundBody>>(&body)?.data.into_iter(); // newest first
        made.filter(|made| made.metadata.get("refund_id") == Some(&ours)).map(|made| made.status).next()
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
