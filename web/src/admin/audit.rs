//! `/admin/audit`: who did what, for admins alone.

use askama::Template;
use axum::Router;
use axum::http::Method;
use axum::routing::get;
use serde_json::Value;

use super::address;
use super::types::{Audited, Changed};
use crate::api::types::Page;
use crate::app::App;
use crate::form::Fill;
use crate::page::{Frame, Shown, personal, unprocessable};
use crate::visitor::Visitor;

pub fn router() -> Router<App> {
    Router::new().route("/admin/audit", get(list))
}

/// What the record is about: each service has its own. With what may be done there.
pub const PARTS: [(&str, &str); 3] = [
    (
        "orders",
        "order.shipped order.tracking_corrected order.delivered order.cancelled order.refunded \
         order.sent_elsewhere note.added",
    ),
    (
        "products",
        "product.created product.changed product.archived product.restored products.imported stock.adjusted \
         image.put image.deleted category.created category.changed category.deleted category.merged",
    ),
    (
        "users",
        "account.changed account.erased mail.sent_again sign_in.succeeded sign_in.failed sign_in.paused \
         password.changed password.reset_asked password.reset email.changed",
    ),
];

const FILTERS: [&str; 5] = ["action", "actor", "object", "from", "to"];

#[derive(Template)]
#[template(path = "admin/audit.html")]
struct Audit {
    p: Frame,
    fill: Fill,
    part: (&'static str, &'static str),
    entries: Vec<Audited>,
    next: Option<String>,
    first: Option<String>,
}

impl Audit {
    fn parts(&self) -> [&'static str; 3] {
        PARTS.map(|(name, _)| name)
    }

    fn is_part(&self, name: &str) -> bool {
        self.part.0 == name
    }

    fn actions(&self) -> Vec<&'static str> {
        self.part.1.split_whitespace().collect()
    }

    fn did(&self, action: &str) -> String {
        let word = action.replace('.', "-");
        let text = self.p.word("did", &word);
        if text == word { action.to_owned() } else { text }
    }
}

impl Audited {
    /// Where the back office shows what it was done to.
    fn place(&self) -> Option<String> {
        let folder = match self.object.kind.as_str() {
            "order" => "orders",
            "product" => "products",
            "category" => "categories",
            "account" => "customers",
            _ => return None,
        };
        self.object.id.as_ref().map(|id| format!("/admin/{folder}/{}", urlencoded(id)))
    }
}

fn urlencoded(segment: &str) -> String {
    url::form_urlencoded::byte_serialize(segment.as_bytes()).collect()
}

impl Changed {
    /// What it was and what it is; nothing of a value that is not kept.
    fn values(&self) -> Option<(String, String)> {
        match (&self.before, &self.after) {
            (None, None) => None,
            (before, after) => Some((plain(before.as_ref()), plain(after.as_ref()))),
        }
    }
}

fn plain(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "\u{2013}".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

async fn list(visitor: Visitor) -> Shown {
    let lang = visitor.lang();
    let mut fill = FILTERS.iter().fold(Fill::default().within("filter-"), |fill, name| {
        fill.with(name, visitor.query_has(name).unwrap_or_default().trim())
    });
    let asked = visitor.query_has("part").unwrap_or_default();
    let part = PARTS.into_iter().find(|(name, _)| *name == asked).unwrap_or(PARTS[0]);
    let cursor = visitor.query_has("cursor").unwrap_or_default();
    let here = FILTERS.map(|name| (name, fill.value(name).to_owned()));
    let here: Vec<_> = here.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut query = [here.as_slice(), &[("limit", "20"), ("cursor", &cursor)]].concat();
    query.retain(|(_, value)| !value.is_empty());
    let mut page = Page { items: Vec::new(), next_cursor: None };
    match visitor.signed(Method::GET, &["audit", part.0]).query(&query).get::<Page<Audited>>().await {
        Ok(found) => page = found,
        Err(refused) => fill.refuse(lang, refused, &FILTERS)?,
    }
    let there = |cursor: &str| {
        address("/admin/audit", &[&[("part", part.0)], here.as_slice(), &[("cursor", cursor)]].concat())
    };
    let (next, first) = (page.next_cursor.map(|cursor| there(&cursor)), there(""));
    let first = Some(first).filter(|_| !cursor.is_empty());
    let p = visitor.frame(&lang.text("admin-audit", &[]));
    let audit = Audit { p, fill, part, entries: page.items, next, first };
    Ok(if audit.fill.is_wrong() { unprocessable(&audit) } else { personal(&audit) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_that_is_not_kept_is_not_shown_as_none() {
        let changed = |value: Value| serde_json::from_value::<Changed>(value).unwrap().values();
        assert_eq!(changed(json!({"field": "name"})), None);
        let text = changed(json!({"field": "price", "before": null, "after": {"amount": 1}}));
        assert_eq!(text, Some(("\u{2013}".to_owned(), "{\"amount\":1}".to_owned())));
    }
}
