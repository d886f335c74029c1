//! Customers: registered before the load begins, shared among the shoppers, and kept signed in.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderValue;
use serde_json::json;
use uuid::Uuid;

use crate::Refusal;
use crate::http::{Call, Client};
use crate::shop::{self, Error, Tokens};

const PASSWORD: &str = "a load of shopping 7";
/// Registrations at once: hashing a password keeps a core busy.
const AT_ONCE: usize = 4;
/// Tries of a request that the edge's limit for sign-ins refuses.
const TRIES: u32 = 60;
/// The share of a token's life after which it is renewed.
const RENEW_AFTER: f64 = 0.6;
/// Sign-ins renewed in a second at most, below the edge's limit of 20 for an address.
const RENEWED_A_SECOND: usize = 10;

/// A customer's sign-in.
pub struct Account {
    session: Mutex<Session>,
    /// Somebody fills this customer's cart.
    shopping: AtomicBool,
}

struct Session {
    authorization: HeaderValue,
    refresh: String,
    renew_at: Instant,
}

impl Session {
    fn new(tokens: Tokens) -> Result<Self, Refusal> {
        let life = Duration::from_secs(tokens.expires_in);
        Ok(Self {
            authorization: shop::bearer(&tokens.access_token)?,
            refresh: tokens.refresh_token,
            renew_at: Instant::now() + life.mul_f64(RENEW_AFTER),
        })
    }
}

impl Account {
    /// The value of `Authorization`.
    pub fn authorization(&self) -> HeaderValue {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).authorization.clone()
    }
}

/// All of them.
pub struct Accounts {
    all: Vec<Account>,
    next: AtomicUsize,
}

/// A customer whose cart is one shopper's alone, until this is dropped.
pub struct Cart<'a>(&'a Account);

impl std::ops::Deref for Cart<'_> {
    type Target = Account;

    fn deref(&self) -> &Account {
        self.0
    }
}

impl Drop for Cart<'_> {
    fn drop(&mut self) {
        self.0.shopping.store(false, Ordering::Release);
    }
}

impl Accounts {
    /// Registers so many customers and signs them in. It takes its time: the shop hashes two passwords for each, and the
    /// edge takes 20 such requests a second. `progress` is told how many there are.
    ///
    /// # Errors
    /// when the shop refuses one for another reason than its limit.
    pub async fn register(
        client: &Arc<Client>,
        count: usize,
        progress: impl Fn(usize),
    ) -> Result<Self, Refusal> {
        let mut all = Vec::with_capacity(count);
        let mut under_way = tokio::task::JoinSet::new();
        let mut begun = 0;
        while all.len() < count {
            while begun < count && under_way.len() < AT_ONCE {
                under_way.spawn(join(client.clone()));
                begun += 1;
            }
            let Some(joined) = under_way.join_next().await else { break };
            let session = joined.map_err(|e| Refusal(format!("registering ended early: {e}")))??;
            all.push(Account { session: Mutex::new(session), shopping: AtomicBool::new(false) });
            progress(all.len());
        }
        Ok(Self { all, next: AtomicUsize::new(0) })
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The next customer in turn, whoever else acts for it; None when there is none.
    pub fn any(&self) -> Option<&Account> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.all.get(n.checked_rem(self.all.len())?)
    }

    /// The next customer whose cart nobody uses; None when all are in use.
    pub fn with_cart(&self) -> Option<Cart<'_>> {
        let free = |_| self.any().filter(|account| !account.shopping.swap(true, Ordering::Acquire));
        (0..self.all.len()).find_map(free).map(Cart)
    }

    /// Renews the sign-ins that are due, a few at a time. Returns what went wrong.
    pub async fn renew(&self, client: &Client) -> Vec<Error> {
        let now = Instant::now();
        let due = |account: &&Account| {
            account.session.lock().unwrap_or_else(PoisonError::into_inner).renew_at <= now
        };
        let mut errors = Vec::new();
        for account in self.all.iter().filter(due).take(RENEWED_A_SECOND) {
            let refresh = account.session.lock().unwrap_or_else(PoisonError::into_inner).refresh.clone();
            let body = json!({"refresh_token": refresh}).to_string();
            let renewed = shop::succeeded(client.send(Call::post("/api/v1/auth/refresh", body)).await)
                .and_then(|answer| shop::document::<Tokens>(&answer));
            let mut session = account.session.lock().unwrap_or_else(PoisonError::into_inner);
            match renewed.map(Session::new) {
                Ok(Ok(new)) => *session = new,
                Ok(Err(_)) => {}
                Err(error) => {
                    // Again in a while, with what is left of the token's life.
                    session.renew_at = now + Duration::from_secs(5);
                    errors.push(error);
                }
            }
        }
        errors
    }
}

/// One new customer, signed in.
async fn join(client: Arc<Client>) -> Result<Session, Refusal> {
    let email = format!("load-{}@example.com", Uuid::now_v7().simple());
    let account = json!({"email": email, "password": PASSWORD, "name": "Load Test"}).to_string();
    patiently(&client, "/api/v1/auth/register", &account).await?;
    sign_in(&client, &email, PASSWORD).await.and_then(Session::new)
}

/// Signs in.
///
/// # Errors
/// when the shop refuses it for another reason than its limit.
pub async fn sign_in(client: &Client, email: &str, password: &str) -> Result<Tokens, Refusal> {
    let login = json!({"email": email, "password": password}).to_string();
    let answer = patiently(client, "/api/v1/auth/login", &login).await?;
    shop::document(&answer).map_err(|e| Refusal(format!("POST /api/v1/auth/login answered {}", e.name)))
}

/// Sends it again when the edge says that it was too much at once, as long as it asks for.
async fn patiently(client: &Client, path: &str, body: &str) -> Result<crate::http::Answer, Refusal> {
    let mut last = None;
    for _ in 0..TRIES {
        match shop::succeeded(client.send(Call::post(path, body.to_owned())).await) {
            Ok(answer) => return Ok(answer),
            Err(error) if error.status == 429 || error.status == 503 => {
                let pause = error.retry_after.unwrap_or(Duration::from_secs(1));
                tokio::time::sleep(pause.min(Duration::from_secs(5))).await;
                last = Some(error);
            }
            Err(error) => {
                return Err(Refusal(format!("POST {path} was refused: {} ({})", error.name, error.status)));
            }
        }
    }
    let name = last.map(|error| error.name).unwrap_or_default();
    Err(Refusal(format!("POST {path} was refused {TRIES} times: {name}; raise EDGE_AUTH_RATE of the shop")))
}
