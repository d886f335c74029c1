//! The bodies of the provider's answers, and what they say of an intent, a refund or a dispute.

use std::collections::HashMap;

use order_core::order::{Card, Dispute, NextAction};
use order_core::saga::refunds::RefundStatus;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use service::money::Currency;

use super::alarms::Alarm;
use super::errors::ProviderError;
use super::units::{Units, is_currency, is_for};
use super::{Intent, MadeRefund, NoAnswer, Payment};

#[derive(Clone, Debug, Deserialize)]
pub struct IntentBody {
    pub id: String,
    pub status: String,
    pub amount: Option<i64>,
    pub amount_received: Option<i64>,
    pub currency: Option<String>,
    client_secret: Option<String>,
    next_action: Option<NextActionBody>,
    last_payment_error: Option<ProviderError>,
    /// An id, or the charge. It is read if it has the expected form; nothing depends on it.
    latest_charge: Option<serde_json::Value>,
    #[serde(default)]
    pub metadata: HashMap<String, String>,
}

/// <https://docs.stripe.com/api/payment_intents/object#payment_intent_object-next_action>
#[derive(Clone, Debug, Deserialize)]
struct NextActionBody {
    redirect_to_url: Option<RedirectBody>,
}

#[derive(Clone, Debug, Deserialize)]
struct RedirectBody {
    url: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct RefundBody {
    id: String,
    amount: i64,
    currency: Option<String>,
    status: String,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct DisputeBody {
    id: String,
    status: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct List<T> {
    pub data: Vec<T>,
    #[serde(default)]
    pub has_more: bool,
}

/// What is listed in pages.
pub trait Listed: DeserializeOwned {
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

/// An answer that can't be read says nothing.
pub fn parse<T: DeserializeOwned>(body: &str) -> Result<T, NoAnswer> {
    serde_json::from_str(body).map_err(|error| {
        tracing::error!(%error, "payment.answer_malformed");
        Alarm::AnswerUnknown.count();
        NoAnswer
    })
}

/// <https://docs.stripe.com/payments/paymentintents/lifecycle>
pub fn state(intent: &IntentBody, payment: Payment<'_>) -> Result<Intent, NoAnswer> {
    let held = matches!(intent.status.as_str(), "requires_capture" | "succeeded");
    if held && !is_for(intent, payment) {
        // Nothing is done about it: a person has to look into an amount that is wrong.
        tracing::error!(
            intent = intent.id, status = intent.status, amount = intent.amount, received = intent.amount_received,
            currency = intent.currency, order = intent.metadata.get("order_id"), total = %payment.total,
            "payment.mismatch"
        );
        Alarm::Mismatch.count();
        return Err(NoAnswer);
    }
    Ok(match intent.status.as_str() {
        "requires_payment_method" => match &intent.last_payment_error {
            Some(error) => Intent::Declined(error.reason()),
            None => Intent::Unconfirmed,
        },
        "requires_confirmation" => Intent::Unconfirmed,
        "requires_action" => Intent::ActionRequired(action(intent)),
        "processing" => Intent::Processing,
        "requires_capture" => Intent::Authorised,
        "succeeded" => Intent::Captured(card(intent)),
        "canceled" => Intent::Cancelled,
        other => {
            tracing::error!(status = other, "payment.status_unknown");
            Alarm::AnswerUnknown.count();
            return Err(NoAnswer);
        }
    })
}

/// The card of an intent's charge, where the charge came in full and names it.
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

/// Inquiries take no money, and are over when they are `warning_closed`.
pub fn dispute(body: &DisputeBody) -> Dispute {
    match body.status.as_str() {
        "won" | "warning_closed" | "prevented" => Dispute::Won,
        "lost" => Dispute::Lost,
        // Somebody has to answer it, or waits for the bank.
        status => {
            tracing::error!(dispute = body.id, status, "payment.disputed");
            Alarm::Disputed.count();
            Dispute::Open
        }
    }
}

/// `None` for a refund that is not in the order's currency, or not of a whole number of minor units: it is
/// not ours.
/// <https://docs.stripe.com/api/refunds/object#refund_object-status>
pub fn refund(refund: RefundBody, currency: Currency, units: Units) -> Option<MadeRefund> {
    let amount = units.read(refund.amount, currency);
    let Some(amount) = amount.filter(|_| is_currency(refund.currency.as_deref(), currency)) else {
        tracing::error!(refund = refund.id, refund.amount, refund.currency, "payment.mismatch");
        Alarm::Mismatch.count();
        return None;
    };
    Some(MadeRefund {
        ours: refund.metadata.get("refund_id").and_then(|id| id.parse().ok()),
        id: refund.id.into(),
        amount,
        status: match refund.status.as_str() {
            "succeeded" => RefundStatus::Succeeded,
            "failed" | "canceled" => RefundStatus::Failed,
            // Somebody at the provider has to act first.
            "requires_action" => {
                tracing::error!("payment.refund_requires_action");
                RefundStatus::Pending
            }
            "pending" => RefundStatus::Pending,
            other => {
                tracing::error!(status = other, "payment.status_unknown");
                Alarm::AnswerUnknown.count();
                RefundStatus::Pending
            }
        },
    })
}
