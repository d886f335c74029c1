//! `/orders/{id}/refunds`: money back, by staff.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use identity::User;
use order_core::ids::{OrderId, RefundId};
use serde::Deserialize;
use service::db::Pool;
use service::extract::{Body, Json, Path, Query, not_null};
use service::page::{Page, PageParams, PageQuery};
use service::validate::Invalid;
use service::{Money, Problem};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::fulfilment::for_staff;
use super::orders::{idempotency_key, stored};
use super::{examples, lines};
use crate::order::reads::Reads;
use crate::order::{Line, LineBody, Order};
use crate::refunds::{Refunds, Request, View, store};
use crate::schema;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, open))
}

/// What staff ask for. Without an amount all that is left.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RefundRequest)]
struct RefundBody {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(schema_with = schema::refund_amount)]
    amount: Option<Money>,
    #[schema(schema_with = schema::lines_up_to_500)]
    reason: String,
    /// What goes back into stock: no more than was sold, each product once.
    #[serde(default)]
    #[schema(max_items = 100, value_type = Vec<Line>)]
    restock: Vec<LineBody>,
    /// Whether these units had left and came back. Needed where of one of these products some have left and some have not.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    returned: Option<bool>,
}

/// Refund an order
///
/// In part or, without `amount`, all that is left. The order's `refunded` follows when the provider has
/// answered.
#[utoipa::path(
    post, path = "/api/v1/orders/{id}/refunds", operation_id = "create_refund", tag = "refunds",
    params(("id" = inline(OrderId), Path, description = "The order."), ("Idempotency-Key" = String, Header, description = "Of the caller's choice, 1 to 255 visible ASCII characters; kept for a day after its answer.", min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    request_body(content = RefundBody, example = json!(examples::refund_request())),
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
    let request = checked(body.json_with_texts(&["application/json"], &["reason"])?, &order)?;
    let (answer, replayed) = refunds.answer(user, key, &order, &request).await?;
    stored(answer, replayed)
}

fn checked(request: RefundBody, order: &Order) -> Result<Request, Problem> {
    let RefundBody { amount, reason, restock, returned } = request;
    let mut invalid = Invalid::new();
    let reason = invalid.text("/reason", reason, 1, 500);
    if let Some(amount) = amount {
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
    let lines = lines::checked("/restock", &restock, 0, &mut invalid);
    for (index, line) in restock.iter().enumerate() {
        if !order.items.iter().any(|item| item.product_id == line.product_id) {
            invalid.push(
                format!("/restock/{index}/product_id"),
                "not_in_order",
                "The order has no such item.",
            );
        }
    }
    invalid.check()?;
    let reason = reason.ok_or_else(Problem::internal)?;
    Ok(Request { amount, reason, restock: lines.map_or(vec![], Vec::from), returned })
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
