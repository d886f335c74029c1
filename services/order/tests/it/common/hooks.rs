//! The way of the provider's webhooks to the order service, which tests can
//! block, and on which they can send again what has passed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;

#[derive(Clone, Default)]
pub struct Hooks {
    target: Arc<OnceLock<String>>,
    blocked: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Hook>>>,
}

#[derive(Clone)]
struct Hook {
    signature: String,
    body: Bytes,
}

impl Hooks {
    /// Returns where the provider is to post.
    pub async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(receive).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }

    pub fn lead_to(&self, base: &str) {
        self.target.set(format!("{base}/payments/webhook")).unwrap();
    }

    /// The provider gets a success for each webhook, and nothing arrives.
    pub fn block(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::SeqCst);
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Sends everything again, the last first, twice each.
    pub async fn shuffle(&self) {
        let seen: Vec<Hook> = self.seen.lock().unwrap().iter().rev().cloned().collect();
        for hook in seen.iter().flat_map(|hook| [hook, hook]) {
            assert_eq!(self.pass(hook).await, 204);
        }
    }

    async fn pass(&self, hook: &Hook) -> u16 {
        let client = reqwest::Client::builder().timeout(std::time::Duration::from_secs(5)).build().unwrap();
        let request = client.post(self.target.get().unwrap()).header("Stripe-Signature", &hook.signature);
        request.body(hook.body.clone()).send().await.map_or(503, |answer| answer.status().as_u16())
    }
}

async fn receive(State(hooks): State<Hooks>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let hook = Hook { signature: headers["stripe-signature"].to_str().unwrap().to_owned(), body };
    hooks.seen.lock().unwrap().push(hook.clone());
    if hooks.blocked.load(Ordering::SeqCst) {
        return StatusCode::NO_CONTENT;
    }
    StatusCode::from_u16(hooks.pass(&hook).await).unwrap()
}
