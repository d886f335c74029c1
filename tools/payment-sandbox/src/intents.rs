//! What the provider knows: intents and refunds, as the sum of the events so far. Pure: no clock, no I/O.

use std::collections::{BTreeMap, HashMap};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub type Metadata = BTreeMap<String, String>;

/// Metadata as it is kept: a map takes 500 bytes for its first entry.
type Pairs = Box<[(String, String)]>;

fn object(pairs: &Pairs) -> Value {
    pairs.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect()
}

/// A fact, one or more of them to a line of the log. Amounts are in minor units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    IntentCreated {
        id: String,
        amount: u64,
        currency: String,
        capture_method: CaptureMethod,
        payment_method: Option<String>,
        metadata: Metadata,
    },
    ConfirmationStarted {
        id: String,
        payment_method: String,
    },
    Authorized {
        id: String,
        payment_method: String,
        charge: String,
    },
    Declined {
        id: String,
        charge: String,
        error: PaymentError,
    },
    Captured {
        id: String,
        amount: u64,
    },
    Canceled {
        id: String,
        reason: Option<String>,
    },
    Refunded {
        id: String,
        intent: String,
        amount: u64,
        reason: Option<String>,
        metadata: Metadata,
        /// What it begins as.
        #[serde(default)]
        status: RefundStatus,
    },
    RefundEnded {
        id: String,
        status: RefundStatus,
    },
}

/// <https://docs.stripe.com/api/refunds/object#refund_object-status>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundStatus {
    Pending,
    #[default]
    Succeeded,
    /// The money stays with the shop, and can be refunded anew.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptureMethod {
    Automatic,
    Manual,
}

/// Why the last confirm failed, as an intent shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentError {
    #[serde(rename = "type")]
    pub kind: String,
    pub code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decline_code: Option<String>,
    pub message: String,
    pub charge: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    RequiresPaymentMethod,
    RequiresConfirmation,
    Processing,
    RequiresCapture,
    Succeeded,
    Canceled,
}

#[derive(Clone, Debug)]
pub struct Intent {
    pub id: String,
    pub amount: u64,
    pub currency: String,
    pub status: Status,
    pub capture_method: CaptureMethod,
    pub payment_method: Option<String>,
    metadata: Pairs,
    /// Authorised now, neither captured nor given back.
    pub capturable: u64,
    pub received: u64,
    /// Given back, or about to be.
    pub refunded: u64,
    /// Of that, not yet given back.
    refunding: u64,
    last_error: Option<PaymentError>,
    latest_charge: Option<String>,
    cancellation_reason: Option<String>,
    /// Unix milliseconds.
    pub created: u64,
    canceled: Option<u64>,
    /// Ever authorised: what `capturable` was at first.
    authorized: u64,
    captures: u64,
}

impl Intent {
    /// The intent as the API shows it.
    pub fn view(&self) -> Value {
        json!({
            "id": self.id,
            "object": "payment_intent",
            "amount": self.amount,
            "amount_capturable": self.capturable,
            "amount_received": self.received,
            "cancellation_reason": self.cancellation_reason,
            "canceled_at": self.canceled.map(|at| at / 1000),
            "capture_method": self.capture_method,
            "created": self.created / 1000,
            "currency": self.currency,
            "last_payment_error": self.last_error,
            "latest_charge": self.latest_charge,
            "livemode": false,
            "metadata": object(&self.metadata),
            "payment_method": self.payment_method,
            "status": self.status,
        })
    }

    /// The charge as `charge.refunded` shows it.
    pub fn charge_view(&self) -> Value {
        json!({
            "id": self.latest_charge,
            "object": "charge",
            "amount": self.authorized,
            "amount_captured": self.received,
            "amount_refunded": self.refunded,
            "captured": self.captures > 0,
            "created": self.created / 1000,
            "currency": self.currency,
            "livemode": false,
            "metadata": object(&self.metadata),
            "payment_intent": self.id,
            "refunded": self.refunded == self.received,
            "status": "succeeded",
        })
    }
}

