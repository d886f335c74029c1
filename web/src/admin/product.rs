//! `/admin/products/{id}`: one product to edit, archive and restore.

use std::collections::BTreeMap;

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::{Method, StatusCode};
use axum::routing::{get, post};
use serde_json::{Value, json};
use uuid::Uuid;

use super::categories::{self, Choice};
use super::merge;
use super::merge::{Difference, Merged};
use super::stock::{self, Ledger};
use super::types::{StaffProduct, StockEntry};
use crate::api::Refused;
use crate::api::types::{Money, Page};
use crate::app::App;
use crate::form::{Fill, Form, sentence};
use crate::locale::{self, Lang};
use crate::page::{Frame, Holds, Shown, personal, show, unprocessable, went};
use crate::visitor::{Visitor, shown};

pub fn router() -> Router<App> {
    Router::new()
        .route("/admin/products/{id}", get(page).post(save))
        .route("/admin/products/{id}/archive", post(archive))
        .route("/admin/products/{id}/restore", post(restore))
}

/// As they are in the form; `price` and `currency` are the API's price.
pub const FIELDS: [&str; 8] =
    ["name", "sku", "description", "price", "currency", "category", "status", "attributes"];

/// A product's fields as a form has them.
pub struct Values {
    texts: BTreeMap<&'static str, String>,
    price: Money,
    attributes: BTreeMap<String, String>,
}

impl Values {
    /// `fill` gets the errors.
    pub fn of_form(lang: Lang, form: &Form, fill: &mut Fill) -> Option<Self> {
        let texts: BTreeMap<_, _> = FIELDS.map(|name| (name, unix(form.get(name)))).into();
        let currency = texts["currency"].trim().to_ascii_uppercase();
        let amount = locale::minor(&texts["price"], &currency);
        if amount.is_none() {
            fill.wrong("price", lang.text("problem-no-amount", &[]));
        }
        let attributes = attributes(&texts["attributes"]);
        if attributes.is_none() {
            fill.wrong("attributes", lang.text("problem-attributes", &[]));
        }
        Some(Self { price: Money { amount: amount?, currency }, attributes: attributes?, texts })
    }

    pub fn of_product(product: &StaffProduct) -> Fill {
        let StaffProduct { product, status } = product;
        let attributes = product.attributes.iter().map(|(name, value)| format!("{name} = {value}"));
        Fill::default()
            .with("name", &*product.name)
            .with("sku", &*product.sku)
            .with("description", unix(&product.description))
            .with("price", locale::plain(&product.price))
            .with("currency", &*product.price.currency)
            .with("category", &*product.category)
            .with("status", status.as_str())
            .with("attributes", attributes.collect::<Vec<_>>().join("\n"))
    }

    /// For the API.
    pub fn body(&self) -> Value {
        let mut body = json!({"price": self.price, "attributes": self.attributes});
        for name in ["name", "sku", "description", "category", "status"] {
            body[name] = json!(self.texts[name]);
        }
        body
    }

    /// What differs from the fields as they were, for the API.
    fn changes(&self, was: &Fill, attributes_were: &BTreeMap<String, String>) -> Value {
        let mut body = self.body();
        let same = |name: &str| was.is(name, &self.texts[name]);
        let Some(fields) = body.as_object_mut() else { return body };
        fields.retain(|name, _| match name.as_str() {
            "price" => !same("price") || !same("currency"),
            name => !same(name),
        });
        // A merge patch keeps what it does not name.
        if let Some(Value::Object(attributes)) = fields.get_mut("attributes") {
            for gone in attributes_were.keys().filter(|name| !self.attributes.contains_key(*name)) {
                attributes.insert(gone.clone(), Value::Null);
            }
        }
        body
    }
}

/// Browsers send lines with both signs.
fn unix(text: &str) -> String {
    text.replace("\r\n", "\n")
}

/// `name = value`, one a line.
fn attributes(text: &str) -> Option<BTreeMap<String, String>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let pairs = lines.map(|line| {
        let (name, value) = line.split_once('=')?;
        Some((name.trim().to_owned(), value.trim().to_owned()))
    });
    pairs.collect()
}

