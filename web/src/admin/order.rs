//! `/admin/orders/{id}`: one order, and what may be done with it.

use std::collections::HashMap;

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::Method;
use axum::routing::{get, post};
use serde_json::{Value, json};
use uuid::Uuid;

use super::types::{Note, Saga};
use super::{key, new_key, plainly, refuse};
use crate::api::Refused;
use crate::api::types::{Money, Order, OrderItem, OrderLine, Page, Refund};
use crate::app::App;
use crate::form::{Fill, Form, sentence};
use crate::locale;
use crate::page::{Frame, Shown, personal, unprocessable, went};
use crate::shop::{COUNTRIES, postal, postal_fill};
use crate::visitor::{Visitor, shown};

pub fn router() -> Router<App> {
    Router::new()
        .route("/admin/orders/{id}", get(page))
        .route("/admin/orders/{id}/ship", post(ship))
        .route("/admin/orders/{id}/tracking", post(correct))
        .route("/admin/orders/{id}/deliver", post(deliver))
        .route("/admin/orders/{id}/cancel", post(cancel))
        .route("/admin/orders/{id}/refunds", post(refund))
        .route("/admin/orders/{id}/notes", post(note))
        .route("/admin/orders/{id}/address", post(send_elsewhere))
        .route("/admin/orders/{id}/mail", post(mail))
}

#[derive(Template)]
#[template(path = "admin/order.html")]
struct OrderPage {
    p: Frame,
    order: Order,
    refunds: Option<Vec<Refund>>,
    notes: Option<Vec<Note>>,
    saga: Option<Saga>,
    /// What was typed into which form.
    shipment: Fill,
    refund: Fill,
    note: Fill,
    address: Fill,
    countries: &'static [(&'static str, &'static str)],
    problem: Option<String>,
}

impl OrderPage {
    fn can(&self, action: &str) -> bool {
        self.order.next_actions.iter().any(|known| known == action)
    }

    fn is_moving(&self) -> bool {
        !matches!(self.order.status.as_str(), "delivered" | "cancelled")
    }

    fn may_go_elsewhere(&self) -> bool {
        matches!(self.order.status.as_str(), "pending" | "confirmed") && self.order.shipping_address.is_some()
    }

    /// What has left of a product.
    fn left(&self, item: &OrderItem) -> i32 {
        self.units(self.order.parcels.iter().flat_map(|parcel| &parcel.items), item)
    }

    fn units<'a>(&self, lines: impl Iterator<Item = &'a OrderLine>, item: &OrderItem) -> i32 {
        lines.filter(|line| line.product_id == item.product_id).map(|line| line.quantity).sum()
    }

    fn restocked(&self, item: &OrderItem) -> i32 {
        let refunds = self.refunds.iter().flatten().filter(|refund| refund.status != "failed");
        self.units(refunds.flat_map(|refund| &refund.restock), item)
    }

    fn to_ship(&self, item: &OrderItem) -> i32 {
        (item.quantity - self.left(item)).max(0)
    }

    fn to_restock(&self, item: &OrderItem) -> i32 {
        (item.quantity - self.restocked(item)).max(0)
    }

    /// A number field of an item: what was typed, else `usual`.
    fn typed<'a>(&self, fill: &'a Fill, item: &OrderItem, usual: &'a str) -> &'a str {
        let typed = fill.value(&format!("units-{}", item.product_id));
        if typed.is_empty() { usual } else { typed }
    }

    fn name_of(&self, line: &OrderLine) -> &str {
        self.order.items.iter().find(|item| item.product_id == line.product_id).map_or("", |item| &item.name)
    }

    fn left_to_refund(&self) -> String {
        let Money { amount, currency } = self.order.total.clone();
        self.p.money(&Money { amount: amount - self.order.refunded.amount, currency })
    }

    fn key(&self) -> Uuid {
        new_key()
    }

    /// The form's key: the one that was sent, when the form comes back.
    fn key_of(&self, fill: &Fill) -> String {
        Some(fill.value("key"))
            .filter(|key| !key.is_empty())
            .map_or_else(|| new_key().to_string(), str::to_owned)
    }
}

