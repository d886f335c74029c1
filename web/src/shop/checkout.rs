//! `/checkout`: one page that shows what will be charged, and charges nothing else.
//!
//! The form has an Idempotency-Key of its own from when it was shown. However often it is sent with it, an
//! order is placed once. It keeps the key while the outcome is not known; a final refusal ends it, and the
//! page gets another. It also has the goods and the total that were agreed to: if the order would have other
//! goods or another total, there is none.

use askama::Template;
use axum::Router;
use axum::http::{Method, StatusCode};
use axum::routing::get;
use serde_json::{Value, json};
use uuid::Uuid;

use super::addresses::{self, COUNTRIES};
use super::{auth, cart};
use crate::api::Refused;
use crate::api::types::{Address, Money, Order, Page};
use crate::app::App;
use crate::form::{Fill, Form, sentence};
use crate::page::{Frame, Holds, Shown, show, went};
use crate::visitor::{Visitor, shown};

pub fn router() -> Router<App> {
    Router::new().route("/checkout", get(page).post(buy))
}

/// Cards of the payment sandbox, each with the message that says what it does.
const CARDS: [&str; 8] = [
    "pm_card_visa",
    "pm_card_mastercard",
    "pm_card_threeDSecure2Required",
    "pm_card_chargeDeclined",
    "pm_card_chargeDeclinedInsufficientFunds",
    "pm_card_chargeDeclinedExpiredCard",
    "pm_card_slow",
    "pm_card_capture_lost",
];

#[derive(Template)]
#[template(path = "checkout.html")]
struct Checkout {
    p: Frame,
    cart: cart::View,
    total: Money,
    /// `None` when they can't be looked up.
    addresses: Option<Vec<Address>>,
    /// None where the card provider is not the sandbox: its own fields are to be put into the page.
    cards: &'static [&'static str],
    countries: &'static [(&'static str, &'static str)],
    fill: Fill,
}

async fn page(visitor: Visitor) -> Shown {
    if !visitor.is_signed_in() {
        return Err(Refused::SignedOut.into());
    }
    view(&visitor, Fill::default(), StatusCode::OK).await
}

fn new_key() -> String {
    Uuid::now_v7().to_string()
}

/// The page with what is in the cart now, and with what was typed before.
async fn view(visitor: &Visitor, mut fill: Fill, status: StatusCode) -> Shown {
    let (cart, addresses) = tokio::join!(cart::load(visitor), addresses::all(visitor));
    let (cart, addresses) = (cart?, shown(addresses)?);
    let Some(total) = cart.total.clone() else { return Ok(went("/cart", "")) };
    if Uuid::try_parse(fill.value("key")).is_err() {
        fill = fill.with("key", new_key());
    }
    if fill.value("address").is_empty() {
        let first = addresses.iter().flatten().next().map(|address| address.id.to_string());
        fill = fill.with("address", first.unwrap_or_else(|| "new".to_owned()));
    }
    if fill.value("name").is_empty() {
        fill = fill.with("name", visitor.session().map(|session| session.name).unwrap_or_default());
    }
    if fill.value("payment_method").is_empty() {
        fill = fill.with("payment_method", CARDS[0]);
    }
    let p = visitor.frame(&visitor.lang().text("checkout-title", &[]));
    let cards = if visitor.app().sandbox { &CARDS[..] } else { &[] };
    let page = Checkout { p, cart, total, addresses, cards, countries: &COUNTRIES, fill };
    Ok(show(status, &page, Holds::Personal))
}

/// After a sign-in in the middle: the page with all that was typed, and the same key. When the order was placed before the
/// session ended, and the answer was lost, its own page.
pub async fn again(visitor: &Visitor, kept: Vec<(String, String)>) -> Shown {
    if let Some(order) = placed_before(visitor, &kept).await {
        return Ok(went(&format!("/orders/{order}"), "placed-before"));
    }
    let fill = kept.into_iter().fold(Fill::default(), |fill, (name, value)| fill.with(&name, value));
    view(visitor, fill, StatusCode::OK).await
}

/// The newest order that may have come out of this form: nothing is left in the cart, the order was placed after the form
/// was shown, it is of the goods that the form had and comes to its total, and it was not cancelled. None when the cart can't be looked at.
async fn placed_before(visitor: &Visitor, kept: &[(String, String)]) -> Option<Uuid> {
    let orders = visitor.signed(Method::GET, &["orders"]).query(&[("limit", "5")]);
    let (cart, orders) = tokio::join!(cart::load(visitor), orders.get::<Page<Order>>());
    if !cart.ok()?.lines.is_empty() {
        return None;
    }
    orders.ok()?.items.into_iter().find(|order| is_of_form(order, kept)).map(|order| order.id)
}

