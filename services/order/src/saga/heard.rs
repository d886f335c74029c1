//! What the provider says, by webhook, of intents that a worker of this process is about to ask for anyway: kept in memory,
//! so that most webhooks cost no write.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::order::PaymentStatus;

/// Kinds that say nothing but how an intent is, and not, say, that money was given back.
pub const OF_INTENTS: &str = "payment_intent.";

/// More kinds than Stripe has of that name.
const MOST_KINDS: usize = 16;

/// The intents that workers listen to.
#[derive(Clone, Default)]
pub struct Intents {
    open: Arc<Mutex<HashMap<String, Heard>>>,
    workers: Arc<AtomicU64>,
}

struct Heard {
    worker: u64,
    kinds: Vec<String>,
}

impl Intents {
    fn open(&self) -> MutexGuard<'_, HashMap<String, Heard>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new worker listens; it hears what an earlier one was told.
    pub fn listen(&self, intent: &str) -> Listening {
        let worker = self.workers.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open();
        let kinds = open.remove(intent).map_or_else(Vec::new, |heard| heard.kinds);
        open.insert(intent.to_owned(), Heard { worker, kinds });
        drop(open);
        Listening { intents: self.clone(), intent: intent.to_owned(), worker }
    }

    /// Whether a worker listens, who is told.
    pub fn keep(&self, intent: &str, kind: &str) -> bool {
        let mut open = self.open();
        let Some(heard) = open.get_mut(intent) else { return false };
        if !heard.kinds.iter().any(|known| known == kind) {
            if heard.kinds.len() >= MOST_KINDS {
                return false;
            }
            heard.kinds.push(kind.to_owned());
        }
        true
    }
}

/// A worker's ear for one intent. Dropped, as when the worker panics, it hears nothing any more.
pub struct Listening {
    intents: Intents,
    intent: String,
    worker: u64,
}

impl Listening {
    pub fn intent(&self) -> &str {
        &self.intent
    }

    /// What was said. A later worker's is its own.
    pub fn end(self) -> Vec<String> {
        self.remove()
    }

    fn remove(&self) -> Vec<String> {
        let mut open = self.intents.open();
        match open.get(&self.intent) {
            Some(heard) if heard.worker == self.worker => {
                open.remove(&self.intent).map_or_else(Vec::new, |heard| heard.kinds)
            }
            _ => Vec::new(),
        }
    }
}

impl Drop for Listening {
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
    fn a_worker_is_told_and_a_later_one_hears_it_too() {
        let intents = Intents::default();
        assert!(!intents.keep("pi_1", "payment_intent.succeeded"), "nobody listens");
        let first = intents.listen("pi_1");
        assert!(
            intents.keep("pi_1", "payment_intent.succeeded")
                && intents.keep("pi_1", "payment_intent.succeeded")
        );
        let second = intents.listen("pi_1");
        assert_eq!(first.end(), Vec::<String>::new());
        assert!(intents.keep("pi_1", "payment_intent.canceled"), "the second still listens");
        assert_eq!(second.end(), ["payment_intent.succeeded", "payment_intent.canceled"]);
        assert!(!intents.keep("pi_1", "payment_intent.succeeded"));
        drop(intents.listen("pi_1"));
        assert!(!intents.keep("pi_1", "payment_intent.succeeded"), "its worker is gone");
    }
}
