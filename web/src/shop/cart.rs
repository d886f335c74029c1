//! `/cart`: the API's of who has signed in, and that in the cookie of who has not. At sign-in one becomes the other.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::Method;
use axum::routing::{get, post};
use futures_util::{StreamExt, stream};
use serde_json::json;
use uuid::Uuid;

use crate::api::Refused;
use crate::api::types::{Cart, Money, Product};
use crate::app::App;
use crate::form::Form;
use crate::page::{Failed, Frame, Shown, personal, went};
use crate::session::{CookieLine, MOST_OF_ONE};
use crate::visitor::Visitor;

pub fn router() -> Router<App> {
    Router::new()
        .route("/cart", get(page))
        .route("/cart/items", post(add))
        .route("/cart/items/{product}", post(change))
        .route("/cart/items/{product}/remove", post(remove))
}

/// Calls that go out at the same time for one page.
const SIDE_BY_SIDE: usize = 8;

pub struct Line {
    pub product: Uuid,
    /// Empty when the product is gone.
    pub name: String,
    pub price: Money,
    pub quantity: i32,
    pub available: i32,
    pub total: Money,
    /// The price that was shown last, when it was another one.
    pub was: Option<Money>,
}

impl Line {
    pub fn is_gone(&self) -> bool {
        self.name.is_empty()
    }

    pub fn is_short(&self) -> bool {
        self.available < self.quantity
    }
}

#[derive(Default)]
pub struct View {
    pub lines: Vec<Line>,
    /// What is in the cookie yet and the API's cart does not take, such as for its currency.
    pub aside: Vec<Line>,
    /// `None` when there is nothing, or no sum of it.
    pub total: Option<Money>,
}

impl View {
    pub fn can_be_bought(&self) -> bool {
        self.total.is_some() && !self.lines.iter().any(|line| line.is_gone() || line.is_short())
    }
}

#[derive(Template)]
#[template(path = "cart.html")]
struct CartPage {
    p: Frame,
    cart: View,
}

async fn page(visitor: Visitor) -> Shown {
    let cart = load(&visitor).await?;
    Ok(personal(&CartPage { p: visitor.frame(&visitor.lang().text("cart-title", &[])), cart }))
}

pub async fn load(visitor: &Visitor) -> Result<View, Refused> {
    if !visitor.is_signed_in() {
        let lines = of_cookie(visitor, visitor.cart(|cart| cart.wanted())).await?;
        return Ok(View { total: sum(&lines), lines, aside: Vec::new() });
    }
    let cart = merge(visitor).await?;
    let lines = cart.items.into_iter().map(|item| {
        let was = visitor.cart(|cart| cart.price_shown(item.product_id, &item.unit_price));
        let total = Money {
            amount: item.unit_price.amount.saturating_mul(item.quantity.into()),
            currency: item.unit_price.currency.clone(),
        };
        let (product, price, quantity) = (item.product_id, item.unit_price, item.quantity);
        Line { product, name: item.name, price, quantity, available: item.available, total, was }
    });
    let lines: Vec<_> = lines.collect();
    let aside = of_cookie(visitor, visitor.cart(|cart| cart.wanted())).await.unwrap_or_default();
    Ok(View { total: Some(cart.total).filter(|_| !lines.is_empty()), lines, aside })
}

/// The lines of the cookie with what the catalogue says of them.
async fn of_cookie(visitor: &Visitor, wanted: Vec<CookieLine>) -> Result<Vec<Line>, Refused> {
    let asked = wanted.into_iter().map(async |line| (line, product(visitor, line.product).await));
    let found: Vec<_> = stream::iter(asked).buffered(SIDE_BY_SIDE).collect().await;
    let line = |(line, product): (CookieLine, Result<Product, Refused>)| {
        let quantity = i32::from(line.quantity);
        let gone = || Money { amount: 0, currency: "XXX".to_owned() };
        match product {
            Ok(product) => {
                let was = visitor.cart(|cart| cart.price_shown(line.product, &product.price));
                let amount = product.price.amount.saturating_mul(quantity.into());
                let total = Money { amount, currency: product.price.currency.clone() };
                let (name, available) = (product.name, product.stock.available);
                Ok(Line {
                    product: line.product,
                    name,
                    price: product.price,
                    quantity,
                    available,
                    total,
                    was,
                })
            }
            Err(refused) if refused.is_not_found() => {
                let (price, total) = (gone(), gone());
                Ok(Line {
                    product: line.product,
                    name: String::new(),
                    price,
                    quantity,
                    available: 0,
                    total,
                    was: None,
                })
            }
            Err(refused) => Err(refused),
        }
    };
    found.into_iter().map(line).collect()
}

fn sum(lines: &[Line]) -> Option<Money> {
    let mut there = lines.iter().filter(|line| !line.is_gone());
    let first = there.next()?.total.clone();
    there.try_fold(first, |sum, line| {
        let same = sum.currency == line.total.currency;
        same.then(|| Money { amount: sum.amount.saturating_add(line.total.amount), ..sum })
    })
}

async fn product(visitor: &Visitor, id: Uuid) -> Result<Product, Refused> {
    visitor.call(Method::GET, &["products", &id.to_string()]).get().await
}