async fn view(visitor: &Visitor, id: Uuid) -> Result<OrderPage, Refused> {
    let name = id.to_string();
    let list = |what| visitor.signed(Method::GET, &["orders", &name, what]).query(&[("limit", "100")]);
    let order = visitor.signed(Method::GET, &["orders", &name]);
    let (refunds, notes) = (list("refunds"), list("notes"));
    let saga = visitor.signed(Method::GET, &["admin", "orders", &name, "saga"]);
    let (order, refunds, notes, saga) = tokio::join!(
        order.get::<Order>(),
        refunds.get::<Page<Refund>>(),
        notes.get::<Page<Note>>(),
        saga.get::<Saga>()
    );
    let order = order?;
    Ok(OrderPage {
        p: visitor.frame(&visitor.lang().text("order-title", &[("value", order.number.as_str().into())])),
        refunds: shown(refunds)?.map(|page| page.items),
        notes: shown(notes)?.map(|page| page.items),
        saga: shown(saga)?,
        shipment: Fill::default(),
        refund: Fill::default(),
        note: Fill::default(),
        address: order.shipping_address.as_ref().map(postal_fill).unwrap_or_default(),
        countries: &COUNTRIES,
        problem: None,
        order,
    })
}

async fn page(visitor: Visitor, Path(id): Path<Uuid>) -> Shown {
    Ok(personal(&view(&visitor, id).await?))
}

fn call<'v>(visitor: &'v Visitor, method: Method, id: Uuid, what: &str) -> crate::api::Call<'v> {
    visitor.signed(method, &["orders", &id.to_string(), what])
}

/// The result of an action whose form has no fields, or none that may be wrong.
async fn done(visitor: &Visitor, id: Uuid, answer: Result<impl Sized, Refused>, said: &str) -> Shown {
    let why = match answer {
        Ok(_) => return Ok(went(&format!("/admin/orders/{id}"), said)),
        Err(Refused::Problem(problem)) if problem.status != 404 => sentence(visitor.lang(), &problem),
        Err(Refused::Away) => visitor.lang().text("error-outcome-unknown", &[]),
        Err(other) => return Err(other.into()),
    };
    let mut page = view(visitor, id).await?;
    page.problem = Some(why);
    Ok(unprocessable(&page))
}

/// The units of each product that a form names, those above 0. A number that is none is reported above the
/// form.
fn units(visitor: &Visitor, form: &Form, fill: &mut Fill) -> Vec<Value> {
    let mut lines = HashMap::new();
    for (name, typed) in form.fields() {
        let Some(product) = name.strip_prefix("units-").and_then(|id| id.parse::<Uuid>().ok()) else {
            continue;
        };
        match typed.trim().parse::<u32>() {
            Ok(0) => {}
            Ok(units) => drop(lines.insert(product, units)),
            Err(_) if typed.trim().is_empty() => {}
            Err(_) => fill.general = Some(visitor.lang().text("problem-no-number", &[])),
        }
    }
    lines.into_iter().map(|(id, units)| json!({"product_id": id, "quantity": units})).collect()
}

async fn ship(visitor: Visitor, Path(id): Path<Uuid>, form: Form) -> Shown {
    let mut fill = Fill::of(&form);
    let items = units(&visitor, &form, &mut fill);
    let mut body = match form.get("method") {
        "collected" => json!({"method": "collected"}),
        _ => {
            json!({"carrier": form.get("carrier").trim(), "tracking_number": form.get("tracking_number").trim()})
        }
    };
    body["items"] = json!(items);
    if items.is_empty() {
        fill.general = Some(visitor.lang().text("problem-nothing-chosen", &[]));
    }
    if !fill.is_wrong() {
        match call(&visitor, Method::POST, id, "ship").json(&body).key(&key(&form)).done().await {
            Ok(_) => return Ok(went(&format!("/admin/orders/{id}"), "order-shipped")),
            Err(refused) => refuse(&mut fill, visitor.lang(), refused, &["carrier", "tracking_number"])?,
        }
    }
    let mut page = view(&visitor, id).await?;
    page.shipment = fill;
    Ok(unprocessable(&page))
}

