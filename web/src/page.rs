//! Pages: the frame around each, and those that say what went wrong.

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use fluent_bundle::FluentValue;
use time::OffsetDateTime;

use crate::api::Refused;
use crate::api::types::Money;
use crate::form::{Fill, Input};
use crate::locale::Lang;
use crate::session::Session;
use crate::visitor::Visitor;
use crate::{admin, assets};

/// What every page has around it, and what its template asks for words, prices and fields.
pub struct Frame {
    pub lang: Lang,
    pub theme: &'static str,
    pub title: String,
    pub description: String,
    /// The page's address without what does not matter.
    pub canonical: String,
    /// Addresses of its own for machines, such as of a picture.
    pub picture: Option<String>,
    /// Of a thing to buy rather than of a page.
    pub is_product: bool,
    pub session: Option<Session>,
    pub cart_count: u32,
    pub csrf: String,
    pub here: String,
    pub path: String,
    /// What has just been done.
    pub said: Option<String>,
    /// What the search field holds.
    pub q: String,
    pub demo: bool,
}

/// What a redirect may say by `?said=`, each with its message.
const SAID: [&str; 19] = [
    "added",
    "cart-changed",
    "removed",
    "saved",
    "signed-in",
    "signed-out",
    "signed-out-elsewhere",
    "password-changed",
    "password-set",
    "address-saved",
    "address-deleted",
    "cancelled",
    "welcome",
    "cart-full",
    "cart-busy",
    "placed-before",
    "account-deleted",
    "address-confirmed",
    "address-mail-sent",
];

impl Frame {
    pub fn new(visitor: &Visitor, title: String) -> Self {
        let known = |said: &String| SAID.iter().chain(&admin::SAID).any(|known| known == said);
        let said = visitor.query_has("said").filter(known);
        Self {
            lang: visitor.lang(),
            theme: visitor.theme(),
            title,
            description: visitor.lang().text("shop-description", &[]),
            canonical: format!("{}{}", visitor.app().origin, visitor.path()),
            picture: None,
            is_product: false,
            session: visitor.session(),
            cart_count: visitor.cart_count(),
            csrf: visitor.form_token(),
            here: visitor.here(),
            path: visitor.path().to_owned(),
            said: said.map(|said| visitor.lang().text(&format!("said-{said}"), &[])),
            q: String::new(),
            demo: visitor.app().demo,
        }
    }

    pub fn described(mut self, description: &str) -> Self {
        self.description = description.chars().take(200).collect();
        self
    }

    pub fn searched(mut self, q: &str) -> Self {
        q.clone_into(&mut self.q);
        self
    }

    pub fn t(&self, key: &str) -> String {
        self.lang.text(key, &[])
    }

    /// With `$n`.
    pub fn tn<'a>(&self, key: &str, n: impl Into<FluentValue<'a>>) -> String {
        self.lang.text(key, &[("n", n.into())])
    }

    /// With `$value`.
    pub fn tv(&self, key: &str, value: &str) -> String {
        self.lang.text(key, &[("value", value.into())])
    }

    /// The message `<group>-<word>` for a word of the API's; the word itself where there is none.
    pub fn word(&self, group: &str, word: &str) -> String {
        let key = format!("{group}-{}", word.replace('_', "-"));
        if self.lang.has(&key) { self.lang.text(&key, &[]) } else { word.to_owned() }
    }

    pub fn money(&self, money: &Money) -> String {
        self.lang.money(money)
    }

    pub fn moment(&self, at: &OffsetDateTime) -> String {
        self.lang.moment(*at)
    }

    /// For the `datetime` attribute.
    pub fn machine(&self, at: &OffsetDateTime) -> String {
        at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
    }

    pub fn asset(&self, name: &str) -> String {
        assets::address(name)
    }

    /// A picture of the sprite, by its name.
    pub fn icon(&self, name: &str) -> String {
        format!("{}#{name}", assets::address("sprite.svg"))
    }

    /// The picture that stands for a product, or a category, that has none of its own: by the words of its name, else
    /// of its category.
    pub fn stand_in(&self, name: &str, category: &str) -> &'static str {
        let named = |text: &str| {
            let text = text.to_lowercase();
            STAND_INS
                .iter()
                .find(|(words, _)| words.split(' ').any(|word| text.contains(word)))
                .map(|found| found.1)
        };
        named(name).or_else(|| named(category)).unwrap_or("box")
    }

    /// One of six grounds for such a picture, so that a shelf is not of one colour.
    pub fn tint(&self, text: &str) -> usize {
        text.bytes().fold(7_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % 6
    }

    /// A labelled field with its value, and what is wrong with it.
    pub fn input(
        &self,
        fill: &Fill,
        name: &str,
        label: &str,
        kind: &str,
        autocomplete: &str,
        needed: bool,
    ) -> Input {
        let secret = kind == "password";
        let hint = format!("{label}-hint");
        Input {
            id: fill.id(name),
            name: name.to_owned(),
            label: self.t(label),
            kind: kind.to_owned(),
            value: if secret { String::new() } else { fill.value(name).to_owned() },
            problem: fill.problem(name).map(str::to_owned),
            autocomplete: autocomplete.to_owned(),
            needed,
            hint: if self.lang.has(&hint) { self.t(&hint) } else { String::new() },
        }
    }
}

