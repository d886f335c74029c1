//! Reports by webhook about intents that a worker of this process will ask about anyway. They are kept in
//! memory, so that most webhooks cost no write.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use order_core::ids::IntentId;

use crate::order::PaymentStatus;

/// Kinds that only say how an intent is, and not, for example, that money was refunded.
pub const OF_INTENTS: &str = "payment_intent.";

/// More kinds than Stripe has with that prefix.
const MOST_KINDS: usize = 16;

/// Reports about the intents that workers have subscribed to.
#[derive(Clone, Default)]
pub struct Reports {
    open: Arc<Mutex<HashMap<IntentId, Entry>>>,
    workers: Arc<AtomicU64>,
}

struct Entry {
    worker: u64,
    kinds: Vec<String>,
}

impl Reports {
    fn open(&self) -> MutexGuard<'_, HashMap<IntentId, Entry>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new worker subscribes. It takes over the reports of an earlier one.
    pub fn subscribe(&self, intent: &IntentId) -> Subscription {
        let worker = self.workers.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open();
        let kinds = open.remove(intent).map_or_else(Vec::new, |entry| entry.kinds);
        open.insert(intent.clone(), Entry { worker, kinds });
        drop(open);
        Subscription { reports: self.clone(), intent: intent.clone(), worker }
    }

    /// Keeps a report for the worker that has subscribed; false when there is none.
    pub fn keep(&self, intent: &str, kind: &str) -> bool {
        let mut open = self.open();
        let Some(entry) = open.get_mut(intent) else { return false };
        if !entry.kinds.iter().any(|known| known == kind) {
            if entry.kinds.len() >= MOST_KINDS {
                return false;
            }
            entry.kinds.push(kind.to_owned());
        }
        true
    }
}

/// A worker's subscription to one intent. It ends when it is dropped, as when the worker panics.
pub struct Subscription {
    reports: Reports,
    intent: IntentId,
    worker: u64,
}

impl Subscription {
    pub fn intent(&self) -> &IntentId {
        &self.intent
    }

    /// The kinds of reports that came. Reports for a later worker are not among them.
    pub fn end(self) -> Vec<String> {
        self.remove()
    }

    fn remove(&self) -> Vec<String> {
        let mut open = self.reports.open();
        match open.get(&self.intent) {
            Some(entry) if entry.worker == self.worker => {
                open.remove(&self.intent).map_or_else(Vec::new, |entry| entry.kinds)
            }
            _ => Vec::new(),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Whether a kind says no more than the payment's status does; `orders.is_known` is the same for rows.
pub fn is_known(payment: PaymentStatus, kind: &str) -> bool {
    match payment {
        PaymentStatus::Captured | PaymentStatus::Refunded => {
            matches!(kind, "payment_intent.amount_capturable_updated" | "payment_intent.succeeded")
        }
        PaymentStatus::Voided => kind == "payment_intent.canceled",
        PaymentStatus::Declined => {
            matches!(kind, "payment_intent.payment_failed" | "payment_intent.canceled")
        }
        PaymentStatus::Pending | PaymentStatus::Authorized | PaymentStatus::Unknown => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_gets_reports_and_a_later_one_gets_them_too() {
        let reports = Reports::default();
        assert!(!reports.keep("pi_1", "payment_intent.succeeded"), "nobody has subscribed");
        let first = reports.subscribe(&"pi_1".to_owned().into());
        assert!(
            reports.keep("pi_1", "payment_intent.succeeded")
                && reports.keep("pi_1", "payment_intent.succeeded")
        );
        let second = reports.subscribe(&"pi_1".to_owned().into());
        assert_eq!(first.end(), Vec::<String>::new());
        assert!(reports.keep("pi_1", "payment_intent.canceled"), "the second is still subscribed");
        assert_eq!(second.end(), ["payment_intent.succeeded", "payment_intent.canceled"]);
        assert!(!reports.keep("pi_1", "payment_intent.succeeded"));
        drop(reports.subscribe(&"pi_1".to_owned().into()));
        assert!(!reports.keep("pi_1", "payment_intent.succeeded"), "its worker is gone");
    }
}
