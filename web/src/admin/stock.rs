//! `/admin/products/{id}/stock`: what was put on the shelf and taken off it.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::Method;
use axum::routing::get;
use serde_json::json;
use uuid::Uuid;

use super::product::{self, versioned};
use super::types::StockEntry;
use super::{address, key, new_key, refuse};
use crate::api::types::Page;
use crate::app::App;
use crate::form::{Fill, Form};
use crate::page::{Frame, Shown, personal, unprocessable, went};
use crate::visitor::Visitor;

pub fn router() -> Router<App> {
    Router::new().route("/admin/products/{id}/stock", get(page).post(adjust))
}

pub struct Ledger {
    pub entries: Vec<StockEntry>,
    pub next: Option<String>,
}

impl Ledger {
    pub fn new(id: Uuid, page: Page<StockEntry>) -> Self {
        let here = format!("/admin/products/{id}/stock");
        let next = page.next_cursor.map(|cursor| address(&here, &[("cursor", &cursor)]));
        Self { entries: page.items, next }
    }
}

#[derive(Template)]
#[template(path = "admin/stock.html")]
struct Stock {
    p: Frame,
    id: Uuid,
    name: String,
    ledger: Ledger,
    later: bool,
}

async fn page(visitor: Visitor, Path(id): Path<Uuid>) -> Shown {
    let cursor = visitor.query_has("cursor");
    let mut query = vec![("limit", "50")];
    query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
    let name = id.to_string();
    let entries = visitor.signed(Method::GET, &["products", &name, "stock-adjustments"]).query(&query);
    let (product, entries) = tokio::join!(versioned(&visitor, id), entries.get::<Page<StockEntry>>());
    let name = product?.0.product.name;
    let p = visitor.frame(&visitor.lang().text("admin-stock-of", &[("value", name.as_str().into())]));
    Ok(personal(&Stock { p, id, name, ledger: Ledger::new(id, entries?), later: cursor.is_some() }))
}

/// A form to fill in.
pub fn empty() -> Fill {
    Fill::default().with("key", new_key().to_string())
}

async fn adjust(visitor: Visitor, Path(id): Path<Uuid>, form: Form) -> Shown {
    let mut fill = Fill::of(&form);
    match form.get("delta").trim().parse::<i32>() {
        Err(_) => fill.wrong("delta", visitor.lang().text("problem-no-number", &[])),
        Ok(delta) => {
            let call = visitor.signed(Method::POST, &["products", &id.to_string(), "stock-adjustments"]);
            let body = json!({"delta": delta, "reason": form.get("reason").trim()});
            match call.json(&body).key(&key(&form)).done().await {
                Ok(_) => return Ok(went(&format!("/admin/products/{id}"), "stock-adjusted")),
                Err(refused) => refuse(&mut fill, visitor.lang(), refused, &["delta", "reason"])?,
            }
        }
    }
    let mut page = product::view(&visitor, id).await?;
    page.stock = fill;
    Ok(unprocessable(&page))
}
