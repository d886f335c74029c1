//! Signed events, delivered at least once: <https://docs.stripe.com/webhooks>.
//!
//! What is still to be delivered follows from the log: each event's commit, without the line that ends its delivery.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url, redirect};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::book::Book;
use crate::intents::{CaptureMethod, Dispute, DisputeStatus, Event, Intent, Refund, RefundStatus};
use crate::log::Log;
use crate::sandbox::Line;
use crate::version::Version;

/// Tries to deliver one event, over about a minute; a restart begins anew.
const TRIES: u32 = 8;
/// The pause before the second try; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Calls at the same time.
const CALLS: usize = 16;
/// Time for one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// An event on its way to the webhook.
#[derive(Debug)]
pub struct Hook {
    pub id: String,
    pub kind: &'static str,
    object: Object,
    /// Unix milliseconds.
    pub at: u64,
}

/// What an event is about, as it was then. Written out when it is sent: the events of a whole log are never all sent.
#[derive(Debug)]
pub enum Object {
    Intent(Intent),
    Charge(Intent),
    Refund(Refund),
    Dispute(Dispute),
}

impl Hook {
    /// `at` in Unix milliseconds.
    pub fn new(id: String, kind: &'static str, object: Object, at: u64) -> Self {
        Self { id, kind, object, at }
    }

    /// The event as the API shows it, and as it is sent.
    pub fn view(&self, version: Version) -> Value {
        let object = match &self.object {
            Object::Intent(intent) => intent.view(),
            Object::Charge(intent) => intent.charge_view(),
            Object::Refund(refund) => refund.view(),
            Object::Dispute(dispute) => dispute.view(),
        };
        json!({
            "id": self.id,
            "object": "event",
            "api_version": version.name(),
            "created": self.at / 1000,
            "data": { "object": object },
            "livemode": false,
            "pending_webhooks": 0,
            "request": { "id": null, "idempotency_key": null },
            "type": self.kind,
        })
    }
}

/// The webhook events that `event`, just applied to `book`, calls for: each one's type and object.
pub fn calls_for(event: &Event, book: &Book) -> Vec<(&'static str, Object)> {
    let intent = |kind, id: &str| book.intent(id).map(|intent| (kind, Object::Intent(intent.clone())));
    let refund = |kind, id: &str| book.refund(id).map(|refund| (kind, Object::Refund(refund.clone())));
    let charge = |kind, id: &str| {
        let intent = book.refund(id).and_then(|refund| book.intent(&refund.intent));
        intent.map(|intent| (kind, Object::Charge(intent.clone())))
    };
    let refund_event = |id: &str, status: RefundStatus| match status {
        RefundStatus::Pending => None,
        RefundStatus::Succeeded => charge("charge.refunded", id),
        RefundStatus::Failed => refund("refund.failed", id),
    };
    let dispute = |kind, id: &str| book.dispute(id).map(|dispute| (kind, Object::Dispute(dispute.clone())));
    let (first, second) = match event {
        Event::IntentCreated { .. } | Event::ConfirmationStarted { .. } => (None, None),
        Event::ActionRequired { id, .. } => (intent("payment_intent.requires_action", id), None),
        // An automatic capture follows at once, and has an event of its own.
        Event::Authorized { id, .. } => {
            let by_hand =
                book.intent(id).is_some_and(|intent| intent.capture_method == CaptureMethod::Manual);
            (by_hand.then(|| intent("payment_intent.amount_capturable_updated", id)).flatten(), None)
        }
        Event::Declined { id, .. } | Event::AuthenticationFailed { id, .. } => {
            (intent("payment_intent.payment_failed", id), None)
        }
        Event::Captured { id, .. } => (intent("payment_intent.succeeded", id), None),
        Event::Canceled { id, .. } => (intent("payment_intent.canceled", id), None),
        Event::Refunded { id, status, .. } => (refund("refund.created", id), refund_event(id, *status)),
        Event::RefundEnded { id, status } => (refund("refund.updated", id), refund_event(id, *status)),
        Event::Disputed { id, status, .. } => {
            let withdrawn = status.withholds().then(|| dispute("charge.dispute.funds_withdrawn", id));
            (dispute("charge.dispute.created", id), withdrawn.flatten())
        }
        Event::DisputeChanged { id, status } if status.is_over() => {
            let won = *status == DisputeStatus::Won;
            let back = won.then(|| dispute("charge.dispute.funds_reinstated", id));
            (dispute("charge.dispute.closed", id), back.flatten())
        }
        Event::DisputeChanged { id, .. } => (dispute("charge.dispute.updated", id), None),
    };
    first.into_iter().chain(second).collect()
}

