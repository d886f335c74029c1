//! The payment provider, as Stripe's PaymentIntents API: form-encoded requests
//! with an `Idempotency-Key`, intents created unconfirmed and captured by hand.
//! <https://docs.stripe.com/api/payment_intents>
//!
//! The client reports what the provider said, in types of its own. The saga decides what that means for an
//! order.

mod alarms;
mod bodies;
mod errors;
mod http;
mod units;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use opentelemetry::metrics::Histogram;
use order_core::ids::{IntentId, OrderId, ProviderRefundId, RefundId};
use order_core::order::{Card, DeclineReason, Dispute, NextAction};
use order_core::saga::refunds::RefundStatus;
use service::Money;
use service::telemetry::duration_histogram;
use time::OffsetDateTime;

pub use self::alarms::Alarm;
use self::bodies::{DisputeBody, IntentBody, List, RefundBody, parse};
use self::errors::ProviderError;
use self::http::{Answer, Faults, digest, holds};
use self::units::Units;

const INTENTS: &str = "/v1/payment_intents";
const INTENT: &str = "/v1/payment_intents/{id}";
const REFUNDS: &str = "/v1/refunds";
const DISPUTES: &str = "/v1/disputes";

/// An intent is searched for from this long before its order was placed, as the provider's clock may differ.
const CLOCKS_APART: Duration = Duration::from_secs(60);

/// Asks for answers about an intent to include the charge in full, which names the card.
/// <https://docs.stripe.com/api/expanding_objects>
const WITH_CHARGE: (&str, &str) = ("expand[]", "latest_charge");

/// An order's intent that is to be created.
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

/// The outcome of a call is not known: no answer came, or one that says nothing about the payment. That is
/// not a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the payment provider has not said what came of it")]
pub struct NoAnswer;

/// The outcome of asking for an intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation {
    /// It exists, unconfirmed, under this id.
    Created(IntentId),
    /// It will not be created, now or later.
    Refused(DeclineReason),
}

/// How an intent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    Unconfirmed,
    Processing,
    Declined(DeclineReason),
    ActionRequired(NextAction),
    Authorised,
    /// From this card, where the provider names it.
    Captured(Option<Card>),
    Cancelled,
}

/// A refund that the provider has made or tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeRefund {
    pub id: ProviderRefundId,
    /// The id that we made it under; none of one that was made at the provider.
    pub ours: Option<RefundId>,
    pub amount: Money,
    pub status: RefundStatus,
}

