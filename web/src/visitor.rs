//! Who a request is from: language, session and cart, out of cookies and back into them.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time;

use ::time::Duration;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum_extra::extract::cookie::{Cookie, CookieJar, PrivateCookieJar, SameSite};
use tokio::time::Instant;

use crate::api::types::Money;
use crate::api::{Call, Refused};
use crate::app::App;
use crate::cookie_cart::{ADDITIONS, Addition, CookieCart, KNOWN};
use crate::locale::Lang;
use crate::page::{self, Failed, Frame};
use crate::session::{Kept, Session};
use crate::{api, guard};

/// A session is renewed when its access token has less than this left, in seconds.
const EARLY: i64 = 60;
/// A page is shown with what has come until then. A page that changes something has longer, as a change may
/// take longer.
const READ: time::Duration = time::Duration::from_secs(10);
const CHANGE: time::Duration = time::Duration::from_secs(15);
const KEPT: Duration = Duration::days(30);
const CHOICES_KEPT: Duration = Duration::days(365);
/// What cookies of additions to the cart begin with.
const ADDED: &str = "added-";

#[derive(Clone)]
pub struct Visitor(Arc<Inner>);

struct Inner {
    app: App,
    lang: Lang,
    theme: &'static str,
    /// When the page has to be there.
    until: Mutex<Instant>,
    path: String,
    query: Option<String>,
    request_id: Option<HeaderValue>,
    address: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    /// As they came, encrypted.
    private: PrivateCookieJar,
    kept: Mutex<Kept>,
}

pub const THEMES: [&str; 3] = ["auto", "light", "dark"];

impl Visitor {
    fn new(app: App, request: &Request) -> Self {
        let headers = request.headers();
        let private = PrivateCookieJar::from_headers(headers, app.key.clone());
        let plain = CookieJar::from_headers(headers);
        let choice = |name: &str| plain.get(name).map(|cookie| cookie.value().to_owned()).unwrap_or_default();
        let text =
            |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
        let lang =
            Lang::of_code(&choice("lang")).unwrap_or_else(|| Lang::preferred(text(header::ACCEPT_LANGUAGE)));
        let theme = choice("theme");
        let theme = THEMES.into_iter().find(|known| *known == theme).unwrap_or(THEMES[0]);
        let kept = Self::read(&app, &private);
        Self(Arc::new(Inner {
            lang,
            theme,
            until: Mutex::new(Instant::now() + if request.method().is_safe() { READ } else { CHANGE }),
            path: request.uri().path().to_owned(),
            query: request.uri().query().map(str::to_owned),
            request_id: headers.get("x-request-id").cloned(),
            address: address(headers),
            user_agent: headers.get(header::USER_AGENT).cloned(),
            kept: Mutex::new(kept),
            private,
            app,
        }))
    }

    fn read(app: &App, jar: &PrivateCookieJar) -> Kept {
        let start = app.cookie(ADDED);
        let added = jar
            .iter()
            .filter_map(|cookie| Addition::decode(cookie.name().strip_prefix(&start)?, cookie.value()));
        let cookie = |name: &str| jar.get(&app.cookie(name)).map(|cookie| cookie.value().to_owned());
        // A jar has no order.
        let mut added: Vec<_> = added.collect();
        added.sort_by_key(Addition::age);
        Kept::of(cookie, added)
    }

    pub fn app(&self) -> &App {
        &self.0.app
    }

    pub fn lang(&self) -> Lang {
        self.0.lang
    }