fn seen(visitor: &Visitor, cart: &Cart) {
    let things = cart.items.iter().map(|item| u32::try_from(item.quantity).unwrap_or(0)).sum();
    visitor.cart_holds(things);
}

/// Brings what the cookie has into the API's cart: of each product the greater of both numbers, so that doing it twice
/// does nothing more. What the API does not take stays in the cookie.
pub async fn merge(visitor: &Visitor) -> Result<Cart, Refused> {
    let mut cart: Cart = visitor.signed(Method::GET, &["cart"]).get().await?;
    for line in visitor.cart(|cart| cart.wanted()) {
        let there =
            cart.items.iter().find(|item| item.product_id == line.product).map_or(0, |item| item.quantity);
        let wanted = i32::from(line.quantity).max(there);
        let put = async {
            if wanted == there {
                return Ok(None);
            }
            put(visitor, line.product, wanted).await.map(Some)
        };
        match put.await {
            Ok(changed) => {
                cart = changed.unwrap_or(cart);
                visitor.cart(|cart| {
                    if let Some(kept) = cart.0.iter_mut().find(|kept| kept.product == line.product) {
                        kept.quantity = 0;
                    }
                });
            }
            Err(Refused::SignedOut) => return Err(Refused::SignedOut),
            Err(Refused::Away) => break,
            Err(_) => {}
        }
    }
    seen(visitor, &cart);
    Ok(cart)
}

async fn put(visitor: &Visitor, product: Uuid, quantity: i32) -> Result<Cart, Refused> {
    let call = visitor.signed(Method::PUT, &["cart", "items", &product.to_string()]);
    call.json(&json!({"quantity": quantity})).get().await
}

/// How many, as it was typed: of too many as many as there may be, and one where nothing was typed.
fn quantity(form: &Form) -> Result<u16, Failed> {
    let typed = form.get("quantity").trim();
    if typed.is_empty() {
        return Ok(1);
    }
    let typed = typed.parse::<u64>().map_err(|_| Failed::BadInput)?;
    Ok(u16::try_from(typed).unwrap_or(MOST_OF_ONE).min(MOST_OF_ONE))
}

async fn add(visitor: Visitor, form: Form) -> Shown {
    let id: Uuid = form.get("product").parse().map_err(|_| Failed::NotFound)?;
    let more = quantity(&form)?.max(1);
    if visitor.is_signed_in() {
        let (cart, product) = tokio::join!(merge(&visitor), product(&visitor, id));
        match cart {
            Ok(cart) => {
                let there =
                    cart.items.iter().find(|item| item.product_id == id).map_or(0, |item| item.quantity);
                let all = (there + i32::from(more)).min(MOST_OF_ONE.into());
                match put(&visitor, id, all).await {
                    Ok(cart) => seen(&visitor, &cart),
                    Err(refused) if ["cart_full", "mixed_currencies"].contains(&refused.code()) => {
                        return Ok(went("/cart", "cart-full"));
                    }
                    Err(refused) => return Err(refused.into()),
                }
                if let Ok(product) = product {
                    let _ = visitor.cart(|cart| cart.price_shown(id, &product.price));
                }
                return Ok(went("/cart", "added"));
            }
            // The session has just ended: what is wanted goes into the cookie, as before a sign-in.
            Err(Refused::SignedOut) => {}
            Err(refused) => return Err(refused.into()),
        }
    }
    let product = product(&visitor, id).await?;
    let fits = visitor.cart(|cart| {
        let all = cart.quantity(id).saturating_add(more);
        cart.set(id, all, &product.price)
    });
    Ok(went("/cart", if fits { "added" } else { "cart-full" }))
}

async fn change(visitor: Visitor, Path(id): Path<Uuid>, form: Form) -> Shown {
    let wanted = quantity(&form)?;
    if wanted == 0 {
        return take_out(&visitor, id).await;
    }
    let in_cookie =
        visitor.cart(|cart| match cart.0.iter_mut().find(|line| line.product == id && line.quantity > 0) {
            Some(line) => {
                line.quantity = wanted;
                true
            }
            None => false,
        });
    if !in_cookie && visitor.is_signed_in() {
        let cart = put(&visitor, id, wanted.into()).await?;
        seen(&visitor, &cart);
    }
    Ok(went("/cart", "cart-changed"))
}

async fn remove(visitor: Visitor, Path(id): Path<Uuid>, _: Form) -> Shown {
    take_out(&visitor, id).await
}

async fn take_out(visitor: &Visitor, id: Uuid) -> Shown {
    visitor.cart(|cart| cart.remove(id));
    if visitor.is_signed_in() {
        match visitor.signed(Method::DELETE, &["cart", "items", &id.to_string()]).get::<Cart>().await {
            Ok(cart) => seen(visitor, &cart),
            Err(refused) if refused.is_not_found() => {}
            Err(refused) => return Err(refused.into()),
        }
    }
    Ok(went("/cart", "removed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_no_quantity() {
        let of = |typed: &str| quantity(&Form::of(vec![("quantity".to_owned(), typed.to_owned())])).ok();
        assert_eq!(of(" 12 "), Some(12));
        assert_eq!(of("0"), Some(0));
        assert_eq!(of(""), Some(1));
        assert_eq!(of("70000"), Some(MOST_OF_ONE));
        for bad in ["-1", "1.5", "many", "99999999999999999999"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
