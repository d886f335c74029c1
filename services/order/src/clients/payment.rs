//! The payment provider, as Stripe's PaymentIntents API: form-encoded requests
//! with an `Idempotency-Key`, intents created unconfirmed and captured by hand.
//! <https://docs.stripe.com/api/payment_intents>
//!
//! Only two kinds of error are about the payment: `card_error`, and `invalid_request_error`. All others are about us,
//! or about the provider, and leave open what becomes of it. <https://docs.stripe.com/api/errors>

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use opentelemetry::metrics::Histogram;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use service::Money;
use service::money::Currency;
use service::telemetry::{Timer, duration_histogram, label};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use order_core::ids::{IntentId, OrderId, RefundId};
use order_core::order::{Card, DeclineReason, Dispute, NextAction};
use order_core::saga::refunds::{RefundReport, RefundStatus};
use order_core::saga::{Input, IntentStatus};

/// Of a hundred each: more refunds than any order has, more intents than are made while one order waits.
const MOST_PAGES: usize = 100;

const INTENTS: &str = "/v1/payment_intents";
const INTENT: &str = "/v1/payment_intents/{id}";
const REFUNDS: &str = "/v1/refunds";
const DISPUTES: &str = "/v1/disputes";

/// An intent is looked for from so long before its order, as the provider's clock may be another.
const CLOCKS_APART: Duration = Duration::from_secs(60);

/// Whose parameters, statuses and errors are those below: <https://docs.stripe.com/upgrades>.
const API_VERSION: &str = "2025-08-27.basil";

/// Has an answer about an intent come with the charge in full, which tells the card.
/// <https://docs.stripe.com/api/expanding_objects>
const WITH_CHARGE: (&str, &str) = ("expand[]", "latest_charge");

/// After our key was refused, no orders are taken for so long; then one shows whether it is still.
const FAULT_HOLDS: Duration = Duration::from_secs(10);

/// An order's intent that is to be.
pub struct NewIntent<'a> {
    pub order: OrderId,
    /// When it was placed: the intent is younger.
    pub placed_at: OffsetDateTime,
    pub amount: Money,
    pub method: &'a str,
}

/// An order's intent, and what it is for.
#[derive(Clone, Copy)]
pub struct Payment<'a> {
    pub intent: &'a IntentId,
    pub order: OrderId,
    pub total: Money,
}

/// What the provider refused for a reason that is ours: when that was, unless it has taken the same since.
#[derive(Default)]
struct Faults {
    key: Mutex<Option<Instant>>,
    request: Mutex<Option<Instant>>,
}

fn note(fault: &Mutex<Option<Instant>>, is: bool) {
    *fault.lock().unwrap_or_else(PoisonError::into_inner) = is.then(Instant::now);
}

fn holds(fault: &Mutex<Option<Instant>>) -> bool {
    let at = *fault.lock().unwrap_or_else(PoisonError::into_inner);
    at.is_some_and(|at| at.elapsed() < FAULT_HOLDS)
}

#[derive(Clone)]
pub struct Payments {
    client: reqwest::Client,
    url: String,
    secret_key: String,
    return_url: Option<String>,
    faults: Arc<Faults>,
    calls: Histogram<f64>,
}

