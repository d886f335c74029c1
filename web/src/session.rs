//! What the browser keeps for us in encrypted cookies: the session's tokens, and the cart of who has not signed in.
//!
//! A refresh token is spent when it is used. The user service gives the same successor to whoever comes with it within
//! a minute, so that tabs on two replicas get along; within one process they wait for one answer, which is kept for
//! a minute, as a browser may send the old cookie until it has got the new one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::Method;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use tokio::sync::Mutex as Turn;
use uuid::Uuid;

use crate::api::types::{Money, Tokens};
use crate::api::{Call, Refused};
use crate::visitor::Visitor;

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Session {
    #[serde(rename = "a")]
    pub access: String,
    #[serde(rename = "r")]
    pub refresh: String,
    /// When the access token ends, in Unix seconds.
    #[serde(rename = "u")]
    pub until: i64,
    #[serde(rename = "n")]
    pub name: String,
    /// How often somebody had signed out in this browser before.
    #[serde(rename = "o", default)]
    pub outs: u32,
}

/// Longest name that is kept, in bytes.
/// Of an access token.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    role: String,
}

const NAME: usize = 100;

impl Session {
    pub fn new(tokens: Tokens, name: &str) -> Self {
        let end = (0..=NAME.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
        let name = name[..end].into();
        let session = Self { access: String::new(), refresh: String::new(), until: 0, name, outs: 0 };
        session.renewed(tokens)
    }

    pub fn renewed(self, tokens: Tokens) -> Self {
        let until = OffsetDateTime::now_utc().unix_timestamp() + tokens.expires_in;
        Self { access: tokens.access_token, refresh: tokens.refresh_token, until, ..self }
    }

    /// For which links are shown. What may be done is the API's to say, which checks the token.
    pub fn is_staff(&self) -> bool {
        self.role().is_some_and(|role| role == "staff" || role == "admin")
    }

    pub fn is_admin(&self) -> bool {
        self.role().is_some_and(|role| role == "admin")
    }

    fn role(&self) -> Option<String> {
        Some(self.claims()?.role)
    }

    /// Whose it is.
    pub fn account(&self) -> Option<String> {
        Some(self.claims()?.sub)
    }

    fn claims(&self) -> Option<Claims> {
        let claims = BASE64_URL_SAFE_NO_PAD.decode(self.access.split('.').nth(1)?).ok()?;
        serde_json::from_slice(&claims).ok()
    }

    /// Seconds that its access token is good for yet.
    pub fn left(&self) -> i64 {
        self.until - OffsetDateTime::now_utc().unix_timestamp()
    }
}

/// How long the answer to a spent token is kept.
const KEPT: Duration = Duration::from_secs(60);
/// Answers kept at most.
const MOST: usize = 20_000;

/// Renews sessions, each by one call at a time.
#[derive(Default)]
pub struct Refresher(Mutex<HashMap<String, Flight>>);

#[derive(Clone)]
struct Flight {
    since: Instant,
    tokens: Arc<Turn<Option<Tokens>>>,
}

impl Refresher {
    /// The tokens that come after those of `session`. [`Refused::SignedOut`] when it has ended.
    pub async fn next(&self, visitor: &Visitor, session: &Session) -> Result<Tokens, Refused> {
        let flight = self.flight(&session.refresh);
        let (visitor, spent) = (visitor.clone(), session.refresh.clone());
        // The answer counts for others, even when this visitor hangs up.
        service::detached(async move {
            let mut tokens = flight.tokens.lock().await;
            if let Some(tokens) = &*tokens {
                return Ok(tokens.clone());
            }
            let call = Call::new(&visitor, Method::POST, &["auth", "refresh"]);
            match call.soon().json(&json!({"refresh_token": spent})).get_unsigned::<Tokens>().await {
                Ok(next) => Ok(tokens.insert(next).clone()),
                Err(Refused::Problem(problem)) if problem.status == 401 => Err(Refused::SignedOut),
                Err(_) => Err(Refused::Away),
            }
        })
        .await
    }