/// The outcome of asking for a refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefundAnswer {
    Made(MadeRefund),
    /// This amount can't be refunded, now or later.
    Refused,
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
        Alarm::show_all();
        Ok(Self {
            client,
            url: url.trim_end_matches('/').to_owned(),
            secret_key: secret_key.to_owned(),
            return_url: return_url.map(str::to_owned).filter(|url| !url.is_empty()),
            faults: Arc::default(),
            calls: duration_histogram("http.client.request.duration", "Calls to the card provider."),
        })
    }

    /// Whether the provider refused our key a moment ago: nothing can be paid until that is mended.
    pub fn is_key_refused(&self) -> bool {
        holds(&self.faults.key)
    }

    /// Whether the provider refused our last request for an order a moment ago.
    pub fn is_our_mistake(&self, order: OrderId) -> bool {
        self.faults.is_of_request(order)
    }

    /// Creates the order's intent, unconfirmed: nothing is charged yet. Its key stays the same whatever
    /// parameters a later version adds. If an earlier version made an intent under it, the provider says so,
    /// and that intent is taken.
    pub async fn create(&self, intent: NewIntent<'_>) -> Result<Creation, NoAnswer> {
        let order = intent.order.to_string();
        let Some(amount) = intent.amount.for_cards() else {
            // Checked when the order was placed.
            tracing::error!(amount = %intent.amount, "payment.not_chargeable");
            return Ok(Creation::Refused(DeclineReason::AmountNotAccepted));
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
            Answer::KeyTaken => match self.made_for(&order, amount, intent.placed_at).await? {
                Some(made) => return Ok(Creation::Created(made.id.into())),
                // That request created none. This one has a key made of its parameters, so that it is safe to
                // repeat, too.
                None => self.post(INTENTS, INTENTS, &form, format!("{key}-{}", digest(&form))).await,
            },
            answer => answer,
        };
        match answer {
            Answer::Done(body) => {
                self.faults.record_request(intent.order, false);
                Ok(Creation::Created(parse::<IntentBody>(&body)?.id.into()))
            }
            Answer::Refused(error) if error.is_about_the_order() => Ok(Creation::Refused(error.reason())),
            Answer::Refused(error) => {
                self.faults.record_request(intent.order, true);
                error.alarm();
                Err(NoAnswer)
            }
            Answer::KeyTaken | Answer::NoPath | Answer::None => Err(NoAnswer),
        }
    }

    /// The first intent that was made for an order and such an amount, if one was.
    async fn made_for(
        &self,
        order: &str,
        amount: i64,
        placed_at: OffsetDateTime,
    ) -> Result<Option<IntentBody>, NoAnswer> {
        let since = (placed_at - CLOCKS_APART).unix_timestamp();
        let ours = |intent: &IntentBody| {
            let order = intent.metadata.get("order_id").is_some_and(|id| id == order);
            order && intent.amount.is_none_or(|found| found == amount)
        };
        let mut made = self.list(INTENTS, &[("created[gte]", since.to_string())], ours).await?;
        Ok(made.pop())
    }

    /// Asks for the money to be held. Each attempt at an intent has its own `attempt`; the intent itself can
    /// be authorised only once.
    pub async fn confirm(&self, payment: Payment<'_>, attempt: &str) -> Result<Intent, NoAnswer> {
        let back = self.return_url.as_ref().map(|url| url.replace("{order_id}", &payment.order.to_string()));
        let form: Vec<_> = back.into_iter().map(|url| ("return_url", url)).collect();
        self.act(payment, "confirm", &form, attempt).await
    }

    /// Takes the money that is held. An earlier version may have used this key without asking for the charge.
    /// Then the key is taken, and the intent is read instead.
    pub async fn capture(&self, payment: Payment<'_>, attempt: &str) -> Result<Intent, NoAnswer> {
        let (name, value) = WITH_CHARGE;
        self.act(payment, "capture", &[(name, value.to_owned())], attempt).await
    }

    /// Ends the intent, which frees held money.
    pub async fn cancel(&self, payment: Payment<'_>, attempt: &str) -> Result<Intent, NoAnswer> {
        self.act(payment, "cancel", &[], attempt).await
    }

    /// What has become of the intent.
    pub async fn retrieve(&self, payment: Payment<'_>) -> Result<Intent, NoAnswer> {
        let request = self.client.get(format!("{}/v1/payment_intents/{}", self.url, payment.intent));
        let answer = self.send("GET", INTENT, request.query(&[WITH_CHARGE])).await;
        if let Answer::Refused(error) = &answer
            && error.payment_intent.is_none()
        {
            error.alarm();
        }
        intent_of(answer, payment)
    }

    /// How the amounts of a payment are counted. Only an intent that an earlier version of ours made can say
    /// so, and only in currencies that the provider counts in another way.
    async fn units(&self, payment: Payment<'_>) -> Result<Units, NoAnswer> {
        if payment.total.is_counted_alike() {
            return Ok(Units::Providers);
        }
        let request = self.client.get(format!("{}/v1/payment_intents/{}", self.url, payment.intent));
        let Answer::Done(body) = self.send("GET", INTENT, request).await else { return Err(NoAnswer) };
        Units::of(&parse(&body)?, payment).ok_or(NoAnswer)
    }

    /// Refunds captured money. `refund` is our id of it and the call's key, so that asking again makes no
    /// second refund as long as the provider keeps its keys.
    pub async fn refund(
        &self,
        payment: Payment<'_>,
        refund: RefundId,
        amount: Money,
    ) -> Result<RefundAnswer, NoAnswer> {
        let units = self.units(payment).await?;
        let Some(sent) = units.count(amount) else {
            tracing::error!(%amount, "payment.not_refundable");
            return Ok(RefundAnswer::Refused);
        };
        let form = [
            ("payment_intent", payment.intent.to_string()),
            ("amount", sent.to_string()),
            ("metadata[refund_id]", refund.to_string()),
        ];
        match self.post(REFUNDS, REFUNDS, &form, refund.to_string()).await {
            Answer::Done(body) => {
                let made = bodies::refund(parse::<RefundBody>(&body)?, amount.currency, units);
                made.map(RefundAnswer::Made).ok_or(NoAnswer)
            }
            Answer::Refused(error) if error.ends_a_refund() => Ok(RefundAnswer::Refused),
            Answer::Refused(error) => {
                if !error.is_disputed() {
                    error.alarm();
                }
                Err(NoAnswer)
            }
            // The list of refunds shows which one was made under our key. Another key is never used: that
            // might make a second refund.
            Answer::KeyTaken | Answer::NoPath | Answer::None => Err(NoAnswer),
        }
    }

    /// All refunds of a payment, oldest first.
    pub async fn refunds(&self, payment: Payment<'_>) -> Result<Vec<MadeRefund>, NoAnswer> {
        let (units, currency) = (self.units(payment).await?, payment.total.currency);
        let query = [("payment_intent", payment.intent.to_string())];
        let made = self.list::<RefundBody>(REFUNDS, &query, |_| true).await?;
        Ok(made.into_iter().rev().filter_map(|made| bodies::refund(made, currency, units)).collect())
    }

    /// What has become of the disputes about a payment, taken together; `None` where there is none.
    /// <https://docs.stripe.com/api/disputes/object#dispute_object-status>
    pub async fn dispute(&self, payment: Payment<'_>) -> Result<Option<Dispute>, NoAnswer> {
        let query = [("payment_intent", payment.intent.as_str()), ("limit", "100")];
        let request = self.client.get(format!("{}{DISPUTES}", self.url)).query(&query);
        let disputes = match self.send("GET", DISPUTES, request).await {
            Answer::Done(body) => parse::<List<DisputeBody>>(&body)?.data,
            // A provider without disputes.
            Answer::NoPath => return Ok(None),
            Answer::Refused(error) if error.status == 404 => return Ok(None),
            _ => return Err(NoAnswer),
        };
        let all: Vec<Dispute> = disputes.iter().map(bodies::dispute).collect();
        let worst = [Dispute::Open, Dispute::Lost, Dispute::Won];
        Ok(worst.into_iter().find(|one| all.contains(one)))
    }

    async fn act(
        &self,
        payment: Payment<'_>,
        verb: &str,
        form: &[(&str, String)],
        attempt: &str,
    ) -> Result<Intent, NoAnswer> {
        let path = format!("/v1/payment_intents/{}/{verb}", payment.intent);
        let template = format!("{INTENT}/{verb}");
        let answer = self.post(&path, template, form, format!("{}-{verb}-{attempt}", payment.intent)).await;
        let mistake = match &answer {
            Answer::Refused(error) if error.kind != "card_error" => Some(error.clone()),
            _ => None,
        };
        let intent = intent_of(answer, payment);
        // Refused, and the intent is as it was before: so its state is not the reason, but what was asked
        // for.
        let is_unchanged = |error: &ProviderError| match (verb, &intent) {
            (_, Err(NoAnswer)) => error.payment_intent.is_none(),
            ("confirm", Ok(Intent::Unconfirmed)) | ("capture", Ok(Intent::Authorised)) => true,
            _ => false,
        };
        match mistake.filter(|error| is_unchanged(error)) {
            // Such as a card that was used up since.
            Some(error) if verb == "confirm" && error.is_about_the_order() => {
                // Where the refusal does not say how the intent is, an attempt whose answer got lost may have
                // held it.
                let now = if error.payment_intent.is_some() { intent } else { self.retrieve(payment).await };
                match now {
                    Ok(Intent::Unconfirmed) => Ok(Intent::Declined(error.reason())),
                    other => other,
                }
            }
            Some(error) => {
                self.faults.record_request(payment.order, true);
                error.alarm();
                Err(NoAnswer)
            }
            None => intent,
        }
    }
}

/// The state of the intent by an answer about it. A refusal has it, too.
fn intent_of(answer: Answer, payment: Payment<'_>) -> Result<Intent, NoAnswer> {
    match answer {
        Answer::Done(body) => bodies::state(&parse::<IntentBody>(&body)?, payment),
        Answer::Refused(error) if error.kind == "card_error" => Ok(Intent::Declined(error.reason())),
        // The intent is in another state than we thought, or we have made a mistake.
        Answer::Refused(error) => match &error.payment_intent {
            Some(intent) => bodies::state(intent, payment),
            None => Err(NoAnswer),
        },
        // The next call asks what has become of it, and the one after that has another key.
        Answer::KeyTaken | Answer::NoPath | Answer::None => Err(NoAnswer),
    }
}

#[cfg(test)]
mod tests;
