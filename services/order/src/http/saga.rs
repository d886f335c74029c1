//! `/admin/orders/{id}/saga`: how an order's saga went, for staff.

use axum::extract::State;
use identity::Staff;
use order_core::ids::OrderId;
use service::Problem;
use service::db::Pool;
use service::extract::{Json, Path};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{App, examples, log_order};
use crate::order::reads::ReadError;
use crate::saga::timeline::Timeline;
use crate::saga::timeline_store;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show))
}

/// Get the steps of an order's saga
///
/// Where it is, what was written when, and which events wait for the broker.
#[utoipa::path(
    get, path = "/api/v1/admin/orders/{id}/saga", operation_id = "get_order_saga", tag = "orders",
    params(("id" = inline(OrderId), Path, description = "The order.")),
    responses((status = 200, description = "The saga.", body = Timeline, example = json!(examples::saga()))),
    security(("token" = ["staff"])),
)]
async fn show(
    _: Staff,
    State(pool): State<Pool>,
    Path(id): Path<OrderId>,
) -> Result<Json<Timeline>, Problem> {
    log_order(id);
    let mut transaction = service::db::begin_with(&pool, timeline_store::BEGIN).await?;
    let found = timeline_store::read(&mut transaction, id).await?;
    transaction.commit().await?;
    Ok(Json(found.ok_or(ReadError::UnknownOrder)?))
}