pub struct Webhooks {
    client: Client,
    url: Url,
    secret: String,
    version: Version,
    calls: Semaphore,
    first_pause: Duration,
    log: Arc<Log>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Webhooks {
    pub fn new(
        url: &str,
        secret: &str,
        version: Version,
        log: Arc<Log>,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> anyhow::Result<Self> {
        let url = Url::parse(url).context("WEBHOOK_URL is not a URL")?;
        let client = Client::builder()
            .timeout(CALL_TIMEOUT)
            .connect_timeout(CALL_TIMEOUT)
            .redirect(redirect::Policy::none())
            // The webhook is on the local network: a proxy for the outside world would not find it.
            .no_proxy()
            .build()?;
        let calls = Semaphore::new(CALLS);
        let secret = secret.into();
        Ok(Self { client, url, secret, version, calls, first_pause: FIRST_PAUSE, log, stop, tasks })
    }

    /// Delivers the event once `line` of the log is on disk, in the background.
    pub fn send(self: &Arc<Self>, hook: Arc<Hook>, line: u64) {
        let webhooks = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = webhooks.deliver(&hook, line) => {}
                () = webhooks.stop.cancelled() => {}
            }
        });
    }

    async fn deliver(&self, hook: &Hook, line: u64) {
        if self.log.durable(line).await.is_err() {
            return;
        }
        let mut delivered = false;
        let payload = hook.view(self.version).to_string();
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(self.first_pause * 2_u32.pow(attempt - 1)).await;
            }
            match self.call(&payload).await {
                Ok(()) => {
                    delivered = true;
                    break;
                }
                Err(error) => tracing::warn!(event = hook.id, attempt, "webhook: {error:#}"),
            }
        }
        if let Err(error) = self.log.append(&Line::Webhook { event: hook.id.clone(), delivered }) {
            tracing::warn!(event = hook.id, "webhook: will be sent again after a restart: {error:#}");
        }
    }

    async fn call(&self, payload: &str) -> anyhow::Result<()> {
        let _call = self.calls.acquire().await?;
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
            .header("Stripe-Signature", signature(&self.secret, seconds, payload)?)
            .body(payload.to_owned());
        request.send().await?.error_for_status().map(drop)?;
        Ok(())
    }
}

/// `t=<Unix seconds>,v1=<hex HMAC-SHA256 of "t.payload">`.
fn signature(secret: &str, seconds: u64, payload: &str) -> anyhow::Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())?;
    mac.update(format!("{seconds}.{payload}").as_bytes());
    Ok(format!("t={seconds},v1={}", hex::encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::Router;
    use axum::http::StatusCode;

    use super::*;

    #[tokio::test]
    async fn a_webhook_that_takes_nothing_is_abandoned_after_eight_tries() {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        let app = Router::new().fallback(async move || {
            counted.fetch_add(1, Ordering::Relaxed);
            StatusCode::INTERNAL_SERVER_ERROR
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });

        let path = std::env::temp_dir().join(format!("payment-sandbox-{}.jsonl", uuid::Uuid::now_v7()));
        let log = Arc::new(Log::open(&path, |_: Line| Ok(())).unwrap());
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let version = crate::version::DEFAULT.parse().unwrap();
        let mut webhooks = Webhooks::new(&url, "whsec", version, log.clone(), stop, tasks.clone()).unwrap();
        webhooks.first_pause = Duration::from_millis(1);
        let mut book = Book::default();
        let created = Event::IntentCreated {
            id: "pi_1".into(),
            amount: 1,
            currency: "eur".into(),
            capture_method: CaptureMethod::Manual,
            payment_method: None,
            metadata: Default::default(),
            methods: Default::default(),
            details: Default::default(),
        };
        book.apply(&created, 0).unwrap();
        let object = Object::Intent(book.intent("pi_1").unwrap().clone());
        let hook = Hook::new("evt_1".into(), "payment_intent.succeeded", object, 0);
        Arc::new(webhooks).send(Arc::new(hook), 0);
        tasks.close();
        tasks.wait().await;
        log.close().await;
        assert_eq!(calls.load(Ordering::Relaxed), TRIES);
        let line = std::fs::read_to_string(&path).unwrap();
        assert_eq!(line, "{\"webhook\":{\"event\":\"evt_1\",\"delivered\":false}}\n");
        std::fs::remove_file(path).unwrap();
    }
}