#[derive(Debug, Deserialize)]
struct IntentBody {
    id: String,
    status: String,
    amount: Option<i64>,
    amount_received: Option<i64>,
    currency: Option<String>,
    client_secret: Option<String>,
    next_action: Option<NextActionBody>,
    last_payment_error: Option<ProviderError>,
    /// An id, or the charge. Whatever its form: what it tells is good to know, and nothing waits for it.
    latest_charge: Option<serde_json::Value>,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

/// <https://docs.stripe.com/api/payment_intents/object#payment_intent_object-next_action>
#[derive(Debug, Deserialize)]
struct NextActionBody {
    redirect_to_url: Option<RedirectBody>,
}

#[derive(Debug, Deserialize)]
struct RedirectBody {
    url: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ErrorBody {
    error: ProviderError,
}

#[derive(Debug, Deserialize)]
struct ProviderError {
    /// Of the HTTP answer.
    #[serde(skip)]
    status: u16,
    #[serde(rename = "type", default)]
    kind: String,
    code: Option<String>,
    decline_code: Option<String>,
    param: Option<String>,
    message: Option<String>,
    payment_intent: Option<Box<IntentBody>>,
}

#[derive(Debug, Deserialize)]
struct RefundBody {
    id: String,
    amount: i64,
    currency: Option<String>,
    status: String,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct DisputeBody {
    id: String,
    status: String,
}

#[derive(Debug, Deserialize)]
struct List<T> {
    data: Vec<T>,
    #[serde(default)]
    has_more: bool,
}

/// What is listed in pages.
trait Listed: DeserializeOwned {
    fn id(&self) -> &str;
}

impl Listed for IntentBody {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Listed for RefundBody {
    fn id(&self) -> &str {
        &self.id
    }
}

/// What the provider answered, if it did.
enum Answer {
    Done(String),
    /// It will not do this, now or later.
    Refused(Box<ProviderError>),
    /// Our key came with another request before, of an earlier version of ours. What has become of that is to be
    /// looked up.
    KeyTaken,
    /// There is nothing at this path, and whoever says so is not known.
    NoPath,
    None,
}

impl Payments {
    /// `return_url` is where customers come back to from their bank; `{order_id}` in it stands for their order's id.
    pub fn new(
        url: &str,
        secret_key: &str,
        return_url: Option<&str>,
        call_deadline: Duration,
    ) -> anyhow::Result<Self> {
        let client = service::socket::http_client(call_deadline).build();
        let client = client.context("the payment client can't be built")?;
        Ok(Self {
            client,
            url: url.trim_end_matches('/').to_owned(),
            secret_key: secret_key.to_owned(),
            return_url: return_url.map(str::to_owned).filter(|url| !url.is_empty()),
            faults: Arc::default(),
            calls: duration_histogram("http.client.request.duration", "Calls to the card provider."),
        })
    }

    /// Whether the provider has refused our key a moment ago: nothing can be paid until that is mended.
    pub fn is_key_refused(&self) -> bool {
        holds(&self.faults.key)
    }

    /// Whether the same is so of our key, or of what we ask for.
    pub fn is_our_fault(&self) -> bool {
        self.is_key_refused() || holds(&self.faults.request)
    }

    /// Creates the order's intent, unconfirmed: nothing is charged yet. Its key stays the same whatever parameters a
    /// later version adds: so that is told of an intent that an earlier one made, and takes it.
    pub async fn create(&self, intent: NewIntent<'_>) -> Input {
        let order = intent.order.to_string();
        let Some(amount) = intent.amount.for_cards() else {
            // Checked when the order was placed.
            tracing::error!(amount = %intent.amount, "payment.not_chargeable");
            return Input::Refused(DeclineReason::AmountNotAccepted);
        };
        let form = [
            ("amount", amount.to_string()),
            ("currency", intent.amount.currency.code().to_ascii_lowercase()),
            ("payment_method_types[]", "card".to_owned()),
            ("payment_method", intent.method.to_owned()),
            ("capture_method", "manual".to_owned()),
            ("metadata[order_id]", order.clone()),
        ];
        let key = format!("{order}-create");
        let answer = match self.post(INTENTS, INTENTS, &form, key.clone()).await {
            Answer::KeyTaken => match self.made_for(&order, amount, intent.placed_at).await {
                Some(Some(made)) => return Input::Created(made.id.into()),
                // It came to nothing. Under a key of these parameters, so that this too is safe to repeat.
                Some(None) => self.post(INTENTS, INTENTS, &form, format!("{key}-{}", digest(&form))).await,
                None => Answer::None,
            },
            answer => answer,
        };
        match answer {
            Answer::Done(body) => {
                note(&self.faults.request, false);
                parse::<IntentBody>(&body).map_or(Input::NoAnswer, |intent| Input::Created(intent.id.into()))
            }
            Answer::Refused(error) if error.is_about_the_order() => Input::Refused(error.reason()),
            Answer::Refused(error) => {
                note(&self.faults.request, true);
                error.alarm();
                Input::NoAnswer
            }
            Answer::KeyTaken | Answer::NoPath | Answer::None => Input::NoAnswer,
        }
    }

