//! All payments, as the sum of the events so far. Pure: no clock, no I/O.

use std::collections::{BTreeMap, HashMap};

use anyhow::Context;
use serde::Serialize;

use crate::intents::{Dispute, Event, Intent, Refund, RefundStatus, Status};

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
    /// Withdrawn by disputes that are open or lost.
    #[serde(skip_serializing_if = "is_zero")]
    pub disputed: u64,
}

fn is_zero(amount: &u64) -> bool {
    *amount == 0
}

/// All intents, refunds and disputes.
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
    /// In the order in which they came. Few: they are looked for one by one.
    disputes: Vec<Dispute>,
}

impl Book {
    pub fn intent(&self, id: &str) -> Option<&Intent> {
        self.intents.get(*self.places.get(id)?)
    }

    /// All of them, oldest first.
    pub fn intents(&self) -> &[Intent] {
        &self.intents
    }

    /// Where an intent is among them.
    pub fn place(&self, id: &str) -> Option<usize> {
        self.places.get(id).copied()
    }

    pub fn refund(&self, id: &str) -> Option<&Refund> {
        self.refunds.get(*self.by_id.get(id)?)
    }

    /// All of them, oldest first.
    pub fn refunds(&self) -> &[Refund] {
        &self.refunds
    }

    /// Where a refund is among them.
    pub fn refund_place(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// Those of an intent, oldest first.
    pub fn refunds_of(&self, intent: &str) -> Vec<&Refund> {
        let places = self.by_intent.get(intent).map(Vec::as_slice).unwrap_or_default();
        places.iter().filter_map(|place| self.refunds.get(*place)).collect()
    }

    /// All of them, oldest first.
    pub fn disputes(&self) -> &[Dispute] {
        &self.disputes
    }

    pub fn dispute(&self, id: &str) -> Option<&Dispute> {
        self.disputes.iter().find(|dispute| dispute.id == id)
    }

    pub fn dispute_of(&self, intent: &Intent) -> Option<&Dispute> {
        self.disputes.get(intent.dispute?)
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
            let disputed = self.dispute_of(intent).filter(|dispute| dispute.status.withholds());
            item.disputed += disputed.map_or(0, |dispute| dispute.amount);
        }
        items.into_values().collect()
    }

    /// Adds one event that took place `at` (Unix milliseconds).
    /// An error means that the event names an unknown intent: the log is not one that this program wrote.
    pub fn apply(&mut self, event: &Event, at: u64) -> anyhow::Result<()> {
        match event {
            Event::IntentCreated { .. } => self.create(event, at),
            Event::ConfirmationStarted { id, payment_method } => {
                let intent = self.known(id)?;
                intent.status = Status::Processing;
                intent.payment_method = Some(payment_method.clone());
                intent.last_error = None;
                intent.action = None;
            }
            Event::ActionRequired { id, payment_method, action } => {
                let intent = self.known(id)?;
                intent.status = Status::RequiresAction;
                intent.payment_method = Some(payment_method.clone());
                intent.last_error = None;
                intent.action = Some(Box::new(action.clone()));
            }
            Event::AuthenticationFailed { id, error } => {
                let intent = self.known(id)?;
                intent.status = Status::RequiresPaymentMethod;
                intent.payment_method = None;
                intent.last_error = Some(error.clone());
                intent.action = None;
            }
            Event::Authorized { id, payment_method, charge } => {
                let intent = self.known(id)?;
                intent.status = Status::RequiresCapture;
                intent.payment_method = Some(payment_method.clone());
                intent.latest_charge = Some(charge.clone());
                intent.last_error = None;
                intent.action = None;
                intent.authorized = intent.amount;
                intent.capturable = intent.amount;
            }
            Event::Declined { id, charge, error } => {
                let intent = self.known(id)?;
                intent.status = Status::RequiresPaymentMethod;
                intent.payment_method = None;
                intent.latest_charge = Some(charge.clone());
                intent.last_error = Some(error.clone());
                intent.action = None;
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
                intent.action = None;
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
            Event::Disputed { id, intent, reason, status } => {
                let place = self.disputes.len();
                let intent = self.known(intent)?;
                intent.dispute = Some(place);
                let dispute = Dispute {
                    id: id.clone(),
                    intent: intent.id.clone(),
                    charge: intent.latest_charge.clone(),
                    amount: intent.received,
                    currency: intent.currency.clone(),
                    reason: reason.clone(),
                    status: *status,
                    created: at,
                };
                self.disputes.push(dispute);
            }
            Event::DisputeChanged { id, status } => {
                let dispute = self.disputes.iter_mut().find(|dispute| dispute.id == *id);
                dispute.with_context(|| format!("an event of the unknown dispute {id}"))?.status = *status;
            }
        }
        Ok(())
    }

    fn create(&mut self, event: &Event, at: u64) {
        let Event::IntentCreated {
            id,
            amount,
            currency,
            capture_method,
            payment_method,
            metadata,
            methods,
            details,
        } = event
        else {
            return;
        };
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
            methods: *methods,
            details: Some(details).filter(|details| !details.is_empty()).cloned().map(Box::new),
            metadata: metadata.clone().into_iter().collect(),
            action: None,
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
            dispute: None,
        };
        self.places.insert(id.clone(), self.intents.len());
        self.intents.push(intent);
    }

    fn known(&mut self, id: &str) -> anyhow::Result<&mut Intent> {
        let intent = self.places.get(id).and_then(|place| self.intents.get_mut(*place));
        intent.with_context(|| format!("an event of the unknown intent {id}"))
    }
}
