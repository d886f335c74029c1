//! The shop's pages.

mod account;
mod addresses;
mod auth;
mod cart;
mod catalogue;
mod checkout;
mod events;
mod home;
mod orders;
mod product;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::{get, post};

pub use events::Listeners;

pub use addresses::{COUNTRIES, FIELDS as ADDRESS_FIELDS, fill as postal_fill, postal};

use crate::app::App;
use crate::form::Form;
use crate::locale::Lang;
use crate::page::{Shown, own_path, went};
use crate::visitor::{THEMES, Visitor};

pub fn router() -> Router<App> {
    Router::new()
        .route("/", get(home::page))
        .route("/preferences", post(preferences))
        .route(
            "/robots.txt",
            get(async || "User-agent: *\nDisallow: /cart\nDisallow: /checkout\nDisallow: /account\n"),
        )
        .merge(account::router())
        .merge(addresses::router())
        .merge(auth::router())
        .merge(cart::router())
        .merge(catalogue::router())
        .merge(checkout::router())
        .merge(orders::router())
        .merge(product::router())
}

/// Language and theme, of who has signed in and who has not.
async fn preferences(visitor: Visitor, form: Form) -> Shown {
    let lang = Lang::of_code(form.get("lang"));
    let theme = THEMES.into_iter().find(|theme| *theme == form.get("theme"));
    Ok((visitor.chosen(lang, theme), went(own_path(form.get("next")), "")).into_response())
}