    /// The first intent that was made for an order and such an amount, if one was; `None` without an answer.
    async fn made_for(
        &self,
        order: &str,
        amount: i64,
        placed_at: OffsetDateTime,
    ) -> Option<Option<IntentBody>> {
        let since = (placed_at - CLOCKS_APART).unix_timestamp();
        let ours = |intent: &IntentBody| {
            let order = intent.metadata.get("order_id").is_some_and(|id| id == order);
            order && intent.amount.is_none_or(|found| found == amount)
        };
        let mut made = self.list(INTENTS, &[("created[gte]", since.to_string())], ours).await?;
        Some(made.pop())
    }

    /// Asks for the money to be held. `attempt` tells attempts at one intent
    /// apart; the intent itself can be authorised once only.
    pub async fn confirm(&self, payment: Payment<'_>, attempt: &str) -> Input {
        let back = self.return_url.as_ref().map(|url| url.replace("{order_id}", &payment.order.to_string()));
        let form: Vec<_> = back.into_iter().map(|url| ("return_url", url)).collect();
        self.act(payment, "confirm", &form, attempt).await
    }

    /// Takes the money that is held. Where an earlier version asked under this key, without a word of the charge, the
    /// key is taken, and the intent is looked at instead.
    pub async fn capture(&self, payment: Payment<'_>, attempt: &str) -> Input {
        let (name, value) = WITH_CHARGE;
        self.act(payment, "capture", &[(name, value.to_owned())], attempt).await
    }

    /// Ends the intent, which frees held money.
    pub async fn cancel(&self, payment: Payment<'_>, attempt: &str) -> Input {
        self.act(payment, "cancel", &[], attempt).await
    }

    /// What has become of the intent.
    pub async fn retrieve(&self, payment: Payment<'_>) -> Input {
        let request = self.client.get(format!("{}/v1/payment_intents/{}", self.url, payment.intent));
        fact(self.send("GET", INTENT, request.query(&[WITH_CHARGE])).await, payment)
    }

    /// How the amounts of a payment are counted; `None` without an answer. Only an intent tells that an earlier version of
    /// ours made, and only in currencies that the provider counts in another way.
    async fn units(&self, payment: Payment<'_>) -> Option<Units> {
        if payment.total.is_counted_alike() {
            return Some(Units::Providers);
        }
        let request = self.client.get(format!("{}/v1/payment_intents/{}", self.url, payment.intent));
        let Answer::Done(body) = self.send("GET", INTENT, request).await else { return None };
        Units::of(&parse(&body)?, payment)
    }

    /// Gives captured money back. `refund` is our id of it and the call's key, so
    /// that asking again, as long as the provider keeps its keys, makes no second one.
    pub async fn refund(&self, payment: Payment<'_>, refund: RefundId, amount: Money) -> Input {
        let refused = RefundReport {
            ours: Some(refund),
            provider_id: None,
            amount,
            status: RefundStatus::Failed,
            fresh: refund,
        };
        let Some(units) = self.units(payment).await else { return Input::NoAnswer };
        let Some(sent) = units.count(amount) else {
            tracing::error!(%amount, "payment.not_refundable");
            return Input::RefundReported(refused);
        };
        let form = [
            ("payment_intent", payment.intent.to_string()),
            ("amount", sent.to_string()),
            ("metadata[refund_id]", refund.to_string()),
        ];
        match self.post(REFUNDS, REFUNDS, &form, refund.to_string()).await {
            Answer::Done(body) => parse::<RefundBody>(&body)
                .and_then(|made| refund_report(made, amount.currency, units))
                .map_or(Input::NoAnswer, Input::RefundReported),
            Answer::Refused(error) if error.ends_a_refund() => Input::RefundReported(refused),
            Answer::Refused(error) => {
                if !error.is_disputed() {
                    error.alarm();
                }
                Input::NoAnswer
            }
            // The list of refunds tells which was made under our key. Never under another one: that might be a second.
            Answer::KeyTaken | Answer::NoPath | Answer::None => Input::NoAnswer,
        }
    }

    /// All refunds of a payment, oldest first; `None` without an answer.
    pub async fn refunds(&self, payment: Payment<'_>) -> Option<Vec<RefundReport>> {
        let (units, currency) = (self.units(payment).await?, payment.total.currency);
        let query = [("payment_intent", payment.intent.to_string())];
        let made = self.list::<RefundBody>(REFUNDS, &query, |_| true).await?;
        Some(made.into_iter().rev().filter_map(|made| refund_report(made, currency, units)).collect())
    }

