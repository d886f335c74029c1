//! `/account/addresses`: where parcels may go.

use std::sync::LazyLock;

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::Method;
use axum::routing::{get, post};
use celes::Country;
use uuid::Uuid;

use crate::api::Refused;
use crate::api::types::{Address, Page, PostalAddress};
use crate::app::App;
use crate::form::{Fill, Form};
use crate::page::{Failed, Frame, Shown, personal, unprocessable, went};
use crate::visitor::Visitor;

pub fn router() -> Router<App> {
    Router::new()
        .route("/account/addresses", get(list).post(create))
        .route("/account/addresses/new", get(new))
        .route("/account/addresses/{id}", get(edit).post(update))
        .route("/account/addresses/{id}/delete", post(delete))
}

pub const FIELDS: [&str; 8] = ["name", "line1", "line2", "city", "region", "postal_code", "country", "phone"];

/// Codes with names in English; a script writes them in the page's language.
pub static COUNTRIES: LazyLock<Vec<(&'static str, &'static str)>> = LazyLock::new(|| {
    let all = Country::get_countries();
    let mut countries: Vec<_> = all.iter().map(|country| (country.alpha2, country.long_name)).collect();
    // Not in ISO 3166, and the API knows it.
    if !countries.iter().any(|(code, _)| *code == "XK") {
        countries.push(("XK", "Kosovo"));
    }
    countries.sort_by_key(|(_, name)| *name);
    countries
});

pub fn postal(form: &Form) -> PostalAddress {
    let typed = |name: &str| form.get(name).trim().to_owned();
    PostalAddress {
        name: typed("name"),
        line1: typed("line1"),
        line2: form.filled("line2"),
        city: form.filled("city"),
        region: form.filled("region"),
        postal_code: form.filled("postal_code"),
        country: typed("country"),
        phone: form.filled("phone"),
    }
}

pub fn fill(address: &PostalAddress) -> Fill {
    let optional = |text: &Option<String>| text.clone().unwrap_or_default();
    Fill::default()
        .with("name", &*address.name)
        .with("line1", &*address.line1)
        .with("line2", optional(&address.line2))
        .with("city", optional(&address.city))
        .with("region", optional(&address.region))
        .with("postal_code", optional(&address.postal_code))
        .with("country", &*address.country)
        .with("phone", optional(&address.phone))
}

pub async fn all(visitor: &Visitor) -> Result<Vec<Address>, Refused> {
    let page = visitor.signed(Method::GET, &["me", "addresses"]).query(&[("limit", "50")]);
    Ok(page.get::<Page<Address>>().await?.items)
}

#[derive(Template)]
#[template(path = "addresses.html")]
struct Addresses {
    p: Frame,
    addresses: Vec<Address>,
}

#[derive(Template)]
#[template(path = "address.html")]
struct AddressPage {
    p: Frame,
    fill: Fill,
    action: String,
    countries: &'static [(&'static str, &'static str)],
}

fn view(visitor: &Visitor, title: &str, fill: Fill, action: String) -> AddressPage {
    AddressPage { p: visitor.frame(&visitor.lang().text(title, &[])), fill, action, countries: &COUNTRIES }
}

async fn list(visitor: Visitor) -> Shown {
    let addresses = all(&visitor).await?;
    Ok(personal(&Addresses { p: visitor.frame(&visitor.lang().text("addresses-title", &[])), addresses }))
}

async fn new(visitor: Visitor) -> Shown {
    if !visitor.is_signed_in() {
        return Err(Refused::SignedOut.into());
    }
    let fill = Fill::default().with("key", Uuid::now_v7().to_string());
    Ok(personal(&view(&visitor, "address-new-title", fill, "/account/addresses".to_owned())))
}

async fn create(visitor: Visitor, form: Form) -> Shown {
    let call = visitor.signed(Method::POST, &["me", "addresses"]).json(&postal(&form));
    let key = form.get("key").parse::<Uuid>().unwrap_or_else(|_| Uuid::now_v7());
    match call.key(&key.to_string()).done().await {
        Ok(_) => Ok(went("/account/addresses", "address-saved")),
        Err(refused) => {
            let mut fill = Fill::of(&form);
            fill.refuse(visitor.lang(), refused, &FIELDS)?;
            Ok(unprocessable(&view(&visitor, "address-new-title", fill, "/account/addresses".to_owned())))
        }
    }
}

async fn edit(visitor: Visitor, Path(id): Path<Uuid>) -> Shown {
    let address: Address = visitor.signed(Method::GET, &["me", "addresses", &id.to_string()]).get().await?;
    let action = format!("/account/addresses/{id}");
    Ok(personal(&view(&visitor, "address-edit-title", fill(&address.postal), action)))
}

async fn update(visitor: Visitor, Path(id): Path<Uuid>, form: Form) -> Shown {
    let call = visitor.signed(Method::PUT, &["me", "addresses", &id.to_string()]).json(&postal(&form));
    match call.done().await {
        Ok(_) => Ok(went("/account/addresses", "address-saved")),
        Err(refused) if refused.is_not_found() => Err(Failed::NotFound),
        Err(refused) => {
            let mut fill = Fill::of(&form);
            fill.refuse(visitor.lang(), refused, &FIELDS)?;
            Ok(unprocessable(&view(&visitor, "address-edit-title", fill, format!("/account/addresses/{id}"))))
        }
    }
}

async fn delete(visitor: Visitor, Path(id): Path<Uuid>, _: Form) -> Shown {
    match visitor.signed(Method::DELETE, &["me", "addresses", &id.to_string()]).done().await {
        Err(refused) if !refused.is_not_found() => Err(refused.into()),
        _ => Ok(went("/account/addresses", "address-deleted")),
    }
}