#[derive(Template)]
#[template(path = "admin/product.html")]
pub struct Edit {
    p: Frame,
    id: Uuid,
    slug: String,
    status: String,
    pictures: Vec<String>,
    /// The API names ten uploaded images.
    may_add: bool,
    available: i32,
    etag: String,
    /// What the form began from.
    was: Fill,
    fill: Fill,
    differences: Vec<Difference>,
    taken: Vec<Difference>,
    categories: Vec<Choice>,
    ledger: Option<Ledger>,
    pub stock: Fill,
    pub problem: Option<String>,
}

pub async fn versioned(visitor: &Visitor, id: Uuid) -> Result<(StaffProduct, String), Refused> {
    visitor.signed(Method::GET, &["products", &id.to_string()]).get_versioned().await
}

/// The page of the present state.
pub async fn view(visitor: &Visitor, id: Uuid) -> Result<Edit, Refused> {
    let name = id.to_string();
    let entries = visitor.signed(Method::GET, &["products", &name, "stock-adjustments"]);
    let entries = entries.query(&[("limit", "5")]);
    let (product, entries, categories) =
        tokio::join!(versioned(visitor, id), entries.get::<Page<StockEntry>>(), categories::choices(visitor));
    let (product, etag) = product?;
    let fill = Values::of_product(&product);
    Ok(Edit {
        p: visitor.frame(&product.product.name),
        id,
        etag,
        was: Values::of_product(&product),
        fill,
        differences: Vec::new(),
        taken: Vec::new(),
        categories: shown(categories)?.unwrap_or_default(),
        ledger: shown(entries)?.map(|page| Ledger::new(id, page)),
        stock: stock::empty(),
        problem: None,
        may_add: product.product.images.len() < 10,
        pictures: product.product.images,
        available: product.product.stock.available,
        slug: product.product.slug,
        status: product.status,
    })
}

async fn page(visitor: Visitor, Path(id): Path<Uuid>) -> Shown {
    Ok(personal(&view(&visitor, id).await?))
}

/// What the form began from, and at which version.
fn before(form: &Form) -> Fill {
    FIELDS.iter().fold(Fill::default(), |fill, name| fill.with(name, unix(form.get(&format!("was-{name}")))))
}

/// Tries at most, when something that the form does not have is changed each time.
const TRIES: usize = 3;

/// Changes by others are shown next to what was typed. Where they are in none of the form's fields, such as
/// the stock or the pictures, what was typed is saved.
async fn save(visitor: Visitor, Path(id): Path<Uuid>, form: Form) -> Shown {
    let form = merge::chosen(form);
    let mut fill = Fill::of(&form);
    let (mut was, mut etag) = (before(&form), form.get("etag").to_owned());
    let Some(values) = Values::of_form(visitor.lang(), &form, &mut fill) else {
        return again(&visitor, id, fill, was, etag).await;
    };
    let saved = Ok(went(&format!("/admin/products/{id}"), "product-saved"));
    for _ in 0..TRIES {
        let changes = values.changes(&was, &attributes(was.value("attributes")).unwrap_or_default());
        if changes.as_object().is_some_and(serde_json::Map::is_empty) {
            return saved;
        }
        let call = visitor.signed(Method::PATCH, &["products", &id.to_string()]).header("if-match", &etag);
        match call.json(&changes).done().await {
            Ok(_) => return saved,
            Err(Refused::Problem(problem)) if problem.status == 412 => {
                let mut page = view(&visitor, id).await?;
                let merged = Merged::new(&was, &fill, &page.was);
                if merged.is_clear() {
                    (was, etag) = (page.was, page.etag);
                    continue;
                }
                (page.fill, page.differences, page.taken) = (merged.fill, merged.differences, merged.taken);
                return Ok(show(StatusCode::CONFLICT, &page, Holds::Personal));
            }
            Err(refused) => {
                fill.refuse(visitor.lang(), refused, &FIELDS)?;
                return again(&visitor, id, fill, was, etag).await;
            }
        }
    }
    fill.general = Some(visitor.lang().text("problem-precondition-failed", &[]));
    again(&visitor, id, fill, was, etag).await
}