/// Parts of words, and the picture of the sprite for them; the first that fits counts.
const STAND_INS: [(&str, &str); 15] = [
    ("soap shampoo balm salve", "soap"),
    ("barometer compass clock thermometer hygrometer binocular", "gauge"),
    ("knife knives blade", "knife"),
    ("rope line cord rigging shackle", "rope"),
    ("sardine mackerel anchov tuna fish mussel", "fish"),
    ("mug cup coffee tea kettle pantry chocolate honey jam", "cup"),
    ("lamp light lantern torch candle", "lamp"),
    (
        "jacket sweater jumper smock shirt trouser coat vest cloth hat glove beanie sock outer knitwear cap",
        "clothing",
    ),
    ("bag pack tote holdall duffel pouch", "bag"),
    ("book chart atlas almanac log guide pencil paper", "book"),
    ("pot pan stove cook skillet pitcher plate bowl galley tableware enamel board", "pot"),
    ("tool hammer plane saw axe chisel wrench plier awl screw", "tool"),
    ("home cabin blanket towel linen soap cushion rug quilt bath", "home"),
    ("sail deck anchor safety boat mooring fender flag buoy", "anchor"),
    ("box", "box"),
];

/// Whether others than the visitor's browser may keep a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// What only this visitor may see: it is not kept anywhere.
    Personal,
    /// What all see, but for the frame: the browser may keep it, and asks again.
    Public,
}

pub fn show(status: StatusCode, page: &impl Template, holds: Holds) -> Response {
    let html = match page.render() {
        Ok(html) => html,
        Err(error) => {
            tracing::error!(%error, "page.not_rendered");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let mut response = (status, Html(html)).into_response();
    if holds == Holds::Public {
        let value = HeaderValue::from_static("private, no-cache");
        response.headers_mut().insert(header::CACHE_CONTROL, value);
    }
    response
}

pub fn personal(page: &impl Template) -> Response {
    show(StatusCode::OK, page, Holds::Personal)
}

/// What was typed, with what is wrong about it.
pub fn unprocessable(page: &impl Template) -> Response {
    show(StatusCode::UNPROCESSABLE_ENTITY, page, Holds::Personal)
}

/// After something was done: a reload does not do it again.
pub fn went(to: &str, said: &str) -> Response {
    let mark = if to.contains('?') { '&' } else { '?' };
    if said.is_empty() { Redirect::to(to) } else { Redirect::to(&format!("{to}{mark}said={said}")) }
        .into_response()
}

/// A path of ours that somebody may be sent to, whoever asks for it.
pub fn own_path(next: &str) -> &str {
    let ours = next.starts_with('/')
        && !next.starts_with("//")
        && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if ours { next } else { "/" }
}

/// What ends a request without its page.
#[derive(Clone, Debug)]
pub enum Failed {
    Refused(Refused),
    NotFound,
    /// Sent by no form as it is shown.
    BadInput,
    /// Not sent by a page of ours.
    Forbidden,
    TooLarge,
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// The visitor's layer makes a page of it.
impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

pub type Shown = Result<Response, Failed>;

#[derive(Template)]
#[template(path = "message.html")]
struct Message {
    p: Frame,
    text: String,
    request_id: String,
    search: bool,
    back: Option<String>,
}

pub fn failure(visitor: &Visitor, failed: &Failed, safe: bool) -> Response {
    let (status, key) = match failed {
        Failed::Refused(Refused::SignedOut) => {
            let next = if safe { visitor.here() } else { "/".to_owned() };
            let next: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
            return Redirect::to(&format!("/sign-in?next={next}")).into_response();
        }
        Failed::Refused(Refused::Problem(problem)) => match problem.status {
            404 => (StatusCode::NOT_FOUND, "not-found"),
            403 => (StatusCode::FORBIDDEN, "not-allowed"),
            429 => (StatusCode::TOO_MANY_REQUESTS, "too-many"),
            _ => (StatusCode::BAD_REQUEST, "bad-request"),
        },
        Failed::BadInput => (StatusCode::BAD_REQUEST, "bad-request"),
        Failed::NotFound => (StatusCode::NOT_FOUND, "not-found"),
        Failed::Refused(Refused::Moved(_)) => (StatusCode::NOT_FOUND, "not-found"),
        Failed::Refused(Refused::Away) => (StatusCode::SERVICE_UNAVAILABLE, "away"),
        Failed::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
        Failed::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
    };
    let lang = visitor.lang();
    let page = Message {
        p: visitor.frame(&lang.text(&format!("error-{key}-title"), &[])),
        text: lang.text(&format!("error-{key}"), &[]),
        request_id: visitor.request_id().and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned(),
        search: status == StatusCode::NOT_FOUND,
        back: safe.then(|| visitor.here()),
    };
    let mut response = show(status, &page, Holds::Personal);
    if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere() {
        for ours in ["/", "/checkout", "/products?q=rope&sort=price"] {
            assert_eq!(own_path(ours), ours);
        }
        for other in
            ["", "//evil.example", "https://evil.example", "/\\evil.example", "/a\nb", "javascript:x", "/ x"]
        {
            assert_eq!(own_path(other), "/", "{other}");
        }
    }

    #[test]
    fn all_that_pages_say_by_a_computed_name_exists() {
        for lang in [Lang::En, Lang::Zh] {
            for said in SAID.iter().chain(&admin::SAID) {
                assert!(lang.has(&format!("said-{said}")), "{said}");
            }
            for error in
                ["not-found", "not-allowed", "too-many", "bad-request", "away", "forbidden", "too-large"]
            {
                assert!(
                    lang.has(&format!("error-{error}")) && lang.has(&format!("error-{error}-title")),
                    "{error}"
                );
            }
        }
    }
}