    /// What has become of the disputes about a payment, taken together; `None` without an answer.
    /// <https://docs.stripe.com/api/disputes/object#dispute_object-status>
    pub async fn dispute(&self, payment: Payment<'_>) -> Option<Option<Dispute>> {
        let query = [("payment_intent", payment.intent.as_str()), ("limit", "100")];
        let request = self.client.get(format!("{}{DISPUTES}", self.url)).query(&query);
        let disputes = match self.send("GET", DISPUTES, request).await {
            Answer::Done(body) => parse::<List<DisputeBody>>(&body)?.data,
            // A provider without disputes.
            Answer::NoPath => return Some(None),
            Answer::Refused(error) if error.status == 404 => return Some(None),
            _ => return None,
        };
        let all: Vec<Dispute> = disputes.iter().map(dispute).collect();
        let worst = [Dispute::Open, Dispute::Lost, Dispute::Won];
        Some(worst.into_iter().find(|one| all.contains(one)))
    }

    /// Those of a list that are wanted, newest first; `None` without an answer. The caller has a deadline.
    async fn list<T: Listed>(
        &self,
        path: &'static str,
        filter: &[(&str, String)],
        wanted: impl Fn(&T) -> bool,
    ) -> Option<Vec<T>> {
        let mut found = Vec::new();
        let mut last: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let mut query = filter.to_vec();
            query.push(("limit", "100".to_owned()));
            query.extend(last.take().map(|last| ("starting_after", last)));
            let request = self.client.get(format!("{}{path}", self.url)).query(&query);
            let Answer::Done(body) = self.send("GET", path, request).await else { return None };
            let page = parse::<List<T>>(&body)?;
            last = page.data.last().map(|last| last.id().to_owned());
            found.extend(page.data.into_iter().filter(&wanted));
            if !page.has_more || last.is_none() {
                return Some(found);
            }
        }
        tracing::error!(path, ?filter, "payment.too_many_listed");
        None
    }

    async fn act(&self, payment: Payment<'_>, verb: &str, form: &[(&str, String)], attempt: &str) -> Input {
        let path = format!("/v1/payment_intents/{}/{verb}", payment.intent);
        let template = format!("{INTENT}/{verb}");
        fact(self.post(&path, template, form, format!("{}-{verb}-{attempt}", payment.intent)).await, payment)
    }

