//! `/cart`: the API's cart of a signed-in customer, and the cart in the cookie of any other visitor. At
//! sign-in the one becomes the other.

use std::ops::RangeInclusive;
use std::time::Duration;

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
use crate::cookie_cart::{Addition, CookieLine, MOST_OF_ONE};
use crate::form::Form;
use crate::page::{Failed, Frame, Shown, personal, went};
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
    /// The catalogue has not answered what it is.
    pub away: bool,
}

impl Line {
    /// Of a cookie, without what the catalogue says.
    fn unknown(line: CookieLine, away: bool) -> Self {
        let nothing = || Money { amount: 0, currency: "XXX".to_owned() };
        Self {
            product: line.product,
            name: String::new(),
            price: nothing(),
            quantity: line.quantity.into(),
            available: 0,
            total: nothing(),
            was: None,
            away,
        }
    }

    pub fn is_gone(&self) -> bool {
        self.name.is_empty() && !self.away
    }

    pub fn is_short(&self) -> bool {
        self.available < self.quantity
    }
}

#[derive(Default)]
pub struct View {
    pub lines: Vec<Line>,
    /// What is still in the cookie and the API's cart does not take, for example because of its currency.
    pub left_over: Vec<Line>,
    /// `None` when there is nothing, or no sum of it.
    pub total: Option<Money>,
}

impl View {
    pub fn is_in_part_away(&self) -> bool {
        self.lines.iter().any(|line| line.away)
    }

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
        visitor.settle_cart();
        let lines = of_cookie(visitor, visitor.cart(|cart| cart.wanted())).await;
        return Ok(View { total: sum(&lines), lines, left_over: Vec::new() });
    }
    let cart = merge(visitor).await?;
    visitor.settle_cart();
    let lines = cart.items.into_iter().map(|item| {
        let was = visitor.cart(|cart| cart.price_shown(item.product_id, &item.unit_price));
        let total = Money {
            amount: item.unit_price.amount.saturating_mul(item.quantity.into()),
            currency: item.unit_price.currency.clone(),
        };
        let (product, price, quantity) = (item.product_id, item.unit_price, item.quantity);
        Line { product, name: item.name, price, quantity, available: item.available, total, was, away: false }
    });
    let lines: Vec<_> = lines.collect();
    let left_over = of_cookie(visitor, visitor.cart(|cart| cart.wanted())).await;
    Ok(View { total: Some(cart.total).filter(|_| !lines.is_empty()), lines, left_over })
}

/// The lines of the cookie with what the catalogue says of them, as far as it does so in time.
async fn of_cookie(visitor: &Visitor, wanted: Vec<CookieLine>) -> Vec<Line> {
    let asked = wanted.into_iter().map(async |line| (line, product(visitor, line.product).await));
    let found: Vec<_> = stream::iter(asked).buffered(SIDE_BY_SIDE).collect().await;
    let line = |(line, product): (CookieLine, Result<Product, Refused>)| match product {
        Ok(product) => {
            let amount = product.price.amount.saturating_mul(line.quantity.into());
            Line {
                name: product.name,
                available: product.stock.available,
                total: Money { amount, currency: product.price.currency.clone() },
                was: visitor.cart(|cart| cart.price_shown(line.product, &product.price)),
                price: product.price,
                ..Line::unknown(line, false)
            }
        }
        Err(refused) => Line::unknown(line, !refused.is_not_found()),
    };
    found.into_iter().map(line).collect()
}

fn sum(lines: &[Line]) -> Option<Money> {
    if lines.iter().any(|line| line.away) {
        return None;
    }
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

/// The part of a page's time that is left for what comes after its cart is merged.
const REST: Duration = Duration::from_secs(5);

/// Merges the cookie's cart into the API's, so that a second merge changes nothing: of each product the
/// greater of both numbers, plus what was added since the cookie was written, each addition once. What the
/// API does not take, or not in time, stays in the cookie.
pub async fn merge(visitor: &Visitor) -> Result<Cart, Refused> {
    let mut cart = of_api(visitor).await?;
    let (wanted, additions) = (visitor.cart(|cart| cart.wanted()), visitor.unsettled());
    for part in parts(&wanted, &additions) {
        if visitor.left() < REST {
            break;
        }
        let done = match part {
            Part::Settled(line) => {
                let wanted = i32::from(line.quantity);
                change_to(visitor, &mut cart, line.product, None, |there| wanted.max(there)).await
            }
            Part::Added(addition) => add_once(visitor, &mut cart, addition).await,
        };
        match done {
            Ok(()) => {
                let CookieLine { product, quantity, .. } = part.line();
                visitor.cart(|cart| cart.moved(product, quantity));
            }
            Err(Refused::SignedOut) => return Err(Refused::SignedOut),
            Err(Refused::Away) => break,
            Err(_) => {}
        }
    }
    seen(visitor, &cart);
    Ok(cart)
}

/// What the cookies want of a product.
#[derive(Clone, Copy)]
enum Part<'a> {
    Settled(CookieLine),
    Added(&'a Addition),
}

impl Part<'_> {
    fn line(self) -> CookieLine {
        match self {
            Self::Settled(line) => line,
            Self::Added(addition) => addition.line,
        }
    }
}

