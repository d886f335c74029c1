//! What the browser keeps for us in encrypted cookies: the session's tokens, and the cart of who has not signed in
//! ([`crate::cookie_cart`]).
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

use crate::api::types::Tokens;
use crate::api::{Call, Refused};
use crate::cookie_cart::{Addition, CookieCart};
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

/// Of an access token.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    role: String,
}

/// Longest name that is kept, in bytes.
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
            match call.for_all().json(&json!({"refresh_token": spent})).get_unsigned::<Tokens>().await {
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
        flights.retain(|_, flight| flight.since.elapsed() < KEPT);
        if let Some(known) = flights.get(token) {
            return known.clone();
        }
        // Beyond the limit each is on its own, as on two replicas.
        if flights.len() >= MOST {
            return new();
        }
        flights.entry(token.to_owned()).or_insert_with(new).clone()
    }
}

/// What all of a visitor's cookies of this kind say. It goes back into them where it has changed.
#[derive(Clone, PartialEq)]
pub struct Kept {
    pub session: Option<Session>,
    /// With the additions.
    pub cart: CookieCart,
    /// What has been added to the cart by cookies of their own, as they came and of this request.
    pub additions: Vec<Addition>,
    /// How many things the API's cart holds, as it was last seen. It has a cookie of its own: the session's is written
    /// when its tokens change and else not, as an answer that is late would put spent ones back.
    pub held: u32,
    /// The device tokens of the accounts that somebody has signed in with here, the newest first.
    pub devices: Vec<String>,
    /// What form tokens are made of.
    pub form_id: String,
    /// How often somebody has signed out in this browser. A session from before the last time is none: an answer that was
    /// under way may bring its cookie back.
    pub outs: u32,
}

impl Kept {
    pub fn of(cookie: impl Fn(&str) -> Option<String>, additions: Vec<Addition>) -> Self {
        let form = cookie("form").unwrap_or_default();
        let (form_id, outs) = form.split_once('.').unwrap_or((form.as_str(), ""));
        let outs = outs.parse::<u32>().unwrap_or(0);
        let session = cookie("session").and_then(|text| serde_json::from_str::<Session>(&text).ok());
        let session = session.filter(|session| session.outs == outs);
        let held = cookie("held").filter(|_| session.is_some());
        Self {
            cart: cookie("cart").map(|text| CookieCart::decode(&text)).unwrap_or_default().with(&additions),
            additions,
            devices: cookie("device")
                .map(|text| text.split('.').map(str::to_owned).collect())
                .unwrap_or_default(),
            held: held.and_then(|text| text.parse().ok()).unwrap_or(0),
            form_id: form_id.to_owned(),
            session,
            outs,
        }
    }
}

/// Accounts that a browser is known to.
const DEVICES: usize = 4;

impl Kept {
    /// Keeps a device token for the next sign-in.
    pub fn remember(&mut self, device: String) {
        self.devices.insert(0, device);
        self.devices.truncate(DEVICES);
    }
}

#[cfg(test)]
mod tests {
    use axum_extra::extract::cookie::{Cookie, Key, PrivateCookieJar};

    use super::*;

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
            let cookie = |name: &str| match name {
                "session" => Some(r#"{"a":"x","r":"y","u":1,"n":"Ada"}"#.to_owned()),
                "form" => Some(form.to_owned()),
                _ => None,
            };
            Kept::of(cookie, Vec::new())
        };
        for before in ["", "id", "id.0"] {
            assert!(kept(before).session.is_some(), "{before}");
        }
        assert!(kept("id.1").session.is_none());
        assert_eq!((kept("id.1").form_id.as_str(), kept("id.1").outs), ("id", 1));
    }

    #[test]
    fn the_answer_to_a_spent_token_is_kept_for_a_minute() {
        let refresher = Refresher::default();
        let first = refresher.flight("token");
        assert!(Arc::ptr_eq(&first.tokens, &refresher.flight("token").tokens));
        // The clock of a machine that has just started may not reach back so far.
        let Some(before) = Instant::now().checked_sub(KEPT) else { return };
        refresher.0.lock().unwrap().get_mut("token").unwrap().since = before;
        assert!(!Arc::ptr_eq(&first.tokens, &refresher.flight("token").tokens));
    }

    #[test]
    fn a_session_with_the_longest_name_fits_a_cookie() {
        let tokens = Tokens {
            access_token: "a".repeat(1200),
            refresh_token: "r".repeat(43),
            expires_in: 900,
            device_token: None,
        };
        let session = Session::new(tokens, &"船".repeat(100));
        assert_eq!(session.name, "船".repeat(33));
        let text = serde_json::to_string(&session).unwrap();
        assert!(stored(text.clone()) < 3500, "{}", stored(text));
    }

    #[test]
    fn who_is_staff_is_what_the_token_says() {
        let session = |access_token: String| {
            let refresh_token = String::new();
            Session::new(Tokens { access_token, refresh_token, expires_in: 900, device_token: None }, "Ada")
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
}
