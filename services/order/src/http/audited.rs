//! `/audit/orders`: what was done here, for admins.

use audit::list::ListQuery;
use audit::{Filters, Recorded};
use axum::extract::State;
use axum::response::Response;
use identity::Admin;
use serde_json::{Value, json};
use service::Problem;
use service::db::Pool;
use service::extract::{Json, Query};
use service::page::{Page, PageParams};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(export))
}

/// List what was done to orders
///
/// By staff, admins and others who are named. Newest first; of several filters all have to fit.
#[utoipa::path(
    get, path = "/api/v1/audit/orders", operation_id = "list_order_audit", tag = "audit",
    params(PageParams, Filters),
    responses((status = 200, description = "A page of the record.", body = Page<Recorded>, example = json!({"items": [example()], "next_cursor": null}))),
    security(("token" = ["admin"])),
)]
async fn list(
    _: Admin,
    State(pool): State<Pool>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Recorded>>, Problem> {
    audit::list::page(&pool, query).await
}

/// Export the audit log of orders
///
/// Each line is an entry as in the list, newest first (NDJSON).
#[utoipa::path(
    get, path = "/api/v1/audit/orders/export", operation_id = "export_order_audit", tag = "audit",
    params(Filters),
    responses((status = 200, description = "The file.", content((String = "application/x-ndjson", example = json!(format!("{}\n", example())))))),
    security(("token" = ["admin"])),
)]
async fn export(
    _: Admin,
    State(pool): State<Pool>,
    Query(filters): Query<Filters>,
) -> Result<Response, Problem> {
    audit::list::export(pool, filters, "audit-orders")
}

/// An entry, in the OpenAPI document.
fn example() -> Value {
    json!({"id": "018f5c3e-7a00-7000-8000-000000000004", "at": "2026-11-23T09:00:00Z", "actor": "018f5c3e-7a00-7000-8000-000000000003", "role": "staff", "action": "order.shipped", "object": {"kind": "order", "id": "018f5c3e-7a00-7000-8000-000000000001"}, "changes": [{"field": "parcel", "before": null, "after": "018f5c3e-7a00-7000-8000-000000000005"}], "request_id": "018f5c3e-7a00-7000-8000-000000000009"})
}