/// The lines without the additions that are in them, each followed by these.
fn parts<'a>(wanted: &[CookieLine], additions: &'a [Addition]) -> Vec<Part<'a>> {
    let mut parts = Vec::with_capacity(wanted.len() + additions.len());
    for line in wanted {
        let added: Vec<_> =
            additions.iter().filter(|addition| addition.line.product == line.product).collect();
        let new = added.iter().fold(0, |sum: u16, addition| sum.saturating_add(addition.line.quantity));
        let quantity = line.quantity.saturating_sub(new);
        if quantity > 0 {
            parts.push(Part::Settled(CookieLine { quantity, ..*line }));
        }
        parts.extend(added.into_iter().map(Part::Added));
    }
    parts
}

async fn add_once(visitor: &Visitor, cart: &mut Cart, addition: &Addition) -> Result<(), Refused> {
    let (key, line) = (format!("added-{:08x}", addition.id), addition.line);
    let all = |there| more_of(there, line.quantity);
    match change_to(visitor, cart, line.product, Some(&key), all).await {
        // It was added before, to another number of them.
        Err(refused) if refused.code() == "idempotency_key_reused" => {
            *cart = of_api(visitor).await?;
            Ok(())
        }
        done => done,
    }
}

fn more_of(there: i32, more: u16) -> i32 {
    there.saturating_add(more.into()).min(MOST_OF_ONE.into())
}

async fn of_api(visitor: &Visitor) -> Result<Cart, Refused> {
    visitor.signed(Method::GET, &["cart"]).get().await
}

/// Tries at most, when others change the same line each time.
const TRIES: usize = 8;
/// Milliseconds before another try, so that two tabs don't meet again.
const PAUSE: RangeInclusive<u64> = 20..=120;

/// Sets how many of a product are in the API's cart, given how many there are. If another tab changes it
/// meanwhile, it starts from that tab's number; `cart_changed` when others change it all the time. With a
/// `key` of its own it is done once, however often it is asked for.
async fn change_to(
    visitor: &Visitor,
    cart: &mut Cart,
    product: Uuid,
    key: Option<&str>,
    quantity: impl Fn(i32) -> i32,
) -> Result<(), Refused> {
    let new_key = || key.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    let mut key = new_key();
    for more in (0..TRIES).rev() {
        let there = cart.items.iter().find(|item| item.product_id == product).map_or(0, |item| item.quantity);
        let wanted = quantity(there);
        if wanted == there {
            return Ok(());
        }
        let call = visitor.signed(Method::PUT, &["cart", "items", &product.to_string()]);
        // The edge may send it twice, and by then the cart has what it asks for.
        let call = call.key(&key);
        match call.json(&json!({"quantity": wanted, "expected_quantity": there})).get().await {
            Ok(changed) => {
                *cart = changed;
                return Ok(());
            }
            // It may be done a moment later: only the same key shows it.
            Err(refused) if refused.code() == "idempotency_in_progress" && more > 0 => pause().await,
            Err(refused) if refused.code() == "cart_changed" && more > 0 => {
                pause().await;
                *cart = of_api(visitor).await?;
                key = new_key();
            }
            Err(refused) => return Err(refused),
        }
    }
    Ok(())
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(rand::random_range(PAUSE))).await;
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
            Ok(mut cart) => {
                match change_to(&visitor, &mut cart, id, None, |there| more_of(there, more)).await {
                    Ok(()) => seen(&visitor, &cart),
                    Err(refused) if ["cart_full", "mixed_currencies"].contains(&refused.code()) => {
                        return Ok(went("/cart", "cart-full"));
                    }
                    Err(refused) if ["cart_changed", "idempotency_in_progress"].contains(&refused.code()) => {
                        return Ok(went("/cart", "cart-busy"));
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
    let fits = visitor.add_to_cart(id, more, &product.price);
    Ok(went("/cart", if fits { "added" } else { "cart-full" }))
}

async fn change(visitor: Visitor, Path(id): Path<Uuid>, form: Form) -> Shown {
    let wanted = quantity(&form)?;
    if wanted == 0 {
        return take_out(&visitor, id).await;
    }
    let in_cookie = visitor.cart(|cart| {
        match cart.lines.iter_mut().find(|line| line.product == id && line.quantity > 0) {
            Some(line) => {
                line.quantity = wanted;
                true
            }
            None => false,
        }
    });
    if !in_cookie && visitor.is_signed_in() {
        let call = visitor.signed(Method::PUT, &["cart", "items", &id.to_string()]);
        let cart = call.json(&json!({"quantity": wanted})).get().await?;
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
    fn what_was_added_goes_on_top_of_what_the_cookie_had() {
        let [rope, lamp] = [Uuid::now_v7(), Uuid::now_v7()];
        let price = Money { amount: 5, currency: "EUR".to_owned() };
        let line = |product, quantity| CookieLine { product, quantity, seen: 5 };
        let additions = [Addition::new(rope, 2, &price), Addition::new(lamp, 1, &price)];
        let of = |wanted: &[CookieLine]| -> Vec<_> {
            let parts = parts(wanted, &additions).into_iter();
            parts
                .map(|part| (part.line().product, part.line().quantity, matches!(part, Part::Added(_))))
                .collect()
        };
        assert_eq!(of(&[line(rope, 5), line(lamp, 1)]), [(rope, 3, false), (rope, 2, true), (lamp, 1, true)]);
        // The lamp did not fit.
        assert_eq!(of(&[line(rope, 2)]), [(rope, 2, true)]);
        assert_eq!(of(&[]), []);
    }

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