    fn flight(&self, token: &str) -> Flight {
        let new = || Flight { since: Instant::now(), tokens: Arc::default() };
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = flights.get(token) {
            return known.clone();
        }
        flights.retain(|_, flight| flight.since.elapsed() < KEPT);
        // Beyond the limit each is on its own, as on two replicas.
        if flights.len() >= MOST {
            return new();
        }
        flights.entry(token.to_owned()).or_insert_with(new).clone()
    }
}

/// Different products that a cookie holds, so that it stays well below 4 KiB.
pub const CART_LINES: usize = 50;
/// As many of one product as the API takes.
pub const MOST_OF_ONE: u16 = 999;
const LINE_BYTES: usize = 16 + 2 + 8;

/// What is in the cart of who has not signed in, and at which price each product was last shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CookieCart(pub Vec<CookieLine>);

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CookieLine {
    pub product: Uuid,
    /// None when the API's cart has it, and only the price is remembered here.
    pub quantity: u16,
    /// Minor units.
    pub seen: i64,
}

impl CookieCart {
    pub fn decode(text: &str) -> Self {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
        let lines = bytes.chunks_exact(LINE_BYTES).take(CART_LINES).filter_map(|line| {
            let (product, rest) = line.split_first_chunk::<16>()?;
            let (quantity, seen) = rest.split_first_chunk::<2>()?;
            let quantity = u16::from_be_bytes(*quantity).min(MOST_OF_ONE);
            let seen = i64::from_be_bytes(*seen.first_chunk::<8>()?);
            Some(CookieLine { product: Uuid::from_bytes(*product), quantity, seen })
        });
        Self(lines.collect())
    }

    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(self.0.len() * LINE_BYTES);
        for line in self.0.iter().take(CART_LINES) {
            bytes.extend_from_slice(line.product.as_bytes());
            bytes.extend_from_slice(&line.quantity.to_be_bytes());
            bytes.extend_from_slice(&line.seen.to_be_bytes());
        }
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    pub fn count(&self) -> u32 {
        self.0.iter().map(|line| u32::from(line.quantity)).sum()
    }

    /// What is to be bought, as against what only has its price remembered.
    pub fn wanted(&self) -> Vec<CookieLine> {
        self.0.iter().copied().filter(|line| line.quantity > 0).collect()
    }

    pub fn quantity(&self, product: Uuid) -> u16 {
        self.0.iter().find(|line| line.product == product).map_or(0, |line| line.quantity)
    }

    /// False when there is no room for one more.
    #[must_use]
    pub fn set(&mut self, product: Uuid, quantity: u16, price: &Money) -> bool {
        let quantity = quantity.min(MOST_OF_ONE);
        if let Some(line) = self.0.iter_mut().find(|line| line.product == product) {
            (line.quantity, line.seen) = (quantity, price.amount);
            return true;
        }
        if self.0.len() >= CART_LINES {
            // A remembered price is worth less than what somebody wants.
            let Some(spare) = self.0.iter().position(|line| line.quantity == 0) else { return false };
            self.0.remove(spare);
        }
        self.0.push(CookieLine { product, quantity, seen: price.amount });
        true
    }

    pub fn remove(&mut self, product: Uuid) {
        self.0.retain(|line| line.product != product);
    }

    /// The price that was shown last, if it was another one; `now` is remembered instead.
    pub fn price_shown(&mut self, product: Uuid, now: &Money) -> Option<Money> {
        if let Some(line) = self.0.iter_mut().find(|line| line.product == product) {
            let before = std::mem::replace(&mut line.seen, now.amount);
            return (before != now.amount).then(|| Money { amount: before, currency: now.currency.clone() });
        }
        let _ = self.set(product, 0, now);
        None
    }
}

/// What all of a visitor's cookies of this kind say. It goes back into them where it has changed.
#[derive(Clone, PartialEq)]
pub struct Kept {
    pub session: Option<Session>,
    pub cart: CookieCart,
    /// How many things the API's cart holds, as it was last seen. It has a cookie of its own: the session's is written
    /// when its tokens change and else not, as an answer that is late would put spent ones back.
    pub held: u32,
    /// What form tokens are made of.
    pub form_id: String,
    /// How often somebody has signed out in this browser. A session from before the last time is none: an answer that was
    /// under way may bring its cookie back.
    pub outs: u32,
}

impl Kept {
    pub fn of(cookie: impl Fn(&str) -> Option<String>) -> Self {
        let form = cookie("form").unwrap_or_default();
        let (form_id, outs) = form.split_once('.').unwrap_or((form.as_str(), ""));
        let outs = outs.parse::<u32>().unwrap_or(0);
        let session = cookie("session").and_then(|text| serde_json::from_str::<Session>(&text).ok());
        let session = session.filter(|session| session.outs == outs);
        let held = cookie("held").filter(|_| session.is_some());
        Self {
            cart: cookie("cart").map(|text| CookieCart::decode(&text)).unwrap_or_default(),
            held: held.and_then(|text| text.parse().ok()).unwrap_or(0),
            form_id: form_id.to_owned(),
            session,
            outs,
        }
    }
}

#[cfg(test)]
mod tests {
    use axum_extra::extract::cookie::{Cookie, Key, PrivateCookieJar};

