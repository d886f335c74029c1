//! `/orders/{id}/refunds`: money back, by staff.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use identity::User;
use order_core::ids::{OrderId, RefundId};
use service::db::Pool;
use service::extract::{Body, Json, Path, Query};
use service::page::{Page, PageParams, PageQuery};
use service::validate::Invalid;
use service::{Money, Problem};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::examples;
use super::fulfilment::for_staff;
use super::orders::{check_lines, idempotency_key, stored};
use crate::order::reads::Reads;
use crate::order::{MAX_LINES, Order};
use crate::refunds::{Refunds, Request, View, store};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, open))
}

/// Refund an order
///
/// In part or, without `amount`, all that is left. The order's `refunded` follows when the provider has
/// answered.
#[utoipa::path(
    post, path = "/api/v1/orders/{id}/refunds", operation_id = "create_refund", tag = "refunds",
    params(("id" = inline(OrderId), Path, description = "The order."), ("Idempotency-Key" = String, Header, description = "Of the caller's choice, 1 to 255 visible ASCII characters; kept for a day after its answer.", min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    request_body(content = Request, example = json!(examples::refund_request())),
    responses((status = 201, description = "The refund.", body = View, example = json!(examples::refund("pending")))),
    security(("token" = ["staff"])),
    extensions(("x-problems" = json!({"409": ["refund_exceeds_captured", "restock_exceeds_sold", "payment_disputed"]}))),
)]
async fn open(
    user: User,
    State(reads): State<Reads>,
    State(refunds): State<Refunds>,
    Path(id): Path<OrderId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let order = for_staff(&reads, user, id).await?;
    let key = idempotency_key(&headers)?;
    let request: Request = body.json_with_texts(&["application/json"], &["reason"])?;
    check(&request, &order)?;
    let (answer, replayed) = refunds.answer(user.id.into(), key, &order, &request).await?;
    stored(answer, replayed)
}

fn check(request: &Request, order: &Order) -> Result<(), Problem> {
    let mut invalid = Invalid::new();
    invalid.text("/reason", request.reason.clone(), 1, 500);
    if let Some(amount) = request.amount {
        let currency = order.total.currency;
        let step = currency.card_step();
        invalid.range("/amount/amount", amount.amount, step, currency.card_ceiling());
        if amount.amount % step != 0 {
            let detail = format!("Cards are credited in steps of {}.", Money::new(step, currency));
            invalid.push("/amount/amount", "not_chargeable", detail);
        }
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

/// List an order's refunds
///
/// Newest first, for the order's owner and for staff.
#[utoipa::path(
    get, path = "/api/v1/orders/{id}/refunds", operation_id = "list_refunds", tag = "refunds",
    params(("id" = inline(OrderId), Path, description = "The order."), PageParams),
    responses((status = 200, description = "A page of refunds.", body = Page<View>, example = json!({"items": [examples::refund("succeeded")], "next_cursor": null}))),
    security(("token" = [])),
)]
async fn list(
    user: User,
    State(pool): State<Pool>,
    State(reads): State<Reads>,
    Path(id): Path<OrderId>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<View>>, Problem> {
    let order = reads.visible(user, id).await?;
    let (limit, before) = (page.limit()?, page.after::<RefundId>()?);
    let mut connection = pool.acquire().await?;
    let refunds = store::page(&mut connection, id, order.total.currency, before, limit + 1).await?;
    Ok(Json(Page::new(refunds, limit, |refund| refund.id)))
}