async fn correct(visitor: Visitor, Path(id): Path<Uuid>, form: Form) -> Shown {
    let body = json!({
        "parcel_id": form.get("parcel_id"),
        "carrier": form.get("new_carrier").trim(),
        "tracking_number": form.get("new_number").trim(),
    });
    let answer = call(&visitor, Method::POST, id, "ship").json(&body).done().await;
    let answer = answer.map_err(|refused| match refused {
        Refused::Problem(problem) => Refused::Problem(plainly(problem)),
        other => other,
    });
    done(&visitor, id, answer, "tracking-corrected").await
}

async fn deliver(visitor: Visitor, Path(id): Path<Uuid>, _: Form) -> Shown {
    let answer = call(&visitor, Method::POST, id, "deliver").done().await;
    done(&visitor, id, answer, "order-delivered").await
}

async fn cancel(visitor: Visitor, Path(id): Path<Uuid>, _: Form) -> Shown {
    let answer = call(&visitor, Method::POST, id, "cancel").done().await;
    done(&visitor, id, answer, "order-cancelled").await
}

async fn refund(visitor: Visitor, Path(id): Path<Uuid>, form: Form) -> Shown {
    let mut fill = Fill::of(&form);
    let mut body = json!({"reason": form.get("reason").trim(), "restock": units(&visitor, &form, &mut fill)});
    match form.get("returned") {
        "yes" => body["returned"] = json!(true),
        "no" => body["returned"] = json!(false),
        _ => {}
    }
    // The currency is the order's, which no form changes.
    if let Some(typed) = form.filled("amount") {
        let currency = form.get("currency");
        match locale::minor(&typed, currency) {
            Some(amount) => body["amount"] = json!({"amount": amount, "currency": currency}),
            None => fill.wrong("amount", visitor.lang().text("problem-no-amount", &[])),
        }
    }
    if !fill.is_wrong() {
        match call(&visitor, Method::POST, id, "refunds").json(&body).key(&key(&form)).done().await {
            Ok(_) => return Ok(went(&format!("/admin/orders/{id}"), "order-refunded")),
            Err(refused) => refuse(&mut fill, visitor.lang(), refused, &["amount", "reason", "returned"])?,
        }
    }
    let mut page = view(&visitor, id).await?;
    page.refund = fill;
    Ok(unprocessable(&page))
}

async fn note(visitor: Visitor, Path(id): Path<Uuid>, form: Form) -> Shown {
    let body = json!({"text": form.get("text").trim()});
    match call(&visitor, Method::POST, id, "notes").json(&body).key(&key(&form)).done().await {
        Ok(_) => Ok(went(&format!("/admin/orders/{id}"), "note-added")),
        Err(refused) => {
            let mut page = view(&visitor, id).await?;
            page.note = Fill::of(&form);
            refuse(&mut page.note, visitor.lang(), refused, &["text"])?;
            Ok(unprocessable(&page))
        }
    }
}

async fn send_elsewhere(visitor: Visitor, Path(id): Path<Uuid>, form: Form) -> Shown {
    match call(&visitor, Method::PUT, id, "shipping-address").json(&postal(&form)).done().await {
        Ok(_) => Ok(went(&format!("/admin/orders/{id}"), "order-sent-elsewhere")),
        Err(refused) => {
            let mut page = view(&visitor, id).await?;
            page.address = Fill::of(&form);
            page.address.refuse(visitor.lang(), refused, &crate::shop::ADDRESS_FIELDS)?;
            Ok(unprocessable(&page))
        }
    }
}

/// The newest mail about the order, to its customer.
async fn mail(visitor: Visitor, Path(id): Path<Uuid>, form: Form) -> Shown {
    let Ok(customer) = form.get("customer").parse::<Uuid>() else {
        return Ok(went(&format!("/admin/orders/{id}"), ""));
    };
    let call = visitor.signed(Method::POST, &["users", &customer.to_string(), "mails"]);
    let answer = call.json(&json!({"order_id": id})).key(&key(&form)).done().await;
    done(&visitor, id, answer, "mail-sent-again").await
}
