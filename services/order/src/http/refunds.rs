//! `/orders/{id}/refunds`: money back, by staff.

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use service::auth::User;
use service::extract::{Body, Json, Path, Query};
use service::page::{Page, PageQuery};
use service::validate::Invalid;
use service::{Money, Problem};
use sqlx::PgPool;
use uuid::Uuid;

use super::fulfilment::for_staff;
use super::orders::{check_lines, idempotency_key, stored, visible};
use crate::app::App;
use crate::order::{MAX_LINES, Order};
use crate::refund::{Refunds, Request, View, store};

pub fn router() -> Router<App> {
    Router::new().route("/api/v1/orders/{id}/refunds", get(list).post(open))
}

async fn open(
    user: User,
    State(pool): State<PgPool>,
    State(refunds): State<Refunds>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let order = for_staff(&pool, user, id).await?;
    let key = idempotency_key(&headers)?;
    let request: Request = body.json(&["application/json"])?;
    check(&request, &order)?;
    let (answer, replayed) = refunds.answer(user.id, key, &order, &request).await?;
    stored(answer, replayed)
}

fn check(request: &Request, order: &Order) -> Result<(), Problem> {
    let mut invalid = Invalid::new();
    invalid.text("/reason", request.reason.clone(), 1, 500);
    if let Some(amount) = request.amount {
        invalid.range("/amount/amount", amount.amount, 1, Money::MAX_AMOUNT);
        if amount.currency != order.total.currency {
            let detail = format!("The order is in {}.", order.total.currency);
            invalid.push("/amount/currency", "wrong_currency", detail);
        }
    }
    invalid.range("/restock", request.restock.len(), 0, MAX_LINES);
    check_lines("/restock", &request.restock, &mut invalid);
    for (index, line) in request.restock.iter().enumerate() {
        if !order.items.iter().any(|item| item.product_id == line.product_id) {
            invalid.push(
                format!("/restock/{index}/product_id"),
                "not_in_order",
                "The order has no such item.",
            );
        }
    }
    invalid.check()
}

async fn list(
    user: User,
    State(pool): State<PgPool>,
    Path(id): Path<Uuid>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<View>>, Problem> {
    let order = visible(&pool, user, id).await?;
    let (limit, before) = (page.limit()?, page.after()?);
    let mut connection = pool.acquire().await?;
    let refunds = store::page(&mut connection, id, order.total.currency, before, limit + 1).await?;
    Ok(Json(Page::new(refunds, limit, |refund| refund.id)))
}
