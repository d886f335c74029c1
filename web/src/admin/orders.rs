//! `/admin/orders`: everybody's orders, with a search.

use askama::Template;
use axum::Router;
use axum::http::Method;
use axum::routing::get;

use super::address;
use crate::api::types::{Order, Page};
use crate::app::App;
use crate::form::Fill;
use crate::locale;
use crate::page::{Frame, Shown, personal, unprocessable};
use crate::visitor::Visitor;

pub fn router() -> Router<App> {
    Router::new().route("/admin/orders", get(list))
}

const FILTERS: [&str; 10] = [
    "status",
    "number",
    "email",
    "q",
    "placed_from",
    "placed_to",
    "min_total",
    "max_total",
    "currency",
    "user_id",
];

const STATUSES: [&str; 6] =
    ["pending", "confirmed", "partially_shipped", "shipped", "delivered", "cancelled"];

#[derive(Template)]
#[template(path = "admin/orders.html")]
struct Orders {
    p: Frame,
    fill: Fill,
    /// Some of the filters that are out of sight at first are used.
    more: bool,
    orders: Vec<Order>,
    next: Option<String>,
    first: Option<String>,
}

impl Orders {
    fn statuses(&self) -> [&'static str; 6] {
        STATUSES
    }

    /// The same filters with another status.
    fn of_status(&self, status: &str) -> String {
        let others = FILTERS[1..].iter().map(|name| (*name, self.fill.value(name)));
        address("/admin/orders", &others.chain([("status", status)]).collect::<Vec<_>>())
    }
}

async fn list(visitor: Visitor) -> Shown {
    let lang = visitor.lang();
    let mut fill = FILTERS.iter().fold(Fill::default().within("filter-"), |fill, name| {
        fill.with(name, visitor.query_has(name).unwrap_or_default().trim())
    });
    let cursor = visitor.query_has("cursor").unwrap_or_default();
    let currency = fill.value("currency").to_ascii_uppercase();
    let mut query = vec![("limit", "20".to_owned()), ("cursor", cursor.clone())];
    for name in FILTERS {
        let typed = fill.value(name).to_owned();
        if typed.is_empty() {
            continue;
        }
        let asked = match name {
            "min_total" | "max_total" => locale::minor(&typed, &currency).map(|amount| amount.to_string()),
            "currency" => Some(currency.clone()),
            _ => Some(typed),
        };
        match asked {
            Some(asked) => query.push((name, asked)),
            None => fill.wrong(name, lang.text("problem-no-amount", &[])),
        }
    }
    // An amount is of a currency, and a currency alone is of no use.
    query.retain(|(_, value)| !value.is_empty());
    let mut page = Page { items: Vec::new(), next_cursor: None };
    if !fill.is_wrong() {
        match visitor.signed(Method::GET, &["admin", "orders"]).query(&query).get::<Page<Order>>().await {
            Ok(found) => page = found,
            Err(refused) => fill.refuse(lang, refused, &FILTERS)?,
        }
    }
    let here = FILTERS.map(|name| (name, fill.value(name).to_owned()));
    let here: Vec<_> = here.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let later =
        |cursor: String| address("/admin/orders", &[here.as_slice(), &[("cursor", &cursor)]].concat());
    let (next, first) = (page.next_cursor.map(later), address("/admin/orders", &here));
    let orders = Orders {
        p: visitor.frame(&lang.text("admin-orders", &[])),
        more: FILTERS[4..9].iter().any(|name| !fill.value(name).is_empty()),
        fill,
        orders: page.items,
        next,
        first: Some(first).filter(|_| !cursor.is_empty()),
    };
    Ok(if orders.fill.is_wrong() { unprocessable(&orders) } else { personal(&orders) })
}
