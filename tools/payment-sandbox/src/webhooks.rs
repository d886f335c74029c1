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

use crate::intents::{Book, CaptureMethod, Event, RefundStatus};
use crate::log::Log;
use crate::sandbox::Line;

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
    payload: String,
}

impl Hook {
    /// `at` in Unix milliseconds.
    pub fn new(id: String, kind: &str, object: &Value, at: u64) -> Self {
        let payload = json!({
            "id": id,
            "object": "event",
            "type": kind,
            "created": at / 1000,
            "livemode": false,
            "data": { "object": object },
        });
        Self { id, payload: payload.to_string() }
    }
}

/// The webhook events that `event`, just applied to `book`, calls for: each one's type and object.
pub fn calls_for(event: &Event, book: &Book) -> Vec<(&'static str, Value)> {
    let intent = |id: &str| book.intent(id).map(|intent| intent.view()).unwrap_or_default();
    let refund = |id: &str| book.refund(id).map(|refund| refund.view()).unwrap_or_default();
    let charge = |id: &str| {
        let intent = book.refund(id).and_then(|refund| book.intent(&refund.intent));
        intent.map(|intent| intent.charge_view()).unwrap_or_default()
    };
    let told = |id: &str, status: RefundStatus| match status {
        RefundStatus::Pending => None,
        RefundStatus::Succeeded => Some(("charge.refunded", charge(id))),
        RefundStatus::Failed => Some(("refund.failed", refund(id))),
    };
    match event {
        Event::IntentCreated { .. } | Event::ConfirmationStarted { .. } => Vec::new(),
        Event::Authorized { id, .. } => match book.intent(id) {
            // An automatic capture follows at once, and tells of itself.
            Some(intent) if intent.capture_method == CaptureMethod::Manual => {
                vec![("payment_intent.amount_capturable_updated", intent.view())]
            }
            _ => Vec::new(),
        },
        Event::Declined { id, .. } => vec![("payment_intent.payment_failed", intent(id))],
        Event::Captured { id, .. } => vec![("payment_intent.succeeded", intent(id))],
        Event::Canceled { id, .. } => vec![("payment_intent.canceled", intent(id))],
        Event::Refunded { id, status, .. } => {
            let mut hooks = vec![("refund.created", refund(id))];
            hooks.extend(told(id, *status));
            hooks
        }
        Event::RefundEnded { id, status } => {
            let mut hooks = vec![("refund.updated", refund(id))];
            hooks.extend(told(id, *status));
            hooks
        }
    }
}

pub struct Webhooks {
    client: Client,
    url: Url,
    secret: String,
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
        log: Arc<Log>,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> anyhow::Result<Self> {
        let url = Url::parse(url).context("WEBHOOK_URL is not a URL")?;
        let client = Client::builder()
            .timeout(CALL_TIMEOUT)
            .redirect(redirect::Policy::none())
            // The webhook is a neighbour: a proxy for the outside world would not find it.
            .no_proxy()
            .build()?;
        let calls = Semaphore::new(CALLS);
        Ok(Self { client, url, secret: secret.into(), calls, first_pause: FIRST_PAUSE, log, stop, tasks })
    }

    /// Delivers the event once `line` of the log is on disk, in the background.
    pub fn send(self: &Arc<Self>, hook: Hook, line: u64) {
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
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(self.first_pause * 2_u32.pow(attempt - 1)).await;
            }
            match self.call(hook).await {
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

    async fn call(&self, hook: &Hook) -> anyhow::Result<()> {
        let _call = self.calls.acquire().await?;
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
            .header("Stripe-Signature", signature(&self.secret, seconds, &hook.payload)?)
            .body(hook.payload.clone());
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
    async fn a_webhook_that_takes_nothing_is_given_up_after_eight_tries() {
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
        let mut webhooks = Webhooks::new(&url, "whsec", log.clone(), stop, tasks.clone()).unwrap();
        webhooks.first_pause = Duration::from_millis(1);
        let hook = Hook::new("evt_1".into(), "payment_intent.succeeded", &json!({}), 0);
        Arc::new(webhooks).send(hook, 0);
        tasks.close();
        tasks.wait().await;
        log.close().await;
        assert_eq!(calls.load(Ordering::Relaxed), TRIES);
        let line = std::fs::read_to_string(&path).unwrap();
        assert_eq!(line, "{\"webhook\":{\"event\":\"evt_1\",\"delivered\":false}}\n");
        std::fs::remove_file(path).unwrap();
    }
}