    pub fn theme(&self) -> &'static str {
        self.0.theme
    }

    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// When the page has to be there.
    pub fn until(&self) -> Instant {
        *self.0.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file has been sent, which takes its time: the page's begins now.
    pub fn begin_anew(&self) {
        *self.0.until.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + CHANGE;
    }

    /// The time that is left for the page.
    pub fn left(&self) -> time::Duration {
        self.until().saturating_duration_since(Instant::now())
    }

    /// What was asked for, to come back to it.
    pub fn here(&self) -> String {
        match &self.0.query {
            Some(query) => format!("{}?{query}", self.0.path),
            None => self.0.path.clone(),
        }
    }

    pub fn query_has(&self, name: &str) -> Option<String> {
        let query = self.0.query.as_deref()?;
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    pub fn request_id(&self) -> Option<&HeaderValue> {
        self.0.request_id.as_ref()
    }

    pub fn address(&self) -> Option<&HeaderValue> {
        self.0.address.as_ref()
    }

    pub fn user_agent(&self) -> Option<&HeaderValue> {
        self.0.user_agent.as_ref()
    }

    /// A call to the API without a session.
    pub fn call(&self, method: Method, path: &[&str]) -> Call<'_> {
        Call::new(self, method, path)
    }

    /// A call as who is signed in.
    pub fn signed(&self, method: Method, path: &[&str]) -> Call<'_> {
        Call::new(self, method, path).signed()
    }

    pub fn stream(&self, path: &[&str]) -> Call<'_> {
        Call::stream(self, path)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn session(&self) -> Option<Session> {
        self.kept().session.clone()
    }

    pub fn is_signed_in(&self) -> bool {
        self.kept().session.is_some()
    }

    pub fn sign_in(&self, session: Session) {
        let mut kept = self.kept();
        kept.session = Some(Session { outs: kept.outs, ..session });
        kept.held = 0;
    }

    /// Keeps the token by which this browser is known after a sign-in. Signing out leaves it.
    pub fn remember(&self, device: String) {
        self.kept().remember(device);
    }

    /// What this browser is known by, for a call's header.
    pub fn devices(&self) -> String {
        self.kept().devices.join(",")
    }

    pub fn forget_session(&self) {
        let mut kept = self.kept();
        kept.session = None;
        kept.held = 0;
    }

    /// As [`Self::forget_session`], and for answers that are still under way.
    pub fn sign_out(&self) {
        self.forget_session();
        let mut kept = self.kept();
        kept.outs = kept.outs.wrapping_add(1);
    }

    /// Reads or changes the cart in the cookie.
    pub fn cart<T>(&self, use_it: impl FnOnce(&mut CookieCart) -> T) -> T {
        use_it(&mut self.kept().cart)
    }

    /// Adds to the cart in the cookies; false when it is full.
    #[must_use]
    pub fn add_to_cart(&self, product: uuid::Uuid, more: u16, price: &Money) -> bool {
        let mut kept = self.kept();
        let all = kept.cart.quantity(product).saturating_add(more);
        let mut after = kept.cart.clone();
        if !after.set(product, all, price) {
            return false;
        }
        match kept.additions.len() < ADDITIONS {
            true => kept.additions.push(Addition::new(product, more, price)),
            false => kept.cart = after,
        }
        true
    }

    /// Has the cart's cookie hold what was added by others.
    pub fn settle_cart(&self) {
        let mut kept = self.kept();
        let Kept { cart, additions, .. } = &mut *kept;
        if additions.iter().any(|addition| !cart.knows(addition)) {
            cart.settle(additions);
        }
    }

    /// What was added to the cart since its cookie was written.
    pub fn unsettled(&self) -> Vec<Addition> {
        let kept = self.kept();
        kept.additions.iter().filter(|addition| !kept.cart.knows(addition)).cloned().collect()
    }

    /// What the API's cart holds, as it has just been seen.
    pub fn cart_holds(&self, things: u32) {
        let mut kept = self.kept();
        if kept.session.is_some() {
            kept.held = things;
        }
    }

    pub fn renamed(&self, name: &str) {
        if let Some(session) = &mut self.kept().session {
            name.clone_into(&mut session.name);
        }
    }

    pub fn cart_count(&self) -> u32 {
        let kept = self.kept();
        kept.cart.count().saturating_add(kept.held)
    }

    /// A token that is good for a call; not `refused`, which the API did not take. Renews the session where it has to.
    pub async fn access_token(&self, refused: Option<&str>) -> Result<String, Refused> {
        let session = self.session().ok_or(Refused::SignedOut)?;
        let good = |seconds| session.left() > seconds && refused != Some(session.access.as_str());
        if good(EARLY) {
            return Ok(session.access);
        }
        match self.app().refresher.next(self, &session).await {
            Ok(tokens) => {
                let mut kept = self.kept();
                let renewed = kept.session.take().unwrap_or_else(|| session.clone()).renewed(tokens);
                Ok(kept.session.insert(renewed).access.clone())
            }
            // Renewed in good time, it can wait until the user service is back.
            Err(Refused::Away) if good(5) => Ok(session.access),
            Err(refused) => {
                if matches!(refused, Refused::SignedOut) {
                    self.forget_session();
                }
                Err(refused)
            }
        }
    }

    /// For a form that this page shows.
    pub fn form_token(&self) -> String {
        let mut kept = self.kept();
        if kept.form_id.is_empty() {
            kept.form_id = uuid::Uuid::now_v7().to_string() + &hex::encode(rand::random::<[u8; 16]>());
        }
        guard::form_token(&self.app().key, &kept.form_id)
    }

    /// Whether a form comes from a page of ours that this browser was shown.
    pub fn has_shown(&self, token: &str) -> bool {
        guard::is_form_token(&self.app().key, &self.kept().form_id, token)
    }

    pub fn frame(&self, title: &str) -> Frame {
        Frame::new(self, title.to_owned())
    }

    fn choice(&self, name: &'static str, value: &'static str) -> Cookie<'static> {
        self.cookie(name.to_owned(), value.to_owned(), CHOICES_KEPT)
    }

    fn cookie(&self, name: String, value: String, age: Duration) -> Cookie<'static> {
        Cookie::build((name, value))
            .path("/")
            .http_only(true)
            .secure(self.app().secure)
            .same_site(SameSite::Lax)
            .max_age(age)
            .build()
    }

    /// The choice of a language or a theme, as a cookie to answer with.
    pub fn chosen(&self, lang: Option<Lang>, theme: Option<&'static str>) -> CookieJar {
        let mut jar = CookieJar::new();
        if let Some(lang) = lang {
            jar = jar.add(self.choice("lang", lang.code()));
        }
        if let Some(theme) = theme {
            jar = jar.add(self.choice("theme", theme));
        }
        jar
    }

    fn finish(&self, response: Response) -> Response {
        let (before, mut kept) = (Self::read(self.app(), &self.0.private), self.kept().clone());
        // The cart's cookie takes over what the oldest of too many say.
        let (over, named) = before.additions.split_at(before.additions.len().saturating_sub(KNOWN));
        let settled = |addition: &&Addition| before.cart.knows(addition) && addition.is_settled();
        let gone: Vec<_> = over.iter().chain(named.iter().filter(settled)).collect();
        if before == kept && gone.is_empty() {
            return response;
        }
        let mut jar = PrivateCookieJar::new(self.app().key.clone());
        let mut put = |name: &str, value: Option<String>| {
            // It outlives sessions, which it may declare ended.
            let age = if name == "form" || name == "device" { CHOICES_KEPT } else { KEPT };
            let name = self.app().cookie(name);
            let cookie = match value {
                Some(value) => self.cookie(name, value, age),
                None => self.cookie(name, String::new(), Duration::ZERO),
            };
            jar = jar.clone().add(cookie);
        };
        if kept.session != before.session {
            put("session", kept.session.and_then(|session| serde_json::to_string(&session).ok()));
        }
        if kept.cart != before.cart || !over.is_empty() {
            kept.cart.settle(named);
            put("cart", Some(kept.cart).filter(|cart| !cart.is_blank()).map(|cart| cart.encode()));
        }
        for addition in kept.additions.iter().filter(|addition| !before.additions.contains(addition)) {
            put(&format!("{ADDED}{:08x}", addition.id), Some(addition.encode()));
        }
        for addition in gone {
            put(&format!("{ADDED}{:08x}", addition.id), None);
        }
        if kept.devices != before.devices {
            put("device", Some(kept.devices.join(".")));
        }
        if kept.held != before.held {
            put("held", Some(kept.held).filter(|held| *held > 0).map(|held| held.to_string()));
        }
        if (&kept.form_id, kept.outs) != (&before.form_id, before.outs) {
            put("form", Some(format!("{}.{}", kept.form_id, kept.outs)));
        }
        (jar, response).into_response()
    }
}