/// Clocks may differ so much, in seconds.
const CLOCKS: i64 = 60;

fn is_of_form(order: &Order, kept: &[(String, String)]) -> bool {
    let typed = |name: &str| kept.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    // A key is made when its form is shown, and says when (UUIDv7).
    let shown = Uuid::try_parse(typed("key")).ok().and_then(|key| key.get_timestamp());
    let Some(shown) = shown.and_then(|at| i64::try_from(at.to_unix().0).ok()) else { return false };
    let mut goods: Vec<String> =
        kept.iter().filter(|(key, _)| key == "line").map(|(_, line)| line.clone()).collect();
    let mut bought: Vec<String> =
        order.items.iter().map(|item| format!("{} {}", item.quantity, item.product_id)).collect();
    goods.sort_unstable();
    bought.sort_unstable();
    let total = &order.total;
    goods == bought
        && order.status != "cancelled"
        && order.placed_at.unix_timestamp() >= shown - CLOCKS
        && (typed("amount").parse() == Ok(total.amount) && typed("currency") == total.currency)
}

async fn buy(visitor: Visitor, form: Form) -> Shown {
    let Ok(key) = Uuid::try_parse(form.get("key")) else {
        return view(&visitor, Fill::of(&form), StatusCode::UNPROCESSABLE_ENTITY).await;
    };
    let call = visitor.signed(Method::POST, &["orders"]).key(&key.to_string());
    let placed = call.json(&request(&form)).get::<Order>().await;
    let lang = visitor.lang();
    let refused = match placed {
        Ok(order) => {
            if form.get("save_address") == "yes" && form.get("address") == "new" {
                let saved = visitor.signed(Method::POST, &["me", "addresses"]).key(&key.to_string());
                if saved.json(&addresses::postal(&form)).done().await.is_err() {
                    tracing::info!("address.not_saved");
                }
            }
            visitor.cart_holds(0);
            return Ok(went(&format!("/orders/{}", order.id), ""));
        }
        Err(refused) => refused,
    };
    match refused {
        Refused::SignedOut => {
            let kept: Vec<_> = form.fields().iter().filter(|(name, _)| name != "csrf").cloned().collect();
            Ok(auth::at_checkout(&visitor, &kept))
        }
        Refused::Away | Refused::Moved(_) => Ok(uncertain(&visitor, &form)),
        Refused::Problem(problem) => match problem.code.as_str() {
            "idempotency_in_progress" => Ok(uncertain(&visitor, &form)),
            _ if problem.status == 429 => Ok(uncertain(&visitor, &form)),
            "idempotency_key_reused" => Ok(sent_before(&visitor)),
            // Nothing is stored with the key: the same form may be put right.
            "validation_failed" | "unknown_address" => {
                let mut fill = Fill::of(&form);
                let fields = [&addresses::FIELDS[..], &["payment_method"]].concat();
                fill.refuse(lang, Refused::Problem(problem), &fields)?;
                view(&visitor, fill, StatusCode::UNPROCESSABLE_ENTITY).await
            }
            _ => {
                let mut fill = Fill::of(&form).with("key", new_key());
                fill.general = Some(sentence(lang, &problem));
                view(&visitor, fill, StatusCode::CONFLICT).await
            }
        },
    }
}

/// What the form asks for: the cart as it showed it, for the total that it showed.
fn request(form: &Form) -> Value {
    let mut request = json!({
        "payment_method": form.get("payment_method"),
        "expected_total": {
            "amount": form.get("amount").parse::<i64>().unwrap_or(-1),
            "currency": form.get("currency"),
        },
    });
    let lines = form.fields().iter().filter(|(name, _)| name == "line");
    let lines: Vec<Value> = lines.filter_map(|(_, line)| line_of(line)).collect();
    if !lines.is_empty() {
        request["expected_items"] = json!(lines);
    }
    match Uuid::try_parse(form.get("address")) {
        Ok(id) => request["address_id"] = json!(id),
        Err(_) => request["shipping_address"] = json!(addresses::postal(form)),
    }
    request
}

/// A line of the cart as the form has it: `2 018f5c3e-7a00-7000-8000-000000000001`.
fn line_of(text: &str) -> Option<Value> {
    let (quantity, product) = text.split_once(' ')?;
    Some(json!({"product_id": Uuid::try_parse(product).ok()?, "quantity": quantity.parse::<u32>().ok()?}))
}