#[derive(Clone, Debug)]
pub struct Refund {
    pub id: String,
    pub intent: String,
    amount: u64,
    currency: String,
    charge: Option<String>,
    reason: Option<String>,
    metadata: Pairs,
    pub status: RefundStatus,
    created: u64,
}

impl Refund {
    /// The refund as the API shows it.
    pub fn view(&self) -> Value {
        json!({
            "id": self.id,
            "object": "refund",
            "amount": self.amount,
            "charge": self.charge,
            "created": self.created / 1000,
            "currency": self.currency,
            "metadata": object(&self.metadata),
            "payment_intent": self.intent,
            "reason": self.reason,
            "failure_reason": (self.status == RefundStatus::Failed).then_some("unknown"),
            "status": self.status,
        })
    }
}

/// The money of one order, summed over its intents, in minor units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LedgerItem {
    /// `metadata.order_id`; null sums up the intents without one.
    pub order_id: Option<String>,
    /// Ever authorised.
    pub authorized: u64,
    pub captured: u64,
    pub refunded: u64,
    /// Authorised now, neither captured nor cancelled.
    pub open: u64,
    /// How many times a capture took money.
    pub captures: u64,
}

/// All intents and refunds.
#[derive(Default)]
pub struct Book {
    /// In the order in which they were made.
    intents: Vec<Intent>,
    /// Where an intent is among them.
    places: HashMap<String, usize>,
    /// In the order in which they were made.
    refunds: Vec<Refund>,
    /// Where a refund is among them.
    by_id: HashMap<String, usize>,
    /// Where an intent's are, likewise in order.
    by_intent: HashMap<String, Vec<usize>>,
}

impl Book {
    pub fn intent(&self, id: &str) -> Option<&Intent> {
        self.intents.get(*self.places.get(id)?)
    }

