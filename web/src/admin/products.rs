//! `/admin/products`: the list, and a new one.

use askama::Template;
use axum::Router;
use axum::http::Method;
use axum::routing::get;
use serde_json::json;

use super::categories::{self, Choice};
use super::product::{FIELDS, Values};
use super::types::StaffProduct;
use super::{address, key, new_key, refuse};
use crate::api::types::{Page, Product};
use crate::app::App;
use crate::form::{Fill, Form};
use crate::page::{Frame, Shown, personal, unprocessable, went};
use crate::visitor::{Visitor, shown};

pub fn router() -> Router<App> {
    Router::new().route("/admin/products", get(list).post(create)).route("/admin/products/new", get(new))
}

/// Those in the shop first.
const STATUSES: [&str; 3] = ["published", "draft", "deleted"];

#[derive(Template)]
#[template(path = "admin/products.html")]
struct List {
    p: Frame,
    status: &'static str,
    /// Only those in the shop are searched for words.
    words: String,
    products: Vec<StaffProduct>,
    categories: Vec<Choice>,
    next: Option<String>,
    first: Option<String>,
}

impl List {
    fn category<'a>(&'a self, slug: &'a str) -> &'a str {
        self.categories.iter().find(|choice| choice.slug == slug).map_or(slug, |choice| &choice.name)
    }

    fn tabs(&self) -> [(&'static str, String); 3] {
        STATUSES.map(|status| (status, address("/admin/products", &[("status", status)])))
    }
}

async fn list(visitor: Visitor) -> Shown {
    let asked = visitor.query_has("status").unwrap_or_default();
    let status = STATUSES.into_iter().find(|status| *status == asked).unwrap_or(STATUSES[0]);
    let words = visitor.query_has("words").filter(|_| status == STATUSES[0]).unwrap_or_default();
    let cursor = visitor.query_has("cursor");
    let mut query = vec![("limit", "20"), ("status", status)];
    if !words.trim().is_empty() {
        query.push(("q", &words));
    }
    query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
    let products = visitor.signed(Method::GET, &["products"]).query(&query);
    let (page, categories) =
        tokio::join!(products.get::<Page<StaffProduct>>(), categories::choices(&visitor));
    let page = page?;
    let here = [("status", status), ("words", words.as_str())];
    let next =
        page.next_cursor.map(|cursor| address("/admin/products", &[here[0], here[1], ("cursor", &cursor)]));
    let first = cursor.map(|_| address("/admin/products", &here));
    let p = visitor.frame(&visitor.lang().text("admin-products", &[]));
    let categories = shown(categories)?.unwrap_or_default();
    Ok(personal(&List { p, status, words, products: page.items, categories, next, first }))
}

#[derive(Template)]
#[template(path = "admin/product_new.html")]
struct New {
    p: Frame,
    fill: Fill,
    categories: Vec<Choice>,
}

async fn view(visitor: &Visitor, fill: Fill) -> Result<New, crate::api::Refused> {
    let p = visitor.frame(&visitor.lang().text("admin-product-new", &[]));
    Ok(New { p, fill, categories: categories::choices(visitor).await? })
}

async fn new(visitor: Visitor) -> Shown {
    let fill = Fill::default().with("key", new_key().to_string()).with("currency", "EUR").with("stock", "0");
    Ok(personal(&view(&visitor, fill.with("status", "draft")).await?))
}

async fn create(visitor: Visitor, form: Form) -> Shown {
    let mut fill = Fill::of(&form);
    let values = Values::of_form(visitor.lang(), &form, &mut fill);
    let stock = form.get("stock").trim().parse::<u32>();
    if stock.is_err() {
        fill.wrong("stock", visitor.lang().text("problem-no-number", &[]));
    }
    if let (Some(values), Ok(stock)) = (values, stock) {
        let mut body = values.body();
        body["stock"] = json!(stock);
        let call = visitor.signed(Method::POST, &["products"]).json(&body).key(&key(&form));
        match call.get::<Product>().await {
            Ok(product) => {
                return Ok(went(&format!("/admin/products/{}", product.id), "product-created"));
            }
            Err(refused) => {
                refuse(&mut fill, visitor.lang(), refused, &[FIELDS.as_slice(), &["stock"]].concat())?
            }
        }
    }
    Ok(unprocessable(&view(&visitor, fill).await?))
}
