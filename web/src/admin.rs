//! `/admin`: the back office, for staff. The API decides what somebody may do; for others these pages do not
//! exist.

mod audit;
mod categories;
mod customers;
mod images;
mod imports;
mod merge;
mod order;
mod orders;
mod product;
mod products;
mod stock;
mod types;
mod upload;

use std::mem;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use url::form_urlencoded::Serializer;
use uuid::Uuid;

use crate::api::Refused;
use crate::api::types::Problem;
use crate::app::App;
use crate::form::{Fill, Form};
use crate::locale::Lang;
use crate::page::{Failed, Frame};
use crate::session::Session;
use crate::visitor::Visitor;

/// What a redirect may say by `?said=`.
pub const SAID: [&str; 20] = [
    "category-created",
    "category-saved",
    "category-deleted",
    "product-created",
    "product-saved",
    "product-archived",
    "product-restored",
    "images-added",
    "images-moved",
    "image-deleted",
    "stock-adjusted",
    "order-shipped",
    "tracking-corrected",
    "order-delivered",
    "order-cancelled",
    "order-refunded",
    "note-added",
    "order-sent-elsewhere",
    "mail-sent-again",
    "customer-changed",
];

pub fn router() -> Router<App> {
    Router::new()
        .route("/admin", get(async || Redirect::to("/admin/orders")))
        .merge(audit::router())
        .merge(categories::router())
        .merge(customers::router())
        .merge(images::router())
        .merge(imports::router())
        .merge(order::router())
        .merge(orders::router())
        .merge(product::router())
        .merge(products::router())
        .merge(stock::router())
        .route_layer(middleware::from_fn(for_staff))
}

async fn for_staff(visitor: Visitor, request: Request, next: Next) -> Response {
    match visitor.session() {
        None => Failed::from(Refused::SignedOut).into_response(),
        Some(session) if !session.is_staff() => Failed::NotFound.into_response(),
        Some(_) => next.run(request).await,
    }
}

impl Frame {
    pub fn is_admin(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_admin)
    }

    /// The page is below this one.
    pub fn is_below(&self, path: &str) -> bool {
        self.path == path || self.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// The form's own key, made when it was shown: a form that is sent twice counts once.
fn key(form: &Form) -> String {
    form.get("key").parse::<Uuid>().unwrap_or_else(|_| new_key()).to_string()
}

/// As [`Fill::refuse`]. A form that was certainly refused gets another key, as it comes again with other
/// values. Where an answer is missing, the key stays: it may have been done.
fn refuse(fill: &mut Fill, lang: Lang, refused: Refused, fields: &[&str]) -> Result<(), Refused> {
    let sure = match &refused {
        Refused::Problem(problem) => problem.status != 429 && problem.code != "idempotency_in_progress",
        _ => false,
    };
    fill.refuse(lang, refused, fields)?;
    if sure {
        *fill = mem::take(fill).with("key", new_key().to_string());
    }
    Ok(())
}

/// The problem with the first field that it names, for a page that does not have that field.
fn plainly(mut problem: Box<Problem>) -> Box<Problem> {
    if let Some(error) = problem.errors.first() {
        let field = error.pointer.trim_start_matches('/').replace('_', " ");
        problem.detail =
            if field.is_empty() { error.detail.clone() } else { format!("{field}: {}", error.detail) };
    }
    problem
}

fn new_key() -> Uuid {
    Uuid::now_v7()
}

/// `path`, with the fields of `query` that have a value.
fn address(path: &str, query: &[(&str, &str)]) -> String {
    let said = query.iter().filter(|(_, value)| !value.is_empty());
    let query = Serializer::new(String::new()).extend_pairs(said).finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_calls_things_has_words() {
        let groups = [
            ("product", "published draft deleted"),
            ("state", "published draft deleted"),
            ("entry", "initial adjustment sale restock"),
            ("role", "customer staff admin"),
            ("import", "running done failed lost"),
            ("format", "csv tsv ndjson rss atom xml"),
            ("profile", "shopify woocommerce magento prestashop google"),
            ("dispute", "open won lost"),
            ("phase", "creating authorising committing capturing confirmed voiding refunding settled"),
            ("made-by", "staff cancel provider"),
            ("cancel-staff-view", "payment-declined payment-timeout out-of-stock customer staff"),
            (
                "field",
                "name sku description price currency category status attributes stock delta reason carrier",
            ),
            (
                "field",
                "tracking-number amount returned text number q placed-from placed-to min-total max-total file slug parent action actor object from to",
            ),
        ];
        let done: Vec<String> =
            audit::PARTS.iter().map(|(_, actions)| actions.replace(['.', '_'], "-")).collect();
        let parts = audit::PARTS.map(|(name, _)| ("audit", name));
        for (group, words) in
            groups.into_iter().chain(parts).chain(done.iter().map(|words| ("did", words.as_str())))
        {
            for word in words.split(' ') {
                assert!(Lang::En.has(&format!("{group}-{word}")), "{group}-{word}");
            }
        }
    }

    #[test]
    fn an_address_has_what_says_something() {
        assert_eq!(address("/admin/orders", &[("status", ""), ("q", "")]), "/admin/orders");
        assert_eq!(address("/admin/orders", &[("status", ""), ("q", "a&b")]), "/admin/orders?q=a%26b");
    }
}