    /// All intents, or those made before the intent `after`, newest first; `None` when there is none of that id.
    pub fn intents<'a>(&'a self, after: Option<&str>) -> Option<impl Iterator<Item = &'a Intent> + use<'a>> {
        let older = match after {
            Some(after) => *self.places.get(after)?,
            None => self.intents.len(),
        };
        Some(self.intents.iter().take(older).rev())
    }

    pub fn refund(&self, id: &str) -> Option<&Refund> {
        self.refunds.get(*self.by_id.get(id)?)
    }

    /// The refunds of an intent, or all, newest first.
    pub fn refunds<'a>(&'a self, intent: Option<&str>) -> Box<dyn Iterator<Item = &'a Refund> + 'a> {
        let Some(intent) = intent else {
            return Box::new(self.refunds.iter().rev());
        };
        let places = self.by_intent.get(intent).map(Vec::as_slice).unwrap_or_default();
        Box::new(places.iter().rev().filter_map(|place| self.refunds.get(*place)))
    }

    /// Sums up every order, or only one, sorted by order id.
    pub fn ledger(&self, order_id: Option<&str>) -> Vec<LedgerItem> {
        let mut items: BTreeMap<Option<&str>, LedgerItem> = BTreeMap::new();
        for intent in &self.intents {
            let order = intent.metadata.iter().find(|(name, _)| name == "order_id");
            let order = order.map(|(_, id)| id.as_str());
            if order_id.is_some() && order != order_id {
                continue;
            }
            let item = items.entry(order).or_default();
            item.order_id = order.map(str::to_owned);
            item.authorized += intent.authorized;
            item.captured += intent.received;
            item.refunded += intent.refunded - intent.refunding;
            item.open += intent.capturable;
            item.captures += intent.captures;
        }
        items.into_values().collect()
    }

    /// Adds one event that took place `at` (Unix milliseconds).
    /// An error means that the event names an unknown intent: the log is not one that this program wrote.
    pub fn apply(&mut self, event: &Event, at: u64) -> anyhow::Result<()> {
        match event {
            Event::IntentCreated { id, amount, currency, capture_method, payment_method, metadata } => {
                let status = match payment_method {
                    Some(_) => Status::RequiresConfirmation,
                    None => Status::RequiresPaymentMethod,
                };
                let intent = Intent {
                    id: id.clone(),
                    amount: *amount,
                    currency: currency.clone(),
                    status,
                    capture_method: *capture_method,
                    payment_method: payment_method.clone(),
                    metadata: metadata.clone().into_iter().collect(),
                    capturable: 0,
                    received: 0,
                    refunded: 0,
                    refunding: 0,
                    last_error: None,
                    latest_charge: None,
                    cancellation_reason: None,
                    created: at,
                    canceled: None,
                    authorized: 0,
                    captures: 0,
                };
                self.places.insert(id.clone(), self.intents.len());
                self.intents.push(intent);
            }
            Event::ConfirmationStarted { id, payment_method } => {
                let intent = self.known(id)?;
                intent.status = Status::Processing;
                intent.payment_method = Some(payment_method.clone());
                intent.last_error = None;
            }
            Event::Authorized { id, payment_method, charge } => {
                let intent = self.known(id)?;
                intent.status = Status::RequiresCapture;
                intent.payment_method = Some(payment_method.clone());
                intent.latest_charge = Some(charge.clone());
                intent.last_error = None;
                intent.authorized = intent.amount;
                intent.capturable = intent.amount;
            }
            Event::Declined { id, charge, error } => {
                let intent = self.known(id)?;
                intent.status = Status::RequiresPaymentMethod;
                intent.payment_method = None;
                intent.latest_charge = Some(charge.clone());
                intent.last_error = Some(error.clone());
            }
            Event::Captured { id, amount } => {
                let intent = self.known(id)?;
                intent.status = Status::Succeeded;
                intent.received += amount;
                intent.capturable = 0;
                intent.captures += 1;
            }
            Event::Canceled { id, reason } => {
                let intent = self.known(id)?;
                intent.status = Status::Canceled;
                intent.cancellation_reason = reason.clone();
                intent.canceled = Some(at);
                intent.capturable = 0;
            }
            Event::Refunded { id, intent, amount, reason, metadata, status } => {
                let intent = self.known(intent)?;
                if *status != RefundStatus::Failed {
                    intent.refunded += amount;
                }
                if *status == RefundStatus::Pending {
                    intent.refunding += amount;
                }
                let refund = Refund {
                    id: id.clone(),
                    intent: intent.id.clone(),
                    amount: *amount,
                    currency: intent.currency.clone(),
                    charge: intent.latest_charge.clone(),
                    reason: reason.clone(),
                    metadata: metadata.clone().into_iter().collect(),
                    status: *status,
                    created: at,
                };
                let place = self.refunds.len();
                self.by_id.insert(refund.id.clone(), place);
                self.by_intent.entry(refund.intent.clone()).or_default().push(place);
                self.refunds.push(refund);
            }
            Event::RefundEnded { id, status } => {
                let refund = self.by_id.get(id).and_then(|place| self.refunds.get_mut(*place));
                let refund = refund.with_context(|| format!("an event of the unknown refund {id}"))?;
                let before = std::mem::replace(&mut refund.status, *status);
                let (intent, amount) = (refund.intent.clone(), refund.amount);
                let intent = self.known(&intent)?;
                if before == RefundStatus::Pending {
                    intent.refunding -= amount;
                }
                if *status == RefundStatus::Failed {
                    intent.refunded -= amount;
                }
            }
        }
        Ok(())
    }

    fn known(&mut self, id: &str) -> anyhow::Result<&mut Intent> {
        let intent = self.places.get(id).and_then(|place| self.intents.get_mut(*place));
        intent.with_context(|| format!("an event of the unknown intent {id}"))
    }
}