    async fn post(
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
    async fn send(
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
            note(&self.faults.key, true);
            tracing::error!(http.response.status_code = status.as_u16(), "payment.key_refused");
            return Answer::None;
        }
        note(&self.faults.key, false);
        if status.is_success() {
            return Answer::Done(body);
        }
        // 409: the same call is under way; 429: too fast. Neither is an answer about the payment.
        let about_us = matches!(status.as_u16(), 409 | 429);
        let error = (status.is_client_error() && !about_us).then(|| parse::<ErrorBody>(&body)).flatten();
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

impl ProviderError {
    /// Whether no later try at the same order can help: the card is none, or the amount is not taken. Anything else is a
    /// mistake of ours that can be mended.
    fn is_about_the_order(&self) -> bool {
        let method = self.param.as_deref() == Some("payment_method");
        let code = self.code.as_deref().unwrap_or_default();
        self.kind == "card_error" || method || matches!(code, "amount_too_small" | "amount_too_large")
    }

    /// Whether so much of this payment can't be given back, now or later: it went back already.
    /// <https://docs.stripe.com/error-codes>
    fn ends_a_refund(&self) -> bool {
        let code = self.code.as_deref().unwrap_or_default();
        matches!(code, "charge_already_refunded" | "amount_too_large")
            || self.param.as_deref() == Some("amount")
    }

    /// The customer's bank has the money until a dispute is decided.
    fn is_disputed(&self) -> bool {
        matches!(self.code.as_deref(), Some("charge_disputed" | "refund_disputed_payment"))
    }

    /// A mistake of ours, or of the provider: what was asked for is kept, and tried again.
    fn alarm(&self) {
        let (code, param, message) = (&self.code, &self.param, &self.message);
        tracing::error!(code, param, detail = message, "payment.our_mistake");
    }

    /// What the owner of a card may know. <https://docs.stripe.com/declines/codes>
    fn reason(&self) -> DeclineReason {
        let code = self.code.as_deref().unwrap_or_default();
        match self.decline_code.as_deref().unwrap_or(code) {
            "insufficient_funds" | "withdrawal_count_limit_exceeded" => DeclineReason::InsufficientFunds,
            "expired_card" => DeclineReason::ExpiredCard,
            "incorrect_number"
            | "invalid_number"
            | "incorrect_cvc"
            | "invalid_cvc"
            | "incorrect_zip"
            | "incorrect_address"
            | "incorrect_pin"
            | "invalid_pin"
            | "invalid_expiry_month"
            | "invalid_expiry_year"
            | "invalid_account"
            | "new_account_information_available" => DeclineReason::IncorrectDetails,
            "authentication_required"
            | "authentication_not_handled"
            | "mobile_device_authentication_required"
            | "offline_pin_required"
            | "online_or_offline_pin_required"
            | "payment_intent_authentication_failure" => DeclineReason::AuthenticationFailed,
            "card_not_supported"
            | "currency_not_supported"
            | "not_permitted"
            | "service_not_allowed"
            | "transaction_not_allowed" => DeclineReason::CardNotSupported,
            "card_velocity_exceeded" | "duplicate_transaction" | "pin_try_exceeded" => {
                DeclineReason::LimitExceeded
            }
            "amount_too_small" | "amount_too_large" | "invalid_amount" => DeclineReason::AmountNotAccepted,
            "approve_with_id"
            | "issuer_not_available"
            | "processing_error"
            | "reenter_transaction"
            | "try_again_later" => DeclineReason::TryAgainLater,
            _ => DeclineReason::Declined,
        }
    }
}

/// The fact in an answer about an intent. A refusal tells the intent's state too.
fn fact(answer: Answer, payment: Payment<'_>) -> Input {
    let fact = match answer {
        Answer::Done(body) => parse::<IntentBody>(&body).and_then(|intent| state(&intent, payment)),
        Answer::Refused(error) if error.kind == "card_error" => {
            Some(Input::IntentReported(IntentStatus::Declined(error.reason())))
        }
        // The intent is in another state than we thought, or we have made a mistake.
        Answer::Refused(error) => match &error.payment_intent {
            Some(intent) => state(intent, payment),
            None => {
                error.alarm();
                None
            }
        },
        // The next call asks what has become of it, and the one after that has another key.
        Answer::KeyTaken | Answer::NoPath | Answer::None => None,
    };
    fact.unwrap_or(Input::NoAnswer)
}

/// What tells requests with other parameters apart.
fn digest(form: &[(&str, String)]) -> String {
    let mut hash = Sha256::new();
    for (name, value) in form {
        hash.update(format!("{name}={value}\n"));
    }
    hex::encode(&hash.finalize()[..8])
}

fn parse<T: DeserializeOwned>(body: &str) -> Option<T> {
    serde_json::from_str(body).map_err(|error| tracing::error!(%error, "payment.answer_malformed")).ok()
}

/// How amounts of a payment are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Units {
    /// As the provider says.
    Providers,
    /// In ISO 4217's minor units, as an earlier version of ours sent them whatever the provider makes of it.
    Iso,
}

impl Units {
    /// Those of an intent, if it is of the order's total in one of them. What is left out is not looked at.
    fn of(intent: &IntentBody, payment: Payment<'_>) -> Option<Self> {
        match intent.amount {
            None => Some(Self::Providers),
            amount if amount == payment.total.for_cards() => Some(Self::Providers),
            Some(amount) if amount == payment.total.amount => Some(Self::Iso),
            Some(_) => None,
        }
    }

    fn count(self, amount: Money) -> Option<i64> {
        match self {
            Self::Providers => amount.for_cards(),
            Self::Iso => Some(amount.amount),
        }
    }