/// What was typed, on what it began from.
async fn again(visitor: &Visitor, id: Uuid, fill: Fill, was: Fill, etag: String) -> Shown {
    let mut page = view(visitor, id).await?;
    (page.fill, page.was, page.etag) = (fill, was, etag);
    Ok(unprocessable(&page))
}

async fn archive(visitor: Visitor, Path(id): Path<Uuid>, form: Form) -> Shown {
    let call = visitor.signed(Method::DELETE, &["products", &id.to_string()]);
    match call.header("if-match", form.get("etag")).done().await {
        Ok(_) => Ok(went(&format!("/admin/products/{id}"), "product-archived")),
        Err(refused) => not_done(&visitor, id, refused).await,
    }
}

async fn restore(visitor: Visitor, Path(id): Path<Uuid>, _: Form) -> Shown {
    match visitor.signed(Method::POST, &["products", &id.to_string(), "restore"]).done().await {
        Ok(_) => Ok(went(&format!("/admin/products/{id}"), "product-restored")),
        Err(refused) => not_done(&visitor, id, refused).await,
    }
}

/// The product's page, with the reason why something was not done.
pub async fn not_done(visitor: &Visitor, id: Uuid, refused: Refused) -> Shown {
    let why = match refused {
        Refused::Problem(problem) if problem.status != 404 => sentence(visitor.lang(), &problem),
        Refused::Away => visitor.lang().text("error-outcome-unknown", &[]),
        other => return Err(other.into()),
    };
    let mut page = view(visitor, id).await?;
    page.problem = Some(why);
    Ok(unprocessable(&page))
}

impl Edit {
    fn is_conflict(&self) -> bool {
        !self.differences.is_empty() || !self.taken.is_empty()
    }

    /// An uploaded image is fetched with the session: those of drafts are not public.
    fn shown(&self, picture: &str) -> String {
        let ours = picture.rsplit('/').next().filter(|_| picture.starts_with("/api/v1/products/"));
        ours.map(|n| format!("/admin/products/{}/images/{n}", self.id)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Form {
        Form::parse(text.as_bytes())
    }

    #[test]
    fn a_change_names_what_was_changed_alone() {
        let was = Fill::default()
            .with("name", "Lamp")
            .with("sku", "L")
            .with("description", "two\nlines")
            .with("price", "19.90")
            .with("currency", "EUR")
            .with("attributes", "color = red\nsize = 5");
        let old = attributes(was.value("attributes")).unwrap();
        let same = form(
            "name=Lamp&sku=L&description=two%0D%0Alines&price=19.90&currency=EUR&attributes=color+%3D+red%0D%0Asize+%3D+5",
        );
        let values = Values::of_form(Lang::En, &same, &mut Fill::default()).unwrap();
        assert_eq!(values.changes(&was, &old), json!({}));
        let other =
            form("name=Lamp&sku=L&description=two%0Alines&price=20&currency=EUR&attributes=color+%3D+blue");
        let values = Values::of_form(Lang::En, &other, &mut Fill::default()).unwrap();
        let wanted = json!({"price": {"amount": 2000, "currency": "EUR"}, "attributes": {"color": "blue", "size": null}});
        assert_eq!(values.changes(&was, &old), wanted);
    }

    #[test]
    fn wrong_prices_and_attributes_are_reported() {
        let mut fill = Fill::default();
        let bad = form("price=1%2C234&currency=EUR&attributes=color");
        assert!(Values::of_form(Lang::En, &bad, &mut fill).is_none());
        assert!(fill.problem("price").is_some());
        let mut fill = Fill::default();
        assert!(
            Values::of_form(Lang::En, &form("price=1&currency=EUR&attributes=color"), &mut fill).is_none()
        );
        assert!(fill.problem("attributes").is_some());
    }
}