    use super::*;

    fn cart(lines: usize) -> CookieCart {
        let line = |_| CookieLine { product: Uuid::now_v7(), quantity: 999, seen: i64::MAX };
        CookieCart((0..lines).map(line).collect())
    }

    /// As a browser stores it: name and value in one, of which it takes 4,096 bytes.
    fn stored(value: String) -> usize {
        let jar = PrivateCookieJar::new(Key::generate()).add(Cookie::new("__Host-session", value));
        let response = axum::response::IntoResponse::into_response(jar);
        let header = response.headers().get("set-cookie").expect("a cookie").to_str().expect("text");
        header.split(';').next().unwrap_or_default().len()
    }

    #[test]
    fn a_session_from_before_a_sign_out_is_none() {
        let kept = |form: &str| {
            Kept::of(|name| match name {
                "session" => Some(r#"{"a":"x","r":"y","u":1,"n":"Ada"}"#.to_owned()),
                "form" => Some(form.to_owned()),
                _ => None,
            })
        };
        for before in ["", "id", "id.0"] {
            assert!(kept(before).session.is_some(), "{before}");
        }
        assert!(kept("id.1").session.is_none());
        assert_eq!((kept("id.1").form_id.as_str(), kept("id.1").outs), ("id", 1));
    }

    #[test]
    fn a_full_cart_fits_a_cookie() {
        let full = cart(CART_LINES);
        assert!(stored(full.encode()) < 3500, "{}", stored(full.encode()));
        assert_eq!(CookieCart::decode(&full.encode()), full);
    }

    #[test]
    fn a_session_with_the_longest_name_fits_a_cookie() {
        let tokens =
            Tokens { access_token: "a".repeat(1200), refresh_token: "r".repeat(43), expires_in: 900 };
        let session = Session::new(tokens, &"船".repeat(100));
        assert_eq!(session.name, "船".repeat(33));
        let text = serde_json::to_string(&session).unwrap();
        assert!(stored(text.clone()) < 3500, "{}", stored(text));
    }

    #[test]
    fn who_is_staff_is_what_the_token_says() {
        let session = |access_token: String| {
            Session::new(Tokens { access_token, refresh_token: String::new(), expires_in: 900 }, "Ada")
        };
        let of = |role: &str| {
            let claims = BASE64_URL_SAFE_NO_PAD.encode(json!({"sub": "x", "role": role}).to_string());
            let session = session(format!("e30.{claims}.c2ln"));
            (session.is_staff(), session.is_admin())
        };
        assert_eq!(of("customer"), (false, false));
        assert_eq!(of("staff"), (true, false));
        assert_eq!(of("admin"), (true, true));
        for bad in ["", "x", "a.b.c", "e30.e30.c2ln"] {
            assert!(!session(bad.to_owned()).is_staff(), "{bad}");
        }
    }

    #[test]
    fn a_full_cart_takes_no_more_and_keeps_what_it_has() {
        let price = Money { amount: 5, currency: "EUR".into() };
        let mut full = cart(CART_LINES);
        let before = full.clone();
        assert!(!full.set(Uuid::now_v7(), 1, &price));
        assert_eq!(full, before);
        full.0[3].quantity = 0;
        assert!(full.set(Uuid::now_v7(), 1, &price), "a remembered price makes room");
        assert_eq!(full.0.len(), CART_LINES);
    }

    #[test]
    fn what_is_no_cart_is_an_empty_one() {
        for bad in ["", "x", "!!", "AAAA", &"A".repeat(33)] {
            assert_eq!(CookieCart::decode(bad), CookieCart::default(), "{bad}");
        }
        assert_eq!(CookieCart::decode(&"A".repeat(100_000)).0.len(), CART_LINES);
    }

    #[test]
    fn another_price_than_the_one_shown_is_told_once() {
        let price = |amount| Money { amount, currency: "EUR".into() };
        let (mut cart, product) = (CookieCart::default(), Uuid::now_v7());
        assert!(cart.set(product, 2, &price(100)));
        assert_eq!(cart.price_shown(product, &price(100)), None);
        assert_eq!(cart.price_shown(product, &price(120)), Some(price(100)));
        assert_eq!(cart.price_shown(product, &price(120)), None);
    }
}