#[derive(Template)]
#[template(path = "uncertain.html")]
struct Uncertain {
    p: Frame,
    fields: Vec<(String, String)>,
    /// Whether the same may be sent again.
    again: bool,
}

/// It is not known yet whether there is an order: only the same form may be sent again, which places it once.
fn uncertain(visitor: &Visitor, form: &Form) -> axum::response::Response {
    let p = visitor.frame(&visitor.lang().text("uncertain-title", &[]));
    let fields = form.fields().iter().filter(|(name, _)| name != "csrf").cloned().collect();
    show(StatusCode::SERVICE_UNAVAILABLE, &Uncertain { p, fields, again: true }, Holds::Personal)
}

/// The form was changed after it had been sent: the order of before may be there.
fn sent_before(visitor: &Visitor) -> axum::response::Response {
    let p = visitor.frame(&visitor.lang().text("uncertain-title", &[]));
    show(StatusCode::CONFLICT, &Uncertain { p, fields: Vec::new(), again: false }, Holds::Personal)
}

#[cfg(test)]
mod tests {
    use time::format_description::well_known::Rfc3339;
    use time::{Duration, OffsetDateTime};

    use super::*;
    use crate::locale::Lang;

    #[test]
    fn an_order_is_asked_for_as_it_was_shown() {
        let form = Form::parse(b"amount=3998&currency=EUR&line=2+018f5c3e-7a00-7000-8000-000000000009&line=x&payment_method=pm_card_visa&address=new&name=Ada&line1=1+Quay&city=&country=GB");
        assert_eq!(
            request(&form),
            json!({
                "payment_method": "pm_card_visa",
                "expected_total": {"amount": 3998, "currency": "EUR"},
                "expected_items": [{"product_id": "018f5c3e-7a00-7000-8000-000000000009", "quantity": 2}],
                "shipping_address": {"name": "Ada", "line1": "1 Quay", "country": "GB"},
            })
        );
        let saved = "018f5c3e-7a00-7000-8000-000000000001";
        let form = Form::parse(format!("amount=x&currency=EUR&address={saved}").as_bytes());
        let request = request(&form);
        assert_eq!(request["address_id"], saved);
        assert_eq!(request["expected_total"]["amount"], -1, "no total that could be right");
        assert!(request.get("shipping_address").is_none());
    }

    const SEEN: &str = "018f5c3e-7a00-7000-8000-000000000009";

    #[test]
    fn the_order_of_a_form_was_placed_after_it_and_comes_to_its_total() {
        let order = |placed_at: OffsetDateTime, amount: i64| -> Order {
            let eur = |amount: i64| json!({"amount": amount, "currency": "EUR"});
            let placed_at = placed_at.format(&Rfc3339).unwrap();
            serde_json::from_value(json!({
                "id": Uuid::now_v7(), "number": "F7K2M-9XHRR", "status": "pending",
                "items": [{"product_id": SEEN, "sku": "A", "name": "A", "quantity": 2, "unit_price": eur(1999), "line_total": eur(3998)}],
                "total": eur(amount), "refunded": eur(0), "payment": {"status": "pending"}, "parcels": [],
                "history": [], "next_actions": [], "placed_at": placed_at,
            }))
            .unwrap()
        };
        let kept = |key: &str| {
            let line = format!("2 {SEEN}");
            let fields = [("key", key), ("amount", "3998"), ("currency", "EUR"), ("line", &line)];
            fields.map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        let now = OffsetDateTime::now_utc();
        let key = new_key();
        assert!(is_of_form(&order(now, 3998), &kept(&key)));
        assert!(!is_of_form(&order(now, 3997), &kept(&key)), "another total");
        let mut other = order(now, 3998);
        other.items[0].product_id = Uuid::now_v7();
        assert!(!is_of_form(&other, &kept(&key)), "other goods");
        assert!(!is_of_form(&order(now - Duration::hours(1), 3998), &kept(&key)), "before the form");
        let cancelled = Order { status: "cancelled".to_owned(), ..order(now, 3998) };
        assert!(!is_of_form(&cancelled, &kept(&key)), "cancelled");
        for bad in ["", "x", "f47ac10b-58cc-4372-a567-0e02b2c3d479"] {
            assert!(!is_of_form(&order(now, 3998), &kept(bad)), "{bad}");
        }
    }

    #[test]
    fn each_card_says_what_it_does() {
        for card in CARDS {
            assert!(Lang::Zh.has(&format!("card-{}", card.replace('_', "-"))), "{card}");
        }
    }
}