/// Whom the edge has seen: it writes the last address of the header.
fn address(headers: &HeaderMap) -> Option<HeaderValue> {
    let list = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
    let last = list.rsplit(',').next()?.trim();
    last.parse::<std::net::IpAddr>().ok()?;
    HeaderValue::from_str(last).ok()
}

impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failed> {
        parts.extensions.get::<Self>().cloned().ok_or(Failed::from(Refused::Away))
    }
}

/// Makes the visitor of a request, turns failures into pages, and writes cookies.
pub async fn layer(State(app): State<App>, mut request: Request, next: Next) -> Result<Response, Infallible> {
    let visitor = Visitor::new(app, &request);
    request.extensions_mut().insert(visitor.clone());
    let safe = request.method().is_safe();
    if !safe && !guard::is_from_here(request.headers(), &visitor.app().origin) {
        return Ok(visitor.finish(page::failure(&visitor, &Failed::Forbidden, safe)));
    }
    let mut response = next.run(request).await;
    // An address that means nothing, such as an order's id that is none: axum says so in plain text.
    if response.status() == StatusCode::BAD_REQUEST
        && response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"))
    {
        response.extensions_mut().insert(Failed::NotFound);
    }
    if let Some(failed) = response.extensions_mut().remove::<Failed>() {
        response = page::failure(&visitor, &failed, safe);
    }
    Ok(visitor.finish(response))
}