    fn read(self, amount: i64, currency: Currency) -> Option<Money> {
        match self {
            Self::Providers => Money::from_cards(amount, currency),
            Self::Iso => Some(Money::new(amount, currency)),
        }
    }
}

/// Inquiries take no money, and are over when they are `warning_closed`.
fn dispute(body: &DisputeBody) -> Dispute {
    match body.status.as_str() {
        "won" | "warning_closed" | "prevented" => Dispute::Won,
        "lost" => Dispute::Lost,
        // Somebody has to answer it, or waits for the bank.
        status => {
            tracing::error!(dispute = body.id, status, "payment.disputed");
            Dispute::Open
        }
    }
}

/// Whether this is the currency, as the provider writes it. What is left out is not looked at.
fn is_currency(text: Option<&str>, currency: Currency) -> bool {
    text.is_none_or(|text| text.eq_ignore_ascii_case(currency.code()))
}

/// `None` for one that is not in the order's currency, or of no whole number of minor units: it is not ours.
/// <https://docs.stripe.com/api/refunds/object#refund_object-status>
fn refund_report(refund: RefundBody, currency: Currency, units: Units) -> Option<RefundReport> {
    let amount = units.read(refund.amount, currency);
    let Some(amount) = amount.filter(|_| is_currency(refund.currency.as_deref(), currency)) else {
        tracing::error!(refund = refund.id, refund.amount, refund.currency, "payment.mismatch");
        return None;
    };
    Some(RefundReport {
        ours: refund.metadata.get("refund_id").and_then(|id| id.parse().ok()),
        provider_id: Some(refund.id.into()),
        amount,
        status: match refund.status.as_str() {
            "succeeded" => RefundStatus::Succeeded,
            "failed" | "canceled" => RefundStatus::Failed,
            // Somebody at the provider has to do something for it.
            "requires_action" => {
                tracing::error!("payment.refund_requires_action");
                RefundStatus::Pending
            }
            _ => RefundStatus::Pending,
        },
        fresh: Uuid::now_v7().into(),
    })
}

/// <https://docs.stripe.com/payments/paymentintents/lifecycle>
fn state(intent: &IntentBody, payment: Payment<'_>) -> Option<Input> {
    let held = matches!(intent.status.as_str(), "requires_capture" | "succeeded");
    if held && !is_for(intent, payment) {
        // Nothing is done about it: money that is not as it should be is for people to look at.
        tracing::error!(
            intent = intent.id, status = intent.status, amount = intent.amount, received = intent.amount_received,
            currency = intent.currency, order = intent.metadata.get("order_id"), total = %payment.total,
            "payment.mismatch"
        );
        return None;
    }
    Some(Input::IntentReported(match intent.status.as_str() {
        "requires_payment_method" => match &intent.last_payment_error {
            Some(error) => IntentStatus::Declined(error.reason()),
            None => IntentStatus::Unconfirmed,
        },
        "requires_confirmation" => IntentStatus::Unconfirmed,
        "requires_action" => return Some(Input::ActionRequired(action(intent))),
        "processing" => IntentStatus::Processing,
        "requires_capture" => IntentStatus::Authorised,
        "succeeded" => match card(intent) {
            Some(card) => return Some(Input::CapturedFrom(card)),
            None => IntentStatus::Captured,
        },
        "canceled" => IntentStatus::Cancelled,
        other => {
            tracing::error!(status = other, "payment.status_unknown");
            return None;
        }
    }))
}

/// Whether what is held, or was taken, is what the order comes to. What is left out is not looked at.
fn is_for(intent: &IntentBody, payment: Payment<'_>) -> bool {
    let Some(units) = Units::of(intent, payment) else { return false };
    if units == Units::Iso {
        tracing::warn!(intent = intent.id, total = %payment.total, "payment.old_units");
    }
    let whole = intent.amount_received.is_none_or(|received| Some(received) == units.count(payment.total));
    let received = intent.status != "succeeded" || whole;
    let order = intent.metadata.get("order_id").is_none_or(|id| *id == payment.order.to_string());
    received && is_currency(intent.currency.as_deref(), payment.total.currency) && order
}

/// The card of an intent's charge, where that came in full and tells it.
/// <https://docs.stripe.com/api/charges/object#charge_object-payment_method_details-card>
fn card(intent: &IntentBody) -> Option<Card> {
    let card = intent.latest_charge.as_ref()?.pointer("/payment_method_details/card")?;
    let text = |field: &str| card.get(field).and_then(serde_json::Value::as_str);
    Card::new(text("brand").unwrap_or_default(), text("last4")?)
}

fn action(intent: &IntentBody) -> NextAction {
    let redirect = intent.next_action.as_ref().and_then(|action| action.redirect_to_url.as_ref());
    let redirect_url = redirect.and_then(|redirect| redirect.url.clone());
    let client_secret = intent.client_secret.clone().filter(|_| redirect_url.is_none());
    NextAction { redirect_url, client_secret }
}

#[cfg(test)]
mod tests;
