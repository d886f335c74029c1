//! `/orders/{id}/ship` and `/deliver`: what staff do with a paid order.

use axum::extract::State;
use order_core::ids::OrderId;
use service::Problem;
use service::auth::User;
use service::extract::{Body, Json, Path};
use service::validate::Invalid;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::customers::Customers;
use super::examples;
use crate::changes::Changes;
use crate::order::reads::Reads;
use crate::order::{Order, Tracking, View};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(ship)).routes(routes!(deliver))
}

/// The order, for staff: 403 for its owner, 404 for anybody else.
pub async fn for_staff(reads: &Reads, user: User, id: OrderId) -> Result<Order, Problem> {
    let order = reads.visible(user, id).await?;
    if user.is_staff() { Ok(order) } else { Err(Problem::forbidden("This is for staff.")) }
}

/// Ship an order
///
/// Once it is paid. Asked for again with the same tracking it changes nothing.
#[utoipa::path(
    post, path = "/api/v1/orders/{id}/ship", operation_id = "ship_order", tag = "orders",
    params(("id" = inline(OrderId), Path, description = "The order.")),
    request_body(content = Tracking, example = json!({"carrier": "Royal Mail", "tracking_number": "RM123456785GB"})),
    responses((status = 200, description = "The order as it is now.", body = View, example = json!(examples::order("shipped")))),
    security(("token" = ["staff"])),
    extensions(("x-problems" = json!({"409": ["not_shippable"]}))),
)]
async fn ship(
    user: User,
    State(reads): State<Reads>,
    State(changes): State<Changes>,
    State(customers): State<Customers>,
    Path(id): Path<OrderId>,
    body: Body,
) -> Result<Json<View>, Problem> {
    for_staff(&reads, user, id).await?;
    let tracking: Tracking = body.json(&["application/json"])?;
    let mut invalid = Invalid::new();
    invalid.text("/carrier", tracking.carrier.clone(), 1, 100);
    invalid.text("/tracking_number", tracking.tracking_number.clone(), 1, 100);
    invalid.check()?;
    Ok(customers.one(user, changes.ship(id, tracking).await?).await)
}

/// Note that an order has arrived
///
/// Asked for again it changes nothing.
#[utoipa::path(
    post, path = "/api/v1/orders/{id}/deliver", operation_id = "deliver_order", tag = "orders",
    params(("id" = inline(OrderId), Path, description = "The order.")),
    responses((status = 200, description = "The order as it is now.", body = View, example = json!(examples::order("delivered")))),
    security(("token" = ["staff"])),
    extensions(("x-problems" = json!({"409": ["not_deliverable"]}))),
)]
async fn deliver(
    user: User,
    State(reads): State<Reads>,
    State(changes): State<Changes>,
    State(customers): State<Customers>,
    Path(id): Path<OrderId>,
) -> Result<Json<View>, Problem> {
    for_staff(&reads, user, id).await?;
    Ok(customers.one(user, changes.deliver(id).await?).await)
}