/// As [`api::Call::get`] of several calls, where a page shows what it can: what is missing is `None`, and a session that
/// has ended ends the page.
pub fn shown<T>(answer: Result<T, Refused>) -> Result<Option<T>, Refused> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(api::Refused::SignedOut) => Err(Refused::SignedOut),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use axum::body::Body;
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use clap::Parser;
    use uuid::Uuid;

    use super::*;
    use crate::Config;

    fn app() -> App {
        let key = format!("--cookie-key={}", "ab".repeat(64));
        let config = [
            "storefront",
            "--public-url=http://localhost",
            "--api-url=http://localhost",
            "--storefront-key=x",
            &key,
        ];
        App::new(&Config::parse_from(config), &service::Lifecycle::new()).unwrap()
    }

    /// A browser's cookies.
    #[derive(Default)]
    struct Browser(HashMap<String, String>);

    impl Browser {
        fn take(&mut self, response: &Response) {
            for set in response.headers().get_all("set-cookie") {
                let cookie = Cookie::parse(set.to_str().unwrap()).unwrap();
                if cookie.max_age() == Some(Duration::ZERO) {
                    self.0.remove(cookie.name());
                } else {
                    self.0.insert(cookie.name().to_owned(), cookie.value().to_owned());
                }
            }
        }

        fn ask<T>(&mut self, app: &App, answer: impl FnOnce(&Visitor) -> T) -> T {
            let cookies: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let request = Request::builder().header("cookie", cookies.join("; "));
            let visitor = Visitor::new(app.clone(), &request.body(Body::empty()).unwrap());
            let answer = answer(&visitor);
            self.take(&visitor.finish(().into_response()));
            answer
        }
    }

    #[tokio::test]
    async fn more_additions_than_a_cart_can_name_count_once_and_their_cookies_go() {
        let (app, rope) = (app(), Uuid::now_v7());
        let price = Money { amount: 5, currency: "EUR".to_owned() };
        let now = ::time::OffsetDateTime::now_utc().unix_timestamp();
        for (age, left) in [(0, KNOWN), (120, 0)] {
            let (mut browser, mut jar) = (Browser::default(), PrivateCookieJar::new(app.key.clone()));
            for n in 0..20 {
                let addition = Addition::new(rope, 1, &price);
                let mut text = BASE64_URL_SAFE_NO_PAD.decode(addition.encode()).unwrap();
                text[..8].copy_from_slice(&(now - age - n).to_be_bytes());
                let name = app.cookie(&format!("{ADDED}{:08x}", addition.id));
                jar = jar.add(Cookie::new(name, BASE64_URL_SAFE_NO_PAD.encode(text)));
            }
            browser.take(&jar.into_response());
            assert_eq!(browser.0.len(), 20);
            // Pages that show the cart, and others.
            for page in 0..6 {
                let shown = browser.ask(&app, |visitor| {
                    if page % 2 == 1 {
                        visitor.settle_cart();
                    }
                    visitor.cart(|cart| cart.quantity(rope))
                });
                assert_eq!(shown, 20, "page {page}");
                assert!(browser.0.len() <= KNOWN + 1, "page {page}");
            }
            assert!(browser.ask(&app, |visitor| visitor.add_to_cart(rope, 1, &price)));
            assert_eq!(browser.ask(&app, |visitor| visitor.cart(|cart| cart.quantity(rope))), 21);
            let additions = browser.0.keys().filter(|name| name.starts_with(&app.cookie(ADDED))).count();
            assert_eq!(additions, if left == 0 { 1 } else { left }, "{age} seconds old");
        }
    }

    #[tokio::test]
    async fn a_browser_stays_known_to_its_last_four_accounts_when_somebody_signs_out() {
        let (app, mut browser) = (app(), Browser::default());
        for device in ["a", "b", "c", "d", "e"] {
            browser.ask(&app, |visitor| visitor.remember(device.to_owned()));
        }
        browser.ask(&app, Visitor::sign_out);
        assert_eq!(browser.ask(&app, Visitor::devices), "e,d,c,b");
    }

    #[test]
    fn the_visitors_address_is_the_last_that_the_edge_wrote() {
        let of = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", HeaderValue::from_static(line));
            }
            address(&headers).map(|value| value.to_str().unwrap_or_default().to_owned())
        };
        assert_eq!(of(&["198.51.100.7"]).as_deref(), Some("198.51.100.7"));
        assert_eq!(of(&["203.0.113.1, 198.51.100.7"]).as_deref(), Some("198.51.100.7"));
        assert_eq!(of(&["203.0.113.1", "2001:db8::1"]).as_deref(), Some("2001:db8::1"));
        assert_eq!(of(&["198.51.100.7, someone"]), None);
        assert_eq!(of(&[]), None);
    }
}
