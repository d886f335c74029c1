//! `/orders`: what somebody has bought, and how far it is.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::Method;
use axum::routing::{get, post};
use time::OffsetDateTime;
use uuid::Uuid;

use super::events;
use crate::api::Refused;
use crate::api::types::{Order, OrderLine, Page, Refund};
use crate::app::App;
use crate::form::{Form, sentence};
use crate::page::{Frame, Shown, personal, unprocessable, went};
use crate::visitor::{Visitor, shown};

pub fn router() -> Router<App> {
    Router::new()
        .route("/orders", get(list))
        .route("/orders/{id}", get(page))
        .route("/orders/{id}/cancel", post(cancel))
        .route("/orders/{id}/events", get(events::follow))
}

#[derive(Template)]
#[template(path = "orders.html")]
struct Orders {
    p: Frame,
    orders: Vec<Order>,
    next: Option<String>,
    later: bool,
}

async fn list(visitor: Visitor) -> Shown {
    let cursor = visitor.query_has("cursor");
    let mut query = vec![("limit", "10")];
    query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
    let page: Page<Order> = visitor.signed(Method::GET, &["orders"]).query(&query).get().await?;
    let next = page.next_cursor.map(|cursor| {
        let query =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("cursor", &cursor).finish();
        format!("/orders?{query}")
    });
    let p = visitor.frame(&visitor.lang().text("orders-title", &[]));
    Ok(personal(&Orders { p, orders: page.items, next, later: cursor.is_some() }))
}

/// A step on an order's way: done at a time, or to come.
struct Step {
    status: String,
    at: Option<OffsetDateTime>,
    now: bool,
}

#[derive(Template)]
#[template(path = "order.html")]
struct OrderPage {
    p: Frame,
    order: Order,
    steps: Vec<Step>,
    /// `None` when they can't be looked up.
    refunds: Option<Vec<Refund>>,
    /// Where the customer's bank asks who they are.
    bank: Option<String>,
    /// The bank asks, whether or not its page is known.
    asked: bool,
    problem: Option<String>,
}

impl OrderPage {
    fn can(&self, action: &str) -> bool {
        self.order.next_actions.iter().any(|known| known == action)
    }

    /// Something will still happen, but no visitor has to wait for it at this page.
    fn is_moving(&self) -> bool {
        !matches!(self.order.status.as_str(), "delivered" | "cancelled")
    }

    /// The payment may change at any moment, and no event reports that.
    fn is_paying(&self) -> bool {
        self.order.status == "pending"
            || (self.order.status == "cancelled"
                && ["pending", "authorized"].contains(&self.order.payment.status.as_str()))
    }

    fn name_of(&self, line: &OrderLine) -> &str {
        self.order.items.iter().find(|item| item.product_id == line.product_id).map_or("", |item| &item.name)
    }
}

fn steps(order: &Order) -> Vec<Step> {
    let last = order.history.len().saturating_sub(1);
    let done = order.history.iter().enumerate().map(|(n, change)| Step {
        status: change.status.clone(),
        at: Some(change.at),
        now: n == last,
    });
    let to_come: &[&str] = match order.status.as_str() {
        "pending" => &["confirmed", "shipped", "delivered"],
        "confirmed" | "partially_shipped" => &["shipped", "delivered"],
        "shipped" => &["delivered"],
        _ => &[],
    };
    let to_come = to_come.iter().map(|status| Step { status: (*status).to_owned(), at: None, now: false });
    done.chain(to_come).collect()
}

/// A bank's page: an address that a browser may be sent to.
fn bank(order: &Order) -> Option<String> {
    let address = order.payment.next_action.as_ref()?.redirect_url.as_deref()?;
    let url = url::Url::parse(address).ok()?;
    ["https", "http"].contains(&url.scheme()).then(|| url.to_string())
}

async fn view(visitor: &Visitor, id: Uuid) -> Result<OrderPage, Refused> {
    let id = id.to_string();
    let order = visitor.signed(Method::GET, &["orders", &id]);
    let refunds = visitor.signed(Method::GET, &["orders", &id, "refunds"]);
    let (order, refunds) = tokio::join!(order.get::<Order>(), refunds.get::<Page<Refund>>());
    let order = order?;
    Ok(OrderPage {
        p: visitor.frame(&visitor.lang().text("order-title", &[("value", order.number.as_str().into())])),
        steps: steps(&order),
        refunds: shown(refunds)?.map(|page| page.items),
        bank: bank(&order),
        asked: order.payment.next_action.is_some(),
        problem: None,
        order,
    })
}

async fn page(visitor: Visitor, Path(id): Path<Uuid>) -> Shown {
    Ok(personal(&view(&visitor, id).await?))
}

async fn cancel(visitor: Visitor, Path(id): Path<Uuid>, _: Form) -> Shown {
    let here = format!("/orders/{id}");
    match visitor.signed(Method::POST, &["orders", &id.to_string(), "cancel"]).done().await {
        Ok(_) => Ok(went(&here, "cancelled")),
        Err(Refused::Problem(problem)) if problem.status == 409 => {
            let mut page = view(&visitor, id).await?;
            page.problem = Some(sentence(visitor.lang(), &problem));
            Ok(unprocessable(&page))
        }
        Err(refused) => Err(refused.into()),
    }
}
